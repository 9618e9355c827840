"""The scripts of launch/: what each would start."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from running_scripts import ENDED, LAUNCH, RESTARTED, run_script, wait_for

from dig_jax import errors

SCRIPTS = sorted(LAUNCH.glob("*.sh"))
SHARED = ("--config=configs/cifar10.py", "--workdir=gs://bucket/run")
ODD = "--config.sample.labels=(1, 2)'\"\\$x"  # as a shell and YAML must quote it
TPU = {"TPU_NAME": "dig", "ZONE": "us-west4-a", "PROJECT": "mine"}
GKE = {"NAME": "dig", "IMAGE": "repository/dig:tpu"}
XPK = {**GKE, "CLUSTER": "all", "DEVICE": "v5litepod-16"}
MODES = ("sample", "evaluate")
JOBSET = {**GKE, "ACCELERATOR": "tpu-v5-lite-podslice", "TOPOLOGY": "4x4", "HOSTS": "4"}


def dry_run(name, *arguments, **settings):
    """The commands that a script would start, each as its words."""
    done = run_script(name, "--dry_run", *arguments, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    with_variable = run_script(name, *arguments, **settings, DRY_RUN="1")
    assert with_variable.stdout == done.stdout
    return split_lines(done.stdout)


def split_lines(text):
    """Words of each line, as bash reads them."""
    lines = []
    for line in text.splitlines():
        printed = subprocess.run(
            ["bash", "-c", f"printf '%s\\0' {line}"],
            capture_output=True,
            text=True,
            check=True,
        )
        lines.append(printed.stdout.split("\0")[:-1])
    return lines


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_no_complaint(script):
    command = shutil.which("shellcheck") or Path(sys.executable).with_name("shellcheck")
    done = subprocess.run(
        [command, "--external-sources", "--source-path=SCRIPTDIR", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("", 0)


def test_one_gpu_host_is_one_process():
    (words,) = dry_run("gpu.sh", "--config=configs/digits.py", ODD)
    assert words[:2] == ["bash", "launch/supervise.sh"]
    assert words[3:] == [
        *("-m", "dig_jax.main", "--distributed=off"),
        *("--config=configs/digits.py", ODD),
    ]


@pytest.mark.parametrize(
    ("device", "given", "variant"),
    [
        ("gpu", (), "parallel"),
        ("cpu", (), "parallel:small"),
        ("cpu", ("--variant=uvit:small",), "uvit:small"),
        ("tpu", ("--variant=mix",), "mix"),
    ],
)
def test_fashion_mnist_is_prepared_trained_drawn_and_scored(
    device, given, variant, tmp_path
):
    data = {"DATA_DIR": str(tmp_path), "DEVICE": device}
    arguments = ("--source=/some files", *given, ODD)
    prepare, train, *others = dry_run("fashion_mnist.sh", *arguments, **data)
    assert prepare[1:] == [
        *("-m", "dig_jax.prepare", "idx", "--name=fashion_mnist"),
        *("--source=/some files", f"--data_dir={tmp_path}"),
    ]
    workdir = f"--workdir=runs/fashion_mnist_{variant.replace(':', '_')}"
    assert train[1:] == [
        *("-m", "dig_jax.main", f"--config=configs/fashion_mnist.py:{variant}"),
        *(f"--config.data.data_dir={tmp_path}", workdir, ODD),
    ]
    modes = [["-m", "dig_jax.main", workdir, f"--mode={m}"] for m in MODES]
    assert [words[1:] for words in others] == modes
    (tmp_path / "dig_fashion_mnist" / "1.0.0").mkdir(parents=True)
    assert dry_run("fashion_mnist.sh", *given, ODD, **data) == [train, *others]


def test_the_quickstart_trains_draws_and_scores():
    train, *others = dry_run("quickstart.sh", ODD)
    workdir = "--workdir=runs/digits"
    assert train[1:] == [
        *("-m", "dig_jax.main", "--config=configs/digits.py", workdir, ODD)
    ]
    modes = [["-m", "dig_jax.main", workdir, f"--mode={m}"] for m in MODES]
    assert [words[1:] for words in others] == modes


def test_the_same_numbers_are_asked_of_the_models(tmp_path):
    data = {"DATA_DIR": str(tmp_path)}
    names = "--names=digits,fashion_mnist"
    prepare, check = dry_run("same_numbers.sh", "--source=/some files", names, **data)
    assert prepare[1:4] == ["-m", "dig_jax.prepare", "idx"]
    assert "--source=/some files" in prepare
    asked = ["-m", "dig_jax.pretrained.check", f"--data_dir={tmp_path}"]
    assert check[1:] == [*asked, names]
    (check,) = dry_run("same_numbers.sh", "--names=digits", **data)
    assert check[1:] == [*asked, "--names=digits"]
    done = run_script("same_numbers.sh", "--dry_run", "--name=digits")
    assert done.returncode == errors.EXIT_BAD_INPUT


def test_processes_of_one_host_meet_on_loopback():
    commands = dry_run("gpu.sh", "--config=a.py", PROCESSES="3", PORT="1234")
    assert len(commands) == 3
    for index, words in enumerate(commands):
        assert words[:2] == ["env", f"CUDA_VISIBLE_DEVICES={index}"]
        assert words[-4:] == [
            "--coordinator_address=127.0.0.1:1234",
            "--num_processes=3",
            f"--process_id={index}",
            "--config=a.py",
        ]


def test_slurm_starts_a_task_for_each_gpu():
    (words,) = dry_run("slurm.sh", *SHARED, ODD)
    assert words[0] == "bash"
    assert words[1].endswith("launch/supervise.sh")
    assert words[2:4] == ["srun", "--kill-on-bad-exit=0"]
    assert words[-4:] == ["--distributed=auto", *SHARED, ODD]


def test_slurm_finds_the_repository_that_a_job_was_submitted_from(tmp_path):
    copy = shutil.copy(LAUNCH / "slurm.sh", tmp_path)
    done = subprocess.run(
        ["bash", copy, "--dry_run", *SHARED],
        env={**os.environ, "SLURM_SUBMIT_DIR": str(LAUNCH.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(LAUNCH / "supervise.sh") in done.stdout


@pytest.mark.parametrize(
    ("sent", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)]
)
def test_a_slurm_job_goes_back_into_the_queue_when_its_time_is_up(
    tmp_path, sent, requeued
):
    stubs = {
        "srun": "trap 'touch saved; exit 0' TERM\ntouch ready\n"
        "for i in {1..600}; do sleep 0.1; done",
        "scontrol": 'echo "$@" > requeued',
    }
    for name, script in stubs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\ncd {tmp_path}\n{script}\n")
        (tmp_path / name).chmod(0o755)
    process = subprocess.Popen(
        ["bash", LAUNCH / "slurm.sh", *SHARED],
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(LAUNCH.parent),
            "SLURM_JOB_ID": "17",
        },
    )
    try:
        wait_for(tmp_path / "ready")
        process.send_signal(sent)
        assert process.wait(timeout=60) == 143
    finally:
        process.kill()
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 17\n"


def test_a_tpu_slice_is_made_installed_and_deleted():
    (made,) = dry_run("tpu.sh", "create", **TPU, ACCELERATOR="v5litepod-16", SPOT="1")
    where = ["dig", "--zone=us-west4-a", "--project=mine"]
    assert made[:8] == ["gcloud", "compute", "tpus", "tpu-vm", "create", *where]
    assert {"--accelerator-type=v5litepod-16", "--spot"} < set(made)
    archive, copy, install = dry_run("tpu.sh", "install", **TPU)
    assert archive[:2] == ["git", "-C"]
    assert copy[4] == "scp"
    assert copy[-1] == install[-2] == "--worker=all"
    (deleted,) = dry_run("tpu.sh", "delete", **TPU)
    assert deleted == ["gcloud", "compute", "tpus", "tpu-vm", "delete", *where]


def test_every_host_of_a_tpu_slice_starts_the_same_run():
    (words,) = dry_run("tpu.sh", "train", *SHARED, ODD, **TPU)
    assert words[4:6] == ["ssh", "dig"]
    assert words[-2] == "--worker=all"
    remote = words[-1].removeprefix("--command=")
    started = remote[remote.index("bash launch/") : remote.index(" >> train.log")]
    (run,) = split_lines(started)
    assert run[:2] == ["bash", "launch/supervise.sh"]
    assert run[-4:] == ["--distributed=auto", *SHARED, ODD]
    subprocess.run(["bash", "-n", "-c", remote], check=True)


def test_a_tpu_run_is_followed_and_stopped():
    (followed,) = dry_run("tpu.sh", "log", **TPU)
    assert followed[-2:] == ["--worker=0", "--command=tail -n 50 -F dig_jax/train.log"]
    (stopped,) = dry_run("tpu.sh", "stop", **TPU)
    assert stopped[-1] == "--command=xargs kill -TERM < dig_jax/train.pid"


def test_xpk_restarts_after_the_codes_that_may_pass():
    (words,) = dry_run("gke.sh", "xpk", *SHARED, ODD, **XPK, SLICES="2")
    assert words[:3] == ["xpk", "workload", "create"]
    flags = dict(word.split("=", 1) for word in words[3:])
    assert flags["--restart-on-exit-codes"] == "75,76"
    assert (flags["--num-slices"], flags["--max-restarts"]) == ("2", "100")
    (run,) = split_lines(flags["--command"])
    assert run[-4:] == ["--distributed=auto", *SHARED, ODD]


def test_a_jobset_restarts_after_the_codes_that_may_pass_and_no_others():
    done = run_script("gke.sh", "--dry_run", "jobset", *SHARED, ODD, **JOBSET)
    assert (done.returncode, done.stderr) == (0, "")
    jobset = yaml.safe_load(done.stdout)
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 100
    (rule,) = policy["rules"]
    assert rule["action"] == "FailJobSet"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    (slices,) = jobset["spec"]["replicatedJobs"]
    job = slices["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (4, 4, 0)
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["operator"] == "NotIn"
    restarted = rule["onExitCodes"]["values"]
    assert {*RESTARTED, 128 + signal.SIGKILL, 128 + signal.SIGTERM} == {*restarted}
    assert not {*ENDED} & {*restarted}
    (container,) = job["template"]["spec"]["containers"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert container["command"][-4:] == ["--distributed=auto", *SHARED, ODD]
    assert container["command"][:2] == ["env", "MAX_RESTARTS=0"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("kind", "extras"), [("cuda", "cuda,gcs"), ("tpu", "tpu,gcs"), ("cpu", "gcs")]
)
def test_an_image_is_built_and_pushed(kind, extras):
    build, push = dry_run("docker.sh", kind, "place/dig:new", PUSH="1")
    assert build[:2] == ["docker", "build"]
    assert {f"--build-arg=EXTRAS={extras}", "--tag=place/dig:new"} < set(build)
    assert push == ["docker", "push", "place/dig:new"]


def test_an_image_copies_files_that_there_are_and_an_extra_that_there_is():
    root = LAUNCH.parent
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    copied = [
        w for line in lines if line.startswith("COPY") for w in line.split()[1:-1]
    ]
    assert {"dig_jax", "configs", "launch", "setup.py"} < set(copied)
    for name in copied:
        assert (root / name).exists()
    for extra in ("cuda", "tpu", "gcs"):
        assert f'"{extra}": [' in (root / "setup.py").read_text()


@pytest.mark.parametrize(
    ("name", "arguments", "settings", "said"),
    [
        ("gpu.sh", [], {"PROCESSES": "0"}, "PROCESSES must be 1 or more, got 0"),
        ("slurm.sh", ["--config=a.py"], {}, "--workdir=gs://BUCKET/RUN is needed"),
        ("slurm.sh", ["--workdir=runs/a"], {}, "got --workdir=runs/a"),
        ("tpu.sh", ["create"], {}, "TPU_NAME is needed"),
        ("tpu.sh", ["create"], TPU, "ACCELERATOR is needed"),
        ("tpu.sh", ["destroy"], TPU, "delete is needed, got 'destroy'"),
        ("tpu.sh", ["train", "--config=a.py"], TPU, "--workdir=gs://"),
        ("gke.sh", ["helm"], {}, "one of xpk, jobset is needed, got 'helm'"),
        ("gke.sh", ["xpk", *SHARED], GKE, "CLUSTER is needed"),
        ("gke.sh", ["jobset", *SHARED], GKE, "ACCELERATOR is needed"),
        ("gke.sh", ["jobset"], JOBSET, "got no arguments"),
        ("docker.sh", ["rocm", "x"], {}, "one of cuda, tpu, cpu is needed, got 'rocm'"),
        ("docker.sh", ["cuda"], {}, "a name for the image is needed"),
        ("supervise.sh", [], {}, "a command is needed"),
    ],
)
def test_what_is_missing_is_named_before_anything_starts(
    name, arguments, settings, said
):
    done = run_script(name, *arguments, **{"DRY_RUN": "1", **settings})
    assert (done.returncode, done.stdout) == (errors.EXIT_BAD_INPUT, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr

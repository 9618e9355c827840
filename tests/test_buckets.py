"""A workdir in a bucket holds what a local one does, and is as safe."""

import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from bucket import BUCKET
from processes import digits_config

import dig_jax
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from dig_jax.evaluation import read_records
from dig_jax.export.export import export_run
from dig_jax.files import paths as files
from dig_jax.main import main
from dig_jax.reporting.metric_writer import MetricWriter, read_metrics
from dig_jax.sampling.store import SampleStore
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.storage.state import TrainState
from dig_jax.storage.workdir_lock import LOCK_FILE

pytestmark = pytest.mark.usefixtures("without_optimizations")

RUN = f"{BUCKET}/runs/one"
TINY = {
    **processes.TINY,
    "training.num_steps": 4,
    "training.log_every": 1,
    "training.checkpoint_every": 2,
    "training.evaluate_every": 2,
    "training.evaluate_images": 20,
    "training.keep_best": "frechet_pixels",
    "training.posthoc_ema": True,
    "training.posthoc_every": 1,
    "training.sample_every": 2,
    "sample.num_images": 20,
    "evaluation.metrics": ("frechet_pixels",),
    "evaluation.features": "none",
}


def get_config():
    """The configuration of every run here: this file is its own --config."""
    return digits_config("", TINY)


@pytest.fixture(scope="module")
def local(tmp_path_factory, without_optimizations):
    """A local run that nothing interrupted, and where its data set is."""
    folder = tmp_path_factory.mktemp("local")
    train(folder / "run", folder)
    return folder


@pytest.fixture(scope="module")
def remote(bucket, local):
    """The same run in the bucket, in two parts."""
    train(RUN, local, "--config.training.num_steps=2")
    train(RUN, local)
    return bucket


def train(workdir, folder, *arguments):
    start = [f"--config={__file__}", f"--workdir={workdir}"]
    data = f"--config.data.data_dir={folder / 'data'}"
    assert main([*start, data, *arguments]) == EXIT_DONE


def use(workdir, mode, *arguments):
    return main([f"--workdir={workdir}", f"--mode={mode}", *arguments])


def test_a_bucket_holds_the_files_that_a_folder_does(local, remote):
    run = local / "run"
    there = {path.relative_to(run).as_posix() for path in run.rglob("*")}
    here = {name.removeprefix("runs/one/") for name in remote.names("runs/one/")}

    def plain(names):
        """Without Orbax's own files within a step, and TensorBoard's names."""
        inner = ("checkpoints/", "best/", "posthoc_ema/")
        return {n for n in names if not n.startswith((*inner, "events."))}

    folders = {name for name in there if (run / name).is_dir()}
    assert plain(here) == plain(there - folders - {LOCK_FILE})
    steps = [
        {n for n in names if n.endswith("commit_success.txt")}
        for names in (here, there)
    ]
    assert steps[0] == steps[1]
    assert {f"checkpoints/{step}/commit_success.txt" for step in (2, 4)} < steps[0]
    # An events file for each start; TensorBoard reads them in the order of their names.
    assert len([name for name in here if name.startswith("events.")]) == 2


def test_a_resumed_run_in_a_bucket_equals_an_uninterrupted_local_one(local, remote):
    here, there = dig_jax.load(RUN), dig_jax.load(local / "run")
    assert here.step == there.step == 4
    jax.tree.map(np.testing.assert_array_equal, here.params, there.params)
    lines = [read_metrics(workdir) for workdir in (files.open_path(RUN), local / "run")]
    for line in [*lines[0], *lines[1]]:
        line.pop("images_per_second", None)  # of the clock
    assert lines[0] == lines[1]
    for step in ("best", 2):
        jax.tree.map(
            np.testing.assert_array_equal,
            dig_jax.load(RUN, step=step).params,
            dig_jax.load(local / "run", step=step).params,
        )


def test_a_bucket_is_sampled_and_scored_as_a_folder_is(local, remote, capsys):
    for workdir in (RUN, local / "run"):
        assert use(workdir, "sample", "--config.sample.batch_size=8") == EXIT_DONE
        assert use(workdir, "evaluate", "--config.sample.seed=1") == EXIT_DONE
    here = np.load(io.BytesIO(remote.read("runs/one/samples.npz")))
    there = np.load(local / "run" / "samples.npz")
    for name in ("images", "labels", "provenance"):
        np.testing.assert_array_equal(here[name], there[name])
    scores = [read_records(w) for w in (files.open_path(RUN), local / "run")]
    assert len(scores[0]) == 3  # two in training
    assert [r["scores"] for r in scores[0]] == [r["scores"] for r in scores[1]]
    assert not remote.names("runs/one/unfinished_samples")
    assert remote.names("runs/one/eval/samples/")
    capsys.readouterr()
    # Drawn before, and read from the bucket.
    assert use(RUN, "evaluate", "--config.sample.seed=1") == EXIT_DONE
    assert f"Scoring {RUN}/eval/samples/" in capsys.readouterr().out


def test_a_run_is_exported_into_a_bucket_and_loaded_from_there(remote):
    run, out = dig_jax.load(RUN), files.open_path(f"{BUCKET}/export")
    export_run(run, run.experiment.sample, out, platforms=["cpu"])
    exported = dig_jax.load(f"{BUCKET}/export")
    jax.tree.map(np.testing.assert_array_equal, exported.params, run.params)
    remote.put("export/sampler.stablehlo", b"something else")
    with pytest.raises(InputError, match=r"gs://bucket/export/.* is damaged"):
        dig_jax.load(f"{BUCKET}/export")


def tiny_state(step):
    params = {"w": jnp.full((64, 8), step, jnp.float32)}
    return TrainState(jnp.int32(step), params, params, (), jnp.int32(0))


@pytest.fixture
def steps(bucket, request):
    """Checkpoints of steps 1 and 2 in a folder of the test's own."""
    folder = f"steps/{request.node.name}"
    with Checkpoints(f"{BUCKET}/{folder}") as checkpoints:
        for step in (1, 2):
            checkpoints.save(tiny_state(step), {})
    return folder


def test_what_a_killed_save_left_in_a_bucket_does_not_count(bucket, steps):
    for name in bucket.names(f"{steps}/2/"):
        if not name.endswith(f"{steps}/2/commit_success.txt"):
            bucket.put(name.replace("/2/", "/3/", 1), bucket.read(name))
    bucket.put(f"{steps}/2024/mine.txt", b"somebody else's")
    with Checkpoints(f"{BUCKET}/{steps}", read_only=True) as checkpoints:
        assert checkpoints.steps() == [1, 2]
    assert bucket.names(f"{steps}/3/")
    with Checkpoints(f"{BUCKET}/{steps}") as checkpoints:
        assert not bucket.names(f"{steps}/3/")
        checkpoints.save(tiny_state(3), {})
        checkpoints.wait()
        assert checkpoints.steps() == [1, 2, 3]
        checkpoints.save(tiny_state(4), {})  # three are kept
    assert not bucket.names(f"{steps}/1/")
    assert bucket.names(f"{steps}/2024/")


def test_a_reader_sees_what_another_machine_writes_into_a_bucket(bucket, steps):
    with Checkpoints(f"{BUCKET}/{steps}", read_only=True) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        bucket.put(f"{steps}/7/commit_success.txt", b"")
        assert checkpoints.steps() == [1, 2, 7]


def test_a_flipped_bit_in_a_bucket_is_noticed(bucket, steps):
    for name in bucket.names(f"{steps}/2/ema/"):
        if "/d/" in name:
            content = bytearray(bucket.read(name))
            content[len(content) // 2] ^= 1
            bucket.put(name, content)
    with Checkpoints(f"{BUCKET}/{steps}", read_only=True) as checkpoints:
        state, meta = checkpoints.restore(tiny_state(0))
    assert (int(state.step), meta["step"]) == (1, 1)


def test_metrics_are_in_a_bucket_once_flushed(bucket):
    workdir = files.open_path(f"{BUCKET}/metrics/flushed")
    with MetricWriter(workdir, resume_step=None) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"loss": step})
        writer.flush()
        assert [line["step"] for line in read_metrics(workdir)] == [1, 2, 3]
        assert len(bucket.names("metrics/flushed/events.")) == 1
        writer.write(4, {"loss": 4})
    assert [line["step"] for line in read_metrics(workdir)] == [1, 2, 3, 4]
    with MetricWriter(workdir, resume_step=2) as writer:
        writer.write(3, {"loss": 30})
    assert [line["loss"] for line in read_metrics(workdir)] == [1, 2, 30]


def test_a_bucket_that_is_away_for_a_while_costs_no_metrics(bucket):
    workdir = files.open_path(f"{BUCKET}/metrics/away")
    writer = MetricWriter(workdir, resume_step=None)
    bucket.broken = True
    try:
        writer.write(1, {"loss": 1})
        writer.flush()
    finally:
        bucket.broken = False
    assert read_metrics(workdir) == []
    writer.write(2, {"loss": 2})
    writer.close()
    assert [line["step"] for line in read_metrics(workdir)] == [1, 2]


def test_what_cannot_be_uploaded_at_the_end_is_kept_and_said(bucket):
    writer = MetricWriter(files.open_path(f"{BUCKET}/metrics/lost"), resume_step=None)
    writer.write(1, {"loss": 1})
    bucket.broken = True
    try:
        with pytest.raises(OSError, match="could not be written") as raised:
            writer.close()
    finally:
        bucket.broken = False
    kept = Path(str(raised.value).rsplit(" ", 1)[-1].rstrip("."))
    assert [line["step"] for line in read_metrics(kept)] == [1]


def test_a_bucket_that_is_away_does_not_hide_why_a_run_ended(bucket, monkeypatch):
    class EndedError(Exception):
        pass

    def end_while_away():
        workdir = files.open_path(f"{BUCKET}/metrics/ended")
        with MetricWriter(workdir, resume_step=None) as writer:
            writer.write(1, {"loss": 1})
            monkeypatch.setattr(bucket, "broken", True)
            raise EndedError

    with pytest.raises(EndedError):
        end_while_away()


def batches():
    return np.random.default_rng(0).integers(0, 255, (12, 4, 4, 1)).astype(np.uint8)


def test_drawn_batches_are_found_again_in_a_bucket(bucket):
    root, images = files.open_path(f"{BUCKET}/store/found"), batches()
    store = SampleStore(root, {"seed": 0}, (4, 4, 1))
    store.append(images[:5])
    store.append(images[5:9])
    again = SampleStore(root, {"seed": 0}, (4, 4, 1))
    assert again.num_images == 9
    np.testing.assert_array_equal(again.images(9), images[:9])
    # A damaged batch and all that follow it are drawn anew.
    (second,) = (n for n in bucket.names("store/found/") if "images_000000005" in n)
    bucket.put(second, bytes(len(bucket.read(second))))
    mended = SampleStore(root, {"seed": 0}, (4, 4, 1))
    assert mended.num_images == 5
    mended.append(images[5:12])
    whole = SampleStore(root, {"seed": 0}, (4, 4, 1))
    np.testing.assert_array_equal(whole.images(12), images)
    whole.delete()
    assert not bucket.names("store/found/")


def test_a_file_that_fails_halfway_leaves_the_one_before(bucket):
    path = files.open_path(f"{BUCKET}/whole/file.txt")
    files.write_whole(path, "before")

    class StoppedError(Exception):
        pass

    def write_half():
        with files.written_whole(path) as unfinished:
            unfinished.write_text("half of it")
            raise StoppedError

    with pytest.raises(StoppedError):
        write_half()
    assert bucket.read("whole/file.txt") == b"before"
    assert bucket.names("whole/") == ["whole/file.txt"]


def test_large_files_arrive_in_a_bucket_and_come_back(bucket, rng):
    content = rng.bytes(11 << 20)  # the client sends 5 MB, or 50, at a time
    path = files.open_path(f"{BUCKET}/large/file")
    files.write_whole(path, content)
    assert bucket.read("large/file") == content
    assert path.read_bytes() == content


def said_by(capsys, workdir):
    code = use(workdir, "summary")
    said = capsys.readouterr().err
    assert (code, said.count("\n")) == (EXIT_BAD_INPUT, 1)
    return said


def test_a_bucket_that_is_not_there_is_said_in_one_line(bucket, capsys):
    said = said_by(capsys, "gs://other/run")
    assert "there is no gs://other" in said
    assert ("POST", "/storage/v1/b") not in bucket.log  # which would make it


def test_missing_rights_are_said_in_one_line(bucket, capsys, monkeypatch):
    monkeypatch.setattr(bucket, "broken", True)
    assert "gcloud auth application-default login" in said_by(capsys, RUN)


def test_a_missing_client_is_said_with_its_command(capsys, monkeypatch):
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    assert "pip install gcsfs" in said_by(capsys, RUN)


@pytest.mark.parametrize("workdir", ["s3://bucket/run", "gs://", "http://host/run"])
def test_other_storage_is_refused(workdir, capsys):
    assert "gs://bucket/folder, got " in said_by(capsys, workdir)


def test_a_path_that_pathlib_has_spoilt_is_refused():
    with pytest.raises(InputError, match="must be text"):
        dig_jax.load(Path("gs://bucket/run"))

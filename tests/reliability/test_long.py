"""What takes minutes: `bash launch/test.sh --reliability` runs it, CI does not."""

import contextlib
import shutil
import signal
import statistics
import subprocess
import time

import numpy as np
import pytest
import tiny_runs
from processes import last_step
from tiny_runs import (
    MANY,
    Started,
    abstract_state,
    end_of,
    random_moments,
    unfinished_saves,
)

from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_PEER_FAILURE
from dig_jax.reporting.goodput import KINDS, read_goodput
from dig_jax.run import load
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.storage.fingerprint import fingerprints, named_leaves

pytestmark = pytest.mark.reliability
EVERY = tiny_runs.TINY["training.checkpoint_every"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
    """A run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("run") / "finished"
    with Started(workdir, data_dir) as run:
        run.ends(EXIT_DONE)
    return workdir


@pytest.fixture(scope="module")
def finished_by_two(tmp_path_factory, data_dir):
    """A run in two processes that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("run") / "finished_by_two"
    with Started(workdir, data_dir, processes=2) as run:
        run.ends(EXIT_DONE, EXIT_DONE)
    return workdir


def newest_checkpoint(workdir):
    checkpoints = workdir / "checkpoints"
    if not checkpoints.is_dir():
        return 0
    with Checkpoints(checkpoints, read_only=True) as opened:
        return opened.latest_step() or 0


def kill_at_a_random_moment(run, chance, which, during_a_save):
    """Returns whether a save was under way; never more than three intervals on."""
    newest = newest_checkpoint(run.workdir)
    if during_a_save:
        step = newest + chance.choice((EVERY, 2 * EVERY))
        run.wait_until(
            lambda: any(s >= step for s in saves_of_this_start(run)), every=0.0002
        )
        time.sleep(chance.uniform(0, 0.01))
    else:
        moment = time.monotonic() + chance.uniform(0, 15)
        run.wait_until(
            lambda: (
                time.monotonic() > moment
                or last_step(run.workdir) >= newest + 2 * EVERY
            )
        )
    run.kill(which)
    return bool(saves_of_this_start(run))


def saves_of_this_start(run):
    """Steps whose save is not finished, but for those of earlier kills."""
    steps = []
    for folder in unfinished_saves(run.workdir):
        with contextlib.suppress(FileNotFoundError):  # it was finished, or cleared away
            if folder.name.isdecimal() and folder.stat().st_ctime > run.began:
                steps.append(int(folder.name))
    return steps


@pytest.mark.parametrize("number", range(5))
def test_5_kills_end_bitwise_equal(finished, tmp_path, data_dir, figure, number):
    """Four of five are aimed at a save; with five such runs there are 25."""
    chance, workdir = random_moments(number), tmp_path / "run"
    in_saves, lost = 0, []
    for kill in range(5):
        with Started(workdir, data_dir) as run:
            in_saves += kill_at_a_random_moment(run, chance, 0, kill != 2)
            run.ends(-signal.SIGKILL)
        lost.append(last_step(workdir) - newest_checkpoint(workdir))
    with Started(workdir, data_dir) as run:
        run.ends(EXIT_DONE)
    assert end_of(workdir) == end_of(finished)
    assert in_saves >= 3
    # A save is under way for at most one interval: the next one waits for it.
    assert max(lost) <= 2 * EVERY
    figure(
        "R1",
        f"run {number}: {len(lost)} SIGKILLs, {in_saves} during a save: end bitwise "
        f"equal; steps lost {statistics.median(lost):.0f} (median), {max(lost)} (most),"
        f" a checkpoint every {EVERY}",
    )


@pytest.mark.parametrize("number", range(2))
def test_4_kills_of_one_of_two_processes_end_bitwise_equal(
    finished_by_two, tmp_path, data_dir, figure, number
):
    chance, workdir = random_moments(number), tmp_path / "run"
    seconds = []
    for _ in range(4):
        victim = chance.randrange(2)
        with Started(workdir, data_dir, processes=2) as run:
            # Killed before all have met, one is waited for, as long as is allowed.
            run.wait_until(lambda run=run: has_logged_a_step(run))
            time.sleep(chance.uniform(0, 0.2))
            run.kill(victim)
            killed = time.monotonic()
            survivor = run.processes[1 - victim]
            _, err = survivor.communicate(timeout=120)
            seconds.append(time.monotonic() - killed)
            assert survivor.returncode == EXIT_PEER_FAILURE, err
            assert "peer failure: " in err
    with Started(workdir, data_dir, processes=2) as run:
        run.ends(EXIT_DONE, EXIT_DONE)
    assert end_of(workdir) == end_of(finished_by_two)
    figure(
        "R2",
        f"run {number}: 4 SIGKILLs of one of 2 processes: the other ends with 76 after "
        f"{statistics.median(seconds):.2f} s (median), {max(seconds):.2f} s (most); end"
        " bitwise equal",
    )


def has_logged_a_step(run):
    """Whether this start has, not only one before."""
    metrics = run.workdir / "metrics.jsonl"
    return metrics.is_file() and metrics.stat().st_mtime > run.began


def test_200_flipped_bits_are_found(finished, tmp_path, figure):
    """Each in a file drawn by chance of the newest checkpoint of a run."""
    rng = np.random.default_rng(5)
    source, like = finished / "checkpoints", abstract_state()
    newest, before = sorted((int(p.name) for p in source.iterdir()), reverse=True)[:2]
    sound = {step: sums_of(source, like, step, tmp_path) for step in (newest, before)}
    found, harmless, wrong = 0, 0, 0
    while found < 200:
        folder = tmp_path / "copy"
        shutil.copytree(source, folder)
        files = [p for p in sorted((folder / str(newest)).rglob("*")) if p.is_file()]
        path = rng.choice([p for p in files if p.stat().st_size])
        data = bytearray(path.read_bytes())
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(data))
        with Checkpoints(folder, read_only=True) as checkpoints:
            state, meta = checkpoints.restore(like)
        wrong += fingerprints(named_leaves(state)) != sound[meta["step"]]
        found += meta["step"] == before
        harmless += meta["step"] == newest
        assert meta["step"] in sound
        shutil.rmtree(folder)
    figure(
        "R5",
        f"{found + harmless} flipped bits: {found} found, each time back to the step "
        f"before; {harmless} in bytes that nothing depends on; silently wrong {wrong}",
    )
    assert wrong == 0


def sums_of(source, like, step, tmp_path):
    """Fingerprints of a step, read from a folder that holds it alone."""
    folder = tmp_path / f"only_{step}"
    shutil.copytree(source / str(step), folder / str(step))
    with Checkpoints(folder, read_only=True) as checkpoints:
        return fingerprints(named_leaves(checkpoints.restore(like)[0]))


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of a few megabytes; needs to be root."""
    mounted = []

    def mount(**limits):
        path = tmp_path / f"disk_{len(mounted)}"
        path.mkdir()
        options = ",".join(f"{name}={value}" for name, value in limits.items())
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a small disk needs root: {done.stderr.strip()}")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize(
    ("limits", "more", "said"),
    [
        # Found before the save, by its size.
        ({"size": "3m"}, {"size": "60m"}, "not enough disk: needs"),
        # Found by the save itself: there is room, but for no more files.
        ({"size": "60m", "nr_inodes": 150}, {"nr_inodes": 9999}, "could not be saved"),
    ],
)
def test_a_full_disk_leaves_what_was_saved(
    finished, small_disk, data_dir, figure, limits, more, said
):
    disk = small_disk(**limits)
    workdir = disk / "run"
    keep_all = "--config.training.keep_checkpoints=99"
    with Started(workdir, data_dir, keep_all) as run:
        ((_, err),) = run.ends(EXIT_BAD_INPUT)
    assert "Traceback" not in err
    message = next(line for line in err.splitlines() if line.startswith("error: "))
    assert said in message
    assert "MB free" in message or "MB are free" in message
    saved = newest_checkpoint(workdir)
    assert f"intact: {EVERY}" in message
    options = ",".join(f"{name}={value}" for name, value in more.items())
    command = ["mount", "-o", f"remount,{options}", str(disk)]
    subprocess.run(command, check=True)
    with Started(workdir, data_dir, keep_all) as run:
        ((out, _),) = run.ends(EXIT_DONE)
    assert f"resumed at step {saved}" in out
    equal = end_of(workdir) == end_of(finished)
    figure(
        "R8",
        f"disk of {limits} full after step {saved}: {message[:60]}...; with room "
        f"again the end is bitwise equal: {equal}",
    )
    assert equal


def test_a_reader_beside_a_writer_20_times(finished, tmp_path, data_dir, figure):
    workdir, steps = tmp_path / "run", []
    long = "--config.training.num_steps=2000"
    with Started(workdir, data_dir, long) as run:
        run.wait_until(lambda: newest_checkpoint(workdir) > 0)
        for _ in range(20):
            steps.append(load(workdir).step)
            assert run.alive
        run.processes[0].send_signal(signal.SIGTERM)
        run.ends(EXIT_DONE)
    # Whatever the reader saw, the writer's steps are those of a run without one.
    theirs, ours = (end_of(w)[-1] for w in (workdir, finished))
    assert all(theirs[step] == loss for step, loss in ours.items())
    assert steps == sorted(steps)
    figure(
        "R9",
        f"20 reads beside a writer of a checkpoint every {EVERY} steps: failures 0, of "
        f"{len(set(steps))} different steps",
    )


def test_goodput_of_a_run_with_5_kills(tmp_path, data_dir, figure):
    chance, workdir = random_moments(3), tmp_path / "run"
    recovered = []
    kills = sorted(chance.sample(range(500, 9500), 5))
    for step in (*kills, None):
        with Started(workdir, data_dir, *MANY) as run:
            before = last_step(workdir)
            run.wait_until(lambda before=before: last_step(workdir) > before)
            recovered.append(time.monotonic() - run.born)
            if step is None:
                ((out, _),) = run.ends(EXIT_DONE)
            else:
                run.wait_for_step(step // 100 * 100)
                run.kill()
    lines = read_goodput(workdir)
    assert len(lines) == 6
    wall = sum(line["wall_seconds"] for line in lines)
    spent = {k: sum(line["seconds"][k] for line in lines) for k in KINDS}
    assert sum(spent.values()) == pytest.approx(wall, abs=0.1)
    assert "goodput of all 6 starts: " in out
    assert 0 < spent["lost"] < spent["productive"]
    share = {k: f"{KINDS[k]} {100 * s / wall:.1f}%" for k, s in spent.items()}
    figure(
        "R28",
        f"10,000 steps with 5 SIGKILLs, {wall:.0f} s: {', '.join(share.values())}; "
        f"recovery {statistics.median(recovered[1:]):.1f} s (median)",
    )

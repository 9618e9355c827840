"""Post-hoc EMA from a run's snapshots on disk: right, or refused."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.errors import CheckpointCorruptError, CheckpointSaveError, InputError
from dig_jax.options import TrainingOptions
from dig_jax.storage.checkpoint_record import to_items
from dig_jax.storage.posthoc_ema import (
    open_snapshots,
    snapshot_items,
    solve_posthoc_ema,
)
from dig_jax.storage.power_ema import (
    gamma_of_sigma_rel,
    start_power_ema,
    update_power_ema,
)
from dig_jax.storage.state import TrainState
from dig_jax.training.storage import Storage

NUM_STEPS, EVERY = 240, 20
SHAPES = {"embed": {"kernel": (3, 8)}, "scale": (400,)}  # one beyond Orbax's metadata


def create_trajectory():
    """Parameters that wander around three, [step, ...] each, in float64."""
    rng = np.random.default_rng(0)

    def wander(shape):
        steps = rng.standard_normal((NUM_STEPS, *shape)) / np.sqrt(NUM_STEPS)
        return 3 + steps.cumsum(axis=0)

    return jax.tree.map(wander, SHAPES, is_leaf=lambda node: isinstance(node, tuple))


def params_after(trajectory, step):
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf[step - 1], jnp.float32), trajectory
    )


def average(trajectory, sigma_rel, step):
    """The average tracked directly: the integral over its profile, in float64."""
    edges = (np.arange(step + 1) / step) ** (gamma_of_sigma_rel(sigma_rel) + 1)
    return jax.tree.map(
        lambda leaf: np.tensordot(np.diff(edges), leaf[:step], axes=1), trajectory
    )


def make_state(step, params, power_ema=()):
    zero = jnp.int32(0)
    return TrainState(jnp.int32(step), params, params, (), zero, power_ema)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with a snapshot every 20 of 240 steps, to be copied."""
    workdir, trajectory = tmp_path_factory.mktemp("run"), create_trajectory()
    power_ema, update = (
        start_power_ema(params_after(trajectory, 1)),
        jax.jit(update_power_ema),
    )
    with open_snapshots(workdir) as snapshots:
        for step in range(1, NUM_STEPS + 1):
            params = params_after(trajectory, step)
            power_ema = update(power_ema, params, jnp.int32(step))
            if step % EVERY == 0:
                items = snapshot_items(make_state(step, params, power_ema))
                snapshots.save(step, items, {})
    return workdir


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture(scope="module")
def like():
    return jax.eval_shape(lambda: params_after(create_trajectory(), 1))


def distance(params, expected):
    """Greatest difference between two trees of arrays."""
    differences = jax.tree.map(lambda a, b: np.abs(a - b).max(), params, expected)
    return max(jax.tree.leaves(differences))


@pytest.mark.parametrize("step", [None, 120])
@pytest.mark.parametrize("sigma_rel", [0.05, 0.10])
def test_a_stored_width_is_the_stored_average(run, like, step, sigma_rel):
    made = solve_posthoc_ema(run, like, sigma_rel, step)
    assert (made.step, made.num_snapshots) == ((step or 240), (step or 240) // EVERY)
    assert made.profile_error < 1e-6
    # What is stored is a recursion in float32, of numbers around three.
    assert (
        distance(made.params, average(create_trajectory(), sigma_rel, made.step)) < 1e-5
    )


@pytest.mark.parametrize(
    ("sigma_rel", "tolerance"), [(0.03, 0.03), (0.07, 1e-2), (0.13, 1e-2), (0.2, 0.03)]
)
def test_another_width_is_nearly_what_a_run_would_have_tracked(
    run, like, sigma_rel, tolerance
):
    made = solve_posthoc_ema(run, like, sigma_rel)
    assert jax.tree.structure(made.params) == jax.tree.structure(like)
    expected = average(create_trajectory(), sigma_rel, NUM_STEPS)
    # The walk moves by one in the run; twelve snapshots say only so much of it.
    assert distance(made.params, expected) < tolerance
    others = [average(create_trajectory(), s, NUM_STEPS) for s in (0.05, 0.1)]
    assert distance(made.params, expected) < min(
        distance(made.params, o) for o in others
    )


def test_a_step_without_a_snapshot_is_refused_with_the_choices(run, like):
    with pytest.raises(
        InputError, match=r"No post-hoc EMA snapshot of step 30 .*20, 40"
    ):
        solve_posthoc_ema(run, like, 0.07, 30)


def test_a_width_that_the_snapshots_do_not_reach_is_refused(run, like):
    with pytest.raises(
        InputError, match=r"needs more snapshots than the 1 .* off by \d+%"
    ):
        solve_posthoc_ema(run, like, 0.02, 20)


def test_a_run_without_snapshots_is_told_how_to_keep_them(tmp_path, like):
    with pytest.raises(InputError, match=r"training\.posthoc_ema is True"):
        solve_posthoc_ema(tmp_path, like, 0.07)
    (tmp_path / "posthoc_ema").mkdir()
    with pytest.raises(InputError, match="No finished post-hoc EMA snapshot"):
        solve_posthoc_ema(tmp_path, like, 0.07)


def test_snapshots_of_another_model_are_refused(run, like):
    other = {**like, "scale": jax.ShapeDtypeStruct((9,), jnp.float32)}
    with pytest.raises(InputError, match=r"scale is float32\[400\] .*float32\[9\]"):
        solve_posthoc_ema(run, other, 0.07)


def replace_average(workdir, step, other):
    """Gives a snapshot the sound arrays of another one."""
    folder = workdir / "posthoc_ema"
    shutil.rmtree(folder / str(step) / "sigma_rel_0.05")
    shutil.copytree(
        folder / str(other) / "sigma_rel_0.05", folder / str(step) / "sigma_rel_0.05"
    )


def test_a_damaged_snapshot_is_found_and_can_be_done_without(copy, like):
    replace_average(copy, 200, 220)
    with pytest.raises(CheckpointCorruptError, match=r"step 200 .*other bits.* away"):
        solve_posthoc_ema(copy, like, 0.07)
    assert solve_posthoc_ema(copy, like, 0.07, 180).num_snapshots == 9  # before it
    shutil.rmtree(copy / "posthoc_ema" / "200")
    made = solve_posthoc_ema(copy, like, 0.07)
    assert made.num_snapshots == 11
    assert distance(made.params, average(create_trajectory(), 0.07, NUM_STEPS)) < 2e-2


def test_a_snapshot_whose_save_was_killed_does_not_count(copy, like):
    (copy / "posthoc_ema" / "240" / "commit_success.txt").unlink()
    assert solve_posthoc_ema(copy, like, 0.05).step == 220
    open_snapshots(copy).close()
    assert not (copy / "posthoc_ema" / "240").exists()


def storage(workdir, posthoc_ema=True):
    return Storage(workdir, TrainingOptions(posthoc_ema=posthoc_ema))


def test_snapshots_of_steps_to_be_done_again_are_forgotten(copy):
    with storage(copy) as kept:
        kept.forget_after(100)
    with open_snapshots(copy, read_only=True) as snapshots:
        assert snapshots.steps() == [20, 40, 60, 80, 100]


def test_no_checkpoint_is_saved_after_a_snapshot_that_was_not(tmp_path, monkeypatch):
    """Or a run that goes on from it would lack the snapshot for ever."""

    async def finalize(self):
        raise OSError(28, "No space left on device")

    params = params_after(create_trajectory(), 1)
    state = make_state(5, params, start_power_ema(params))
    kept = storage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(
            "orbax.checkpoint.path.atomicity.CommitFileTemporaryPath.finalize", finalize
        )
        kept.save_snapshot(state)
        with pytest.raises(CheckpointSaveError, match="snapshot of step 5 could not"):
            kept.save(state, {})
    assert kept.checkpoints.steps() == []


def test_a_run_without_snapshots_has_no_folder_for_them(tmp_path):
    with storage(tmp_path, posthoc_ema=False) as kept:
        kept.forget_after(0)
        kept.save_snapshot(make_state(1, params_after(create_trajectory(), 1)))
    assert not (tmp_path / "posthoc_ema").exists()


def test_without_post_hoc_ema_a_checkpoint_holds_what_it_always_did():
    items = to_items(make_state(1, params_after(create_trajectory(), 1)))
    assert list(items) == ["train", "ema"]
    params = ["params/embed/kernel", "params/scale"]
    assert sorted(items["train"]) == ["bad_steps", *params, "step"]

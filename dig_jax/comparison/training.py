"""The training of one run of a comparison, to its end or until it is stopped."""

from dig_jax.comparison.plan import evaluation_steps
from dig_jax.comparison.points import read_points
from dig_jax.errors import InputError
from dig_jax.experiment import Experiment
from dig_jax.files.paths import CHECKPOINTS, AnyPath
from dig_jax.reporting.progress import Progress
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.storage.meta_file import finished_steps
from dig_jax.training.loop import TrainingRun
from dig_jax.training.stop import exit_code_of


def train_to_end(experiment: Experiment, folder: AnyPath, told: str) -> int | None:
    """Train a run to its end; its exit code if it was stopped before.

    A run of which all scores are there and no checkpoints is done: they were deleted
    for their size, or only the rest was carried to another machine.

    Raises:
        InputError: It has been trained for longer.
        NonFiniteError: It diverged.
    """
    if not (folder / CHECKPOINTS).is_dir():
        scored = read_points(folder)
        if all(str(step) in scored for step in evaluation_steps(experiment)):
            return None
    run = TrainingRun(experiment, folder)
    if _is_trained(run, folder):
        return None
    with _RunProgress(run.options.num_steps, description=told) as progress:
        code = run.train(progress)
    if run.received is not None:  # be it after the last step
        return exit_code_of(run.received)
    return None if _is_trained(run, folder) else code


def _is_trained(run: TrainingRun, folder: AnyPath) -> bool:
    """Whether the last checkpoint, and each that is not scored yet, can be read.

    One that cannot is deleted with those after it: training goes on from before it. One
    that is not there does not come back by that; the run is not scored at its step.
    """
    directory, last = folder / CHECKPOINTS, run.options.num_steps
    steps = finished_steps(directory)
    if not steps:
        return False
    if steps[-1] > last:
        raise InputError(
            f"{folder} has been trained for {steps[-1]:,} steps, and {last:,} are "
            f"wanted. Use another --workdir."
        )
    like, scored = run.setup.programs.abstract_state, read_points(folder)
    with Checkpoints(directory, read_only=True) as checkpoints:
        damaged = [
            step
            for step in evaluation_steps(run.setup.experiment)
            if step in steps
            and (step == last or str(step) not in scored)
            and not checkpoints.is_sound(step, like)
        ]
    if damaged:
        keep = run.options.keep_checkpoints
        with Checkpoints(directory, keep=keep) as checkpoints:
            checkpoints.delete_from(min(damaged))
    return last in steps and not damaged


class _RunProgress(Progress):
    """Progress of one run among many: what it says of its own files is left out."""

    def message(self, text: str) -> None:
        """Nothing."""

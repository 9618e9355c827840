"""What was due at the step that a run goes on from, and did not come.

A kill between a save and what follows it, or a signal, which saves and does no more,
leaves a step without its scores, its picture, or its place as the best one.
"""

import contextlib

from dig_jax.devices.sharding import as_first_process_says, is_first_process
from dig_jax.reporting.images import write_png
from dig_jax.reporting.progress import Progress
from dig_jax.training.held_out import HeldOutLoss, was_measured
from dig_jax.training.preview import Preview, of_training, picture_file
from dig_jax.training.schedule import schedule
from dig_jax.training.scoring import TrainingScores
from dig_jax.training.setup import Restored, TrainingSetup
from dig_jax.training.storage import Storage
from dig_jax.training.writers import open_writer


def make_up(
    setup: TrainingSetup, restored: Restored, storage: Storage, progress: Progress
) -> bool:
    """Measure, draw and score what was due at a restored step and is missing.

    Args:
        setup: The run's.
        restored: What it goes on from.
        storage: Its checkpoints, where the best one may be one behind.
        progress: Told of it.

    Returns:
        Whether anything was missing.
    """
    state, step = restored.state, int(restored.state.step)
    if not step:
        return False
    experiment, options, workdir = setup.experiment, setup.options, setup.workdir
    drawing = of_training(experiment.sample)
    scores = TrainingScores(
        experiment, experiment.evaluation, drawing, options, setup.mesh
    )
    picture = picture_file(workdir, step)
    draws = schedule(options)["draw"].has(step)
    draws = as_first_process_says(draws and not picture.is_file())
    evaluates = scores.is_missing(step, storage, workdir)
    measures = schedule(options)["held_out"].has(step)
    if measures:
        first = is_first_process()
        measures = as_first_process_says(first and not was_measured(workdir, step))
    if not (draws or evaluates or measures):
        return False
    progress.message(f"step {step}: making up what was due and is missing")
    with contextlib.ExitStack() as opened:
        writer = None
        if is_first_process():
            writer = opened.enter_context(
                open_writer(experiment, workdir, step, progress.message)
            )
        if measures:
            HeldOutLoss(setup).tell(state, writer, progress.message)
        if draws:
            preview = Preview(experiment, drawing, options, setup.mesh)
            with progress.compiling("what draws samples"):
                preview.compile(state)
            grid = preview.draw(state, progress.message)
            if writer is not None and grid is not None:
                write_png(picture, grid)
                writer.write_image("samples", step, grid)
        if evaluates:
            meta = setup.meta(step, restored.damaged_records)
            scores.make_up(state, meta, storage, writer, progress, workdir)
            storage.wait()
    return True

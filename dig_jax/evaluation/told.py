"""An evaluation's scores beside the workdir, where the logging section says."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dig_jax.evaluation.records import read_scores
from dig_jax.experiment import Experiment
from dig_jax.files.lock import is_held
from dig_jax.files.paths import AnyPath, is_remote
from dig_jax.reporting.metric_writer import EVALUATION
from dig_jax.reporting.other_writers import RUN_ID_FILE, open_other_writers
from dig_jax.storage.workdir_lock import LOCK_FILE


def tell_scores(
    experiment: Experiment,
    record: Mapping[str, Any],
    workdir: AnyPath,
    say: Callable[[str], None],
    **further: float,
) -> None:
    """Give scores to the writers of the logging section, at their checkpoint's step.

    They are named `evaluation/NAME`, and over seeds `evaluation/NAME_std` for the
    deviation. A writer that fails is told in one line.

    Args:
        experiment: The run's.
        record: What is to be quoted: of a seed, or of the mean over seeds.
        workdir: Where the record is kept. The run of Weights & Biases is that of this
            folder; while it is trained its trainer alone writes there.
        say: Takes lines for the user.
        **further: More numbers of that checkpoint, told alike.
    """
    options = experiment.logging
    trained_now = not is_remote(workdir) and is_held(Path(workdir) / LOCK_FILE)
    if trained_now and "wandb" in options.writers:
        say("wandb: not told of these scores, as the run is being trained")
        others = tuple(name for name in options.writers if name != "wandb")
        options = replace(options, writers=others)
    if not options.writers:
        return
    scalars = {f"{EVALUATION}{name}": value for name, value in further.items()}
    for score in read_scores(record):
        scalars[f"{EVALUATION}{score.name}"] = score.value
        if score.std is not None:
            scalars[f"{EVALUATION}{score.name}_std"] = score.std
    # A run that is there already keeps the configuration that it was trained with.
    known = (workdir / RUN_ID_FILE).is_file()
    config = {} if known else experiment.config.to_dict()
    writers = open_other_writers(options, workdir, None, config, say)
    writers.write(int(record["samples"]["checkpoint_step"]), scalars)
    writers.close()

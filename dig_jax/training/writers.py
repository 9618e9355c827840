"""What a run's first process writes its metrics, scores and pictures with."""

from collections.abc import Callable

from dig_jax.experiment import Experiment
from dig_jax.files.paths import AnyPath
from dig_jax.reporting.metric_writer import MetricWriter
from dig_jax.reporting.other_writers import open_other_writers


def open_writer(
    experiment: Experiment, workdir: AnyPath, step: int, say: Callable[[str], None]
) -> MetricWriter:
    """The workdir's writer, and those that the logging section names.

    Args:
        experiment: The run's.
        workdir: Where it is.
        step: What it goes on from; 0 for a run from the start.
        say: Takes lines for the user.
    """
    others = open_other_writers(
        experiment.logging, workdir, step + 1, experiment.config.to_dict(), say
    )
    return MetricWriter(workdir, resume_step=step or None, others=others)

"""Solver, times and guidance, as a configuration's section `sample` names them."""

import numpy as np
from absl import logging
from jaxtyping import Float

from dig_jax.diffusion.guidance import Guidance, check_guidance
from dig_jax.errors import InputError
from dig_jax.experiment import Experiment
from dig_jax.interfaces import SDE, Solver
from dig_jax.options import SampleOptions
from dig_jax.sampling.label_rules import ambiguous_labels, choose_labels
from dig_jax.solvers import create_solver, default_time_grid, solver_times


def choose_solver(options: SampleOptions, sde: SDE) -> Solver:
    """The solver that is named, for an SDE.

    Raises:
        InputError: Unknown, or it does not take these options.
    """
    own = (
        "order",
        "eta",
        "churn",
        "churn_interval",
        "churn_noise",
        "variance",
        "integrand",
        "inner_times",
    )
    given = {key: getattr(options, key) for key in own}
    given = {key: value for key, value in given.items() if value is not None}
    return create_solver(options.solver, sde, options.num_steps, **given)


def choose_times(options: SampleOptions, sde: SDE) -> Float[np.ndarray, "time"]:
    """The times between the solver's steps.

    Raises:
        InputError: Unknown grid, or times that do not work.
    """
    bounds = {"t_start": options.t_start, "t_end": options.t_end}
    grid = options.time_grid
    if grid == "auto":
        grid = default_time_grid(options.solver, sde, **bounds)
    return solver_times(grid, sde, choose_solver(options, sde), **bounds)


def choose_guidance(options: SampleOptions) -> Guidance:
    """How the network is guided.

    Raises:
        InputError: A scale, interval or power that cannot be.
    """
    return Guidance(
        scale=options.guidance,
        interval=options.guidance_interval,
        schedule=options.guidance_schedule,
        power=options.guidance_power,
        offset=options.guidance_offset,
        channels=options.guidance_channels,
    )


def check_sample_options(
    experiment: Experiment, options: SampleOptions
) -> SampleOptions:
    """Raise InputError for a solver, times, labels or guidance that do not work."""
    choose_times(options, experiment.sde)
    guidance = choose_guidance(options)
    if not options.guide:
        check_guidance(guidance, experiment.backbone)
    _check_variance(experiment, options)
    num_classes = experiment.backbone.num_classes
    counts = np.ones(max(num_classes, 1), np.int64)  # real ones are read when drawing
    names = experiment.data.class_names
    choose_labels(
        options.labels, 1, num_classes, label_counts=counts, class_names=names
    )
    if told := ambiguous_labels(options.labels, names):
        logging.warning("%s", told)
    return options


def _check_variance(experiment: Experiment, options: SampleOptions) -> None:
    """Raise InputError where a learned variance is wanted that nobody learned."""
    if options.variance != "learned":
        return
    if experiment.backbone.with_variance is None:
        name = experiment.backbone_options.name
        raise InputError(
            f"sample.variance=learned needs a network that learns the variance, as dit "
            f"and diffit do with backbone.learned_variance=True; this {name} has none."
        )
    if options.guide:
        raise InputError(
            "sample.variance=learned and sample.guide (autoguidance) do not go "
            "together: set sample.variance=posterior."
        )

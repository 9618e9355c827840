"""Image diffusion with graph neural network backbones in JAX.

    import dig_jax
    run = dig_jax.load("runs/digits")
    images = run.sample(16, labels=3, seed=0)

Names are imported when they are first used: `import dig_jax` alone is quick.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dig_jax.data import DATASETS, create_dataset
    from dig_jax.diffusion import (
        SDES,
        Guidance,
        Objective,
        create_sde,
        denoising_loss,
        make_denoiser,
        make_guided_denoiser,
    )
    from dig_jax.evaluation import EvaluationOptions, Evaluator
    from dig_jax.graphs import Graph, GridGraph
    from dig_jax.models import BACKBONES, create_backbone
    from dig_jax.run import Run, load
    from dig_jax.solvers import SOLVERS, TIME_GRIDS, create_solver, create_times, sample

_HOMES = {
    "dig_jax.data": ("DATASETS", "create_dataset"),
    "dig_jax.diffusion": (
        "SDES",
        "Guidance",
        "Objective",
        "create_sde",
        "denoising_loss",
        "make_denoiser",
        "make_guided_denoiser",
    ),
    "dig_jax.evaluation": ("EvaluationOptions", "Evaluator"),
    "dig_jax.graphs": ("Graph", "GridGraph"),
    "dig_jax.models": ("BACKBONES", "create_backbone"),
    "dig_jax.run": ("Run", "load"),
    "dig_jax.solvers": (
        "SOLVERS",
        "TIME_GRIDS",
        "create_solver",
        "create_times",
        "sample",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BACKBONES",
    "DATASETS",
    "SDES",
    "SOLVERS",
    "TIME_GRIDS",
    "EvaluationOptions",
    "Evaluator",
    "Graph",
    "GridGraph",
    "Guidance",
    "Objective",
    "Run",
    "create_backbone",
    "create_dataset",
    "create_sde",
    "create_solver",
    "create_times",
    "denoising_loss",
    "load",
    "make_denoiser",
    "make_guided_denoiser",
    "sample",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'dig_jax' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__

"""Image diffusion with graph neural network backbones in JAX.

    import dig_jax
    run = dig_jax.load("runs/digits")
    images = run.sample(16, labels=3, seed=0)

Names are imported when they are first used: `import dig_jax` alone is quick. `help` on
a table (BACKBONES, SOLVERS, DATASETS, METRICS, SDES, TIME_GRIDS) says what it holds.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dig_jax.config import (
        load_config_file,
    )
    from dig_jax.data import (
        DATASETS,
        create_dataset,
    )
    from dig_jax.diffusion import (
        SDES,
        Guidance,
        Objective,
        create_sde,
        denoising_loss,
        make_denoiser,
        make_guided_denoiser,
    )
    from dig_jax.errors import (
        CheckpointCorruptError,
        InputError,
        NonFiniteError,
    )
    from dig_jax.evaluation import (
        Evaluator,
    )
    from dig_jax.experiment import (
        Experiment,
        create_experiment,
    )
    from dig_jax.graphs import (
        Graph,
        GridGraph,
    )
    from dig_jax.interfaces import (
        SDE,
        Backbone,
        Denoiser,
        ImageSource,
        LabelledImages,
        Metric,
        Noise,
        Solver,
    )
    from dig_jax.metrics import (
        METRICS,
        score,
    )
    from dig_jax.models import (
        BACKBONES,
        create_backbone,
    )
    from dig_jax.options import (
        SECTIONS,
        DataOptions,
        EvaluationOptions,
        MeshOptions,
        OptimizerOptions,
        SampleOptions,
        TrainingOptions,
    )
    from dig_jax.run import (
        Run,
        load,
    )
    from dig_jax.sampling.sampler import (
        Sampler,
    )
    from dig_jax.solvers import (
        SOLVERS,
        TIME_GRIDS,
        create_solver,
        create_times,
        sample,
    )
    from dig_jax.training.loop import (
        train,
    )

_HOMES = {
    "dig_jax.config": ("load_config_file",),
    "dig_jax.data": (
        "DATASETS",
        "create_dataset",
    ),
    "dig_jax.diffusion": (
        "SDES",
        "Guidance",
        "Objective",
        "create_sde",
        "denoising_loss",
        "make_denoiser",
        "make_guided_denoiser",
    ),
    "dig_jax.errors": (
        "CheckpointCorruptError",
        "InputError",
        "NonFiniteError",
    ),
    "dig_jax.evaluation": ("Evaluator",),
    "dig_jax.experiment": (
        "Experiment",
        "create_experiment",
    ),
    "dig_jax.graphs": (
        "Graph",
        "GridGraph",
    ),
    "dig_jax.interfaces": (
        "SDE",
        "Backbone",
        "Denoiser",
        "ImageSource",
        "LabelledImages",
        "Metric",
        "Noise",
        "Solver",
    ),
    "dig_jax.metrics": (
        "METRICS",
        "score",
    ),
    "dig_jax.models": (
        "BACKBONES",
        "create_backbone",
    ),
    "dig_jax.options": (
        "SECTIONS",
        "DataOptions",
        "EvaluationOptions",
        "MeshOptions",
        "OptimizerOptions",
        "SampleOptions",
        "TrainingOptions",
    ),
    "dig_jax.run": (
        "Run",
        "load",
    ),
    "dig_jax.sampling.sampler": ("Sampler",),
    "dig_jax.solvers": (
        "SOLVERS",
        "TIME_GRIDS",
        "create_solver",
        "create_times",
        "sample",
    ),
    "dig_jax.training.loop": ("train",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BACKBONES",
    "DATASETS",
    "METRICS",
    "SDE",
    "SDES",
    "SECTIONS",
    "SOLVERS",
    "TIME_GRIDS",
    "Backbone",
    "CheckpointCorruptError",
    "DataOptions",
    "Denoiser",
    "EvaluationOptions",
    "Evaluator",
    "Experiment",
    "Graph",
    "GridGraph",
    "Guidance",
    "ImageSource",
    "InputError",
    "LabelledImages",
    "MeshOptions",
    "Metric",
    "Noise",
    "NonFiniteError",
    "Objective",
    "OptimizerOptions",
    "Run",
    "SampleOptions",
    "Sampler",
    "Solver",
    "TrainingOptions",
    "__version__",
    "create_backbone",
    "create_dataset",
    "create_experiment",
    "create_sde",
    "create_solver",
    "create_times",
    "denoising_loss",
    "load",
    "load_config_file",
    "make_denoiser",
    "make_guided_denoiser",
    "sample",
    "score",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'dig_jax' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__

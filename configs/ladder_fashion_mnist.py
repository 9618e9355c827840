"""What makes a graph network win on Fashion-MNIST: the rungs that matter there.

    python -m dig_jax.main --mode=compare --config=configs/ladder_fashion_mnist.py \\
        --config.base.data.data_dir=data --config.compare.minutes=20 \\
        --workdir=runs/compare_fashion_mnist
    python -m dig_jax.main --mode=compare \\
        --config=configs/ladder_fashion_mnist.py:small \\
        --config.base.data.data_dir=data --workdir=runs/compare_fashion_mnist_small

The comparison of configs/compare_fashion_mnist.py, and beside it `relational` with one
thing changed (RUNGS). In the workdir of that comparison only the rungs are trained: a
comparison takes variants that come later. Multiply-accumulates are alike, to 4%. What
was expected of each rung is in docs/ladder.md. No rung has been run yet.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dig_jax.config import read_config_file

RUNGS: dict[str, dict[str, Any]] = dict(
    # One weight for a patch itself, one for the mean of all that it hears.
    untyped=dict(relations="untyped"),
    # Time and class are two nodes that every patch hears, and modulate no norm.
    told_by_hubs=dict(conditioning="hubs"),
    one_scale=dict(patch_sizes=(2,)),
    # Most blocks on patches of 4 pixels, one before and one after on those of 2.
    hourglass=dict(patch_sizes=(4,), outer_size=2, outer_width=0.5),
    swiglu=dict(mlp="swiglu", norm="rms"),
)
FITTED: dict[str, dict[str, dict[str, Any]]] = {
    "gpu": {"one_scale": dict(width=224), "hourglass": dict(width=392)},
    "small": {
        "one_scale": dict(width=60, mlp_ratio=4.4),
        "hourglass": dict(width=96, mlp_ratio=4.2),
    },
}


def get_config(size: str = "gpu") -> ConfigDict:
    file = Path(__file__).with_name("compare_fashion_mnist.py")
    config = read_config_file(f"{file}:{size}")
    config.unlock()
    config.compare.controls = ("relational",)
    for name, rung in RUNGS.items():
        changed = config.variants.relational.backbone.to_dict() | rung
        fitted = changed | FITTED[size].get(name, {})
        config.variants[f"relational_{name}"] = dict(backbone=fitted)
    return config

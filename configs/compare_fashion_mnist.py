"""Backbones on Fashion-MNIST at equal compute, each with its own learning rate.

    python -m dig_jax.prepare idx --name=fashion_mnist --source=FOLDER --data_dir=data
    python -m dig_jax.main --mode=compare --config=configs/compare_fashion_mnist.py \\
        --config.base.data.data_dir=data --config.compare.minutes=20 \\
        --workdir=runs/compare_fashion_mnist
    python -m dig_jax.main --mode=compare \\
        --config=configs/compare_fashion_mnist.py:small \\
        --config.base.data.data_dir=data --workdir=runs/compare_fashion_mnist_small

The networks and all else of configs/fashion_mnist.py, and what others have published,
for a GPU or (`:small`) two CPU cores. Three learning rates are tried with each, on a
seed of their own; the one with the least held-out loss is trained with two seeds.
`compare.minutes` trains each run for so long instead of for the configuration's steps,
40,000 on a GPU. `:small` has 1,000, and takes two cores, a process for each, some 35
minutes a network; what seven of its eleven networks came to is in docs/comparison.md.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dig_jax.config import choose_variant, read_config_file

# Attention's products count too. As few heads as divide the width, of multiples of 8
# channels on a GPU.
RELATIONAL: dict[str, Any] = dict(attention_size=4, attention_width=0.25)
# Blocks on patches of 4 pixels, around them some on patches of 2, half as wide, and
# around those some on pixels.
LEVELS: dict[str, Any] = RELATIONAL | dict(patch_sizes=(4,), outer_size=(1, 2))
OTHERS = {
    "dico": dict(name="dico", num_classes=10, stage_depths=(2, 2, 2, 2, 2)),
    "diffit": dict(name="diffit", num_classes=10, patch_size=4, window=7),
    "dimr": dict(name="dimr", num_classes=10, branches=3),
}
"""What configs/fashion_mnist.py does not have."""
# The multiply-accumulates of all are alike, to 4%.
FITTED = {
    "gpu": {
        "parallel": {},
        "dit": dict(width=200, num_heads=5),
        "relational_attention": dict(RELATIONAL, width=200, num_heads=1),
        "uvit": dict(width=168, num_heads=3, mlp_ratio=4.0),
        "dico": dict(width=72, stage_depths=(3, 3, 3, 3, 3), dtype="mixed"),
        "relational": {},
        "relational_levels": dict(
            LEVELS,
            width=400,
            depth=3,
            outer_depth=3,
            mlp_ratio=2.0,
            attention_width=0.32,
        ),
        "mix": {},
        "parallel_2": {},
        "diffit": dict(width=320, depth=13, num_heads=8, dtype="mixed"),
        "dimr": dict(width=224, branch_depths=(15, 8, 4), num_heads=4, dtype="mixed"),
    },
    "small": {
        "parallel": {},
        "dit": dict(width=44, num_heads=4, mlp_ratio=3.5),
        "relational_attention": dict(RELATIONAL, num_heads=1, mlp_ratio=3.7),
        "uvit": dict(width=36, num_heads=3),
        "dico": dict(width=16),
        "relational": {},
        "relational_levels": dict(
            LEVELS, width=112, depth=2, mlp_ratio=2.15, num_heads=4
        ),
        "mix": {},
        "parallel_2": {},
        "diffit": dict(width=96, depth=5, num_heads=4),
        "dimr": dict(width=60, branch_depths=(7, 2, 2), num_heads=4),
    },
}
RATES = {"gpu": (5e-4, 1e-3, 2e-3), "small": (2e-3, 4e-3, 8e-3)}


def get_config(size: str = "gpu") -> ConfigDict:
    rates, small = choose_variant(RATES, size), size == "small"
    file = Path(__file__).with_name("fashion_mnist.py")

    def shipped(name: str) -> ConfigDict:
        return read_config_file(f"{file}:{name}:small" if small else f"{file}:{name}")

    config = ConfigDict()
    config.compare = dict(
        reference="parallel",
        budget="none",
        minutes=0.0,
        seeds=(0, 1),
        learning_rates=rates,
        search_seed=1000,
        search_share=0.25,
        num_points=1 if small else 4,
        quality="fd_fashion_mnist5k",
        width_multiple=4,
    )
    config.variants = {}
    for name, changes in FITTED[size].items():
        network = OTHERS.get(name)
        if network is None:
            base = "relational" if name.startswith("relational") else name
            network = shipped(base).backbone.to_dict()
        config.variants[name] = dict(backbone=network | changes)
    config.base = shipped("parallel")
    config.base.unlock()
    config.base.training.update(evaluate_every=0, keep_best="")
    if small:
        # All that the runs in docs/comparison/fashion_mnist_small were made with.
        config.base.training.update(
            num_steps=1000, diversity_every=2000, sample_every=4000
        )
        config.base.optimizer.update(learning_rate=2e-3, warmup_steps=100)
    config.base.sample.num_images = 5000
    config.base.evaluation.metrics = ("frechet_pixels",)
    return config

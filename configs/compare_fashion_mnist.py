"""Backbones on Fashion-MNIST at equal compute, each with its own learning rate.

    python -m dig_jax.prepare idx --name=fashion_mnist --source=FOLDER --data_dir=data
    python -m dig_jax.main --mode=compare --config=configs/compare_fashion_mnist.py \\
        --config.base.data.data_dir=data --config.compare.minutes=20 \\
        --workdir=runs/compare_fashion_mnist
    python -m dig_jax.main --mode=compare \\
        --config=configs/compare_fashion_mnist.py:small \\
        --config.base.data.data_dir=data --workdir=runs/compare_fashion_mnist_small

The networks and all else of configs/fashion_mnist.py, for a GPU or (`:small`) two CPU
cores. Three learning rates are tried with each on a seed of their own, for a quarter of
the steps; the one with the least held-out loss is trained with two seeds.
`compare.minutes` trains each run for so long instead of for the configuration's steps,
40,000 on a GPU. `:small` has 5,000, so that all of it, 30 trainings, ends within eight
hours of two cores: an estimate of seven, from 92 (DiT) to 170 (DiG-parallel) images in
a processor's second, measured beside other work at a load of 8 to 12. None of it has
been run to its end yet.
"""

from pathlib import Path

from ml_collections import ConfigDict

from dig_jax.config import choose_variant, read_config_file

NAMES = ("parallel", "parallel_2", "mix", "uvit", "dit", "relational")
# Attention's products count too: with them these two are as large as the others, to 4%.
# As few heads as divide the width, of multiples of 8 channels on a GPU.
FITTED = {
    "uvit": dict(width=168, num_heads=3, mlp_ratio=4.0),
    "dit": dict(width=200, num_heads=5),
    "uvit:small": dict(width=36, num_heads=3),
    "dit:small": dict(width=44, num_heads=4, mlp_ratio=3.5),
}
RATES = {"gpu": (5e-4, 1e-3, 2e-3), "small": (1e-3, 2e-3, 4e-3)}


def get_config(size: str = "gpu") -> ConfigDict:
    rates, small = choose_variant(RATES, size), size == "small"
    names = {name: f"{name}:small" if small else name for name in NAMES}
    file = Path(__file__).with_name("fashion_mnist.py")
    of = {
        name: read_config_file(f"{file}:{variant}") for name, variant in names.items()
    }
    config = ConfigDict()
    config.compare = dict(
        reference="parallel",
        budget="none",
        minutes=0.0,
        seeds=(0, 1),
        learning_rates=rates,
        search_seed=1000,
        search_share=0.25,
        num_points=2 if small else 4,
        quality="fd_fashion_mnist5k",
        width_multiple=4,
    )
    config.variants = {
        name: dict(backbone=of[name].backbone.to_dict() | FITTED.get(variant, {}))
        for name, variant in names.items()
    }
    config.base = of["parallel"]
    config.base.unlock()
    config.base.training.update(evaluate_every=0, keep_best="")
    if small:
        config.base.training.num_steps = 5000
        config.base.optimizer.warmup_steps = 250
    config.base.sample.num_images = 5000
    config.base.evaluation.metrics = ("frechet_pixels",)
    return config

"""The shipped comparison, as small as it can be."""

from pathlib import Path

from ml_collections import ConfigDict

from dig_jax.comparison.measure import Speed
from dig_jax.comparison.points import read_points
from dig_jax.config import read_config_file

CONFIGS = Path(__file__).parents[2] / "configs"
SPEED = Speed(100.0, (90.0, 110.0), 2**20, 1.0)


def create_config(data_dir, **variants):
    """The shipped comparison, as small as it can be."""
    config = read_config_file(str(CONFIGS / "compare_digits.py"))
    config.unlock()
    base = config.base
    base.backbone.update(width=8, depth=2, hops=1, patch_sizes=(4,), unroll=1)
    base.data.data_dir = str(data_dir)
    base.training.update(batch_size=8, num_steps=4, log_every=2, diversity_every=2)
    base.sample.update(num_steps=4, num_images=10, batch_size=16)
    base.evaluation.metrics = ("frechet_pixels",)
    config.compare.update(reference="parallel", seeds=(0,), num_points=2)
    config.compare.budget = "none"
    config.variants = ConfigDict(variants or {"parallel": {}})
    return config


def points_of(workdir, run):
    return read_points(workdir / "runs" / run)

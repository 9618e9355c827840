"""Small runs to export, and pictures of their exports."""

from pathlib import Path

import jax

from dig_jax.config import load_config_file
from dig_jax.devices.sharding import create_mesh
from dig_jax.experiment import create_experiment
from dig_jax.export import standalone
from dig_jax.options import MeshOptions
from dig_jax.run import Run

DIGITS = Path(__file__).parents[2] / "configs" / "digits.py"
SMALL = {"width": 16, "depth": 2, "hops": 1, "mlp_ratio": 2.0, "num_classes": 10}
TRANSFORMER = {"width": 16, "depth": 2, "num_heads": 2, "patch_size": 2}
EVIL = "a|b\n<script>\x1b[2J"
NUM_IMAGES = 20  # more than a group of 16


def create_run(workdir=None, backbone=None, seed=0, **objective):
    """A run with random parameters, also where training begins with zeros."""
    config = load_config_file(str(DIGITS))
    config.unlock()
    if backbone is None:
        config.backbone.update(SMALL)
    else:
        config.backbone = backbone
    config.objective.update(objective)
    experiment = create_experiment(config)
    params = experiment.backbone.init(jax.random.key(seed))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    moved = [
        leaf + 0.05 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    mesh = create_mesh(MeshOptions(1))
    return Run(experiment, jax.tree.unflatten(tree, moved), 7, mesh, None, workdir)


def draw(folder, num_images=NUM_IMAGES, labels=(), seed=0):
    return standalone.draw_images(folder, num_images, list(labels), seed)

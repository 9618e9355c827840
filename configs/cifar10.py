"""Unconditional CIFAR-10: Tables 1 to 3 of the DiG paper, with values of its Table 4.

    python -m dig_jax.main --config=configs/cifar10.py --workdir=runs/cifar10
    python -m dig_jax.main --config=configs/cifar10.py:uvit_2 \\
        --workdir=runs/cifar10_uvit_2

DiG-parallel {2, 4}, or after a colon one of VARIANTS. What Fig. 4 compares is one flag
away: --config.backbone.conditioning=add or concat.
"""

from ml_collections import ConfigDict

from dig_jax.config import choose_variant
from dig_jax.models.paper_networks import paper_networks

PARALLEL, MIX, UVIT, DIT = paper_networks(
    width=512, depth=12, hops=2, num_heads=8, num_classes=0
)
VARIANTS = {
    "dig_parallel_2": PARALLEL | dict(patch_sizes=(2,)),
    "dig_parallel_2_4": PARALLEL | dict(patch_sizes=(2, 4)),
    "dig_parallel_2_4_8": PARALLEL | dict(patch_sizes=(2, 4, 8)),
    "dig_parallel_2_4_gcn": PARALLEL | dict(patch_sizes=(2, 4), conv="gcn"),
    "dig_parallel_2_4_gin": PARALLEL | dict(patch_sizes=(2, 4), conv="gin"),
    "dig_mix_2": MIX | dict(patch_sizes=(2,)),
    "dig_mix_2_4": MIX | dict(patch_sizes=(2, 4)),
    "dig_mix_2_4_8": MIX | dict(patch_sizes=(2, 4, 8)),
    "dig_mix_2_4_8_16": MIX | dict(patch_sizes=(2, 4, 8, 16)),
    "dig_mix_2_4_gcn": MIX | dict(patch_sizes=(2, 4), conv="gcn"),
    "dig_mix_2_4_gin": MIX | dict(patch_sizes=(2, 4), conv="gin"),
    "uvit_2": UVIT | dict(patch_size=2),
    "uvit_4": UVIT | dict(patch_size=4),
    "uvit_8": UVIT | dict(patch_size=8),
    "dit_2": DIT | dict(patch_size=2),
    "dit_4": DIT | dict(patch_size=4),
    "dit_8": DIT | dict(patch_size=8),
}


def get_config(variant: str = "dig_parallel_2_4") -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.backbone = choose_variant(VARIANTS, variant)
    config.sde = dict(name="vp_linear", beta_min=0.1, beta_max=20.0)
    config.objective = dict(prediction="eps", loss_space="eps", times="uniform")
    config.optimizer = dict(
        learning_rate=2e-4,
        warmup_steps=2500,
        schedule="constant",
        weight_decay=0.03,
        betas=(0.99, 0.999),
        max_grad_norm=0.0,
    )
    config.data = dict(
        name="cifar10",
        image_size=32,
        channels=3,
        data_dir="",
        random_flip=True,
        num_threads=8,
        num_workers=0,
    )
    config.training = dict(
        batch_size=128,
        num_steps=500_000,
        ema_decay=0.9999,
        log_every=100,
        diversity_every=5000,
        sample_every=25_000,
        samples_per_class=10,
        checkpoint_every=5000,
        keep_checkpoints=3,
        evaluate_every=0,
        evaluate_images=5000,
        keep_best="",
    )
    config.sample = dict(
        solver="euler_maruyama",
        num_steps=1000,
        t_end=1e-3,
        num_images=1000,
        labels="balanced",
        seed=0,
        batch_size=512,
    )
    config.evaluation = dict(
        metrics=("frechet_pixels", "copies"),
        features="auto",
        inception_weights="",
        reference="",
    )
    config.mesh = dict(data=-1, fsdp=None)
    return config

"""ImageNet 64x64, class-conditional: Table 2 of the DiG paper, values of its Table 4.

    python -m dig_jax.main --config=configs/imagenet64.py --workdir=runs/imagenet64
    python -m dig_jax.main --config=configs/imagenet64.py:dig_mix_4_8 \\
        --workdir=runs/imagenet64_dig_mix_4_8

DiG-parallel {4, 8}, or after a colon one of VARIANTS. DPM-Solver has its own order, 3.
"""

from ml_collections import ConfigDict

from dig_jax.config import choose_variant
from dig_jax.models.paper_networks import paper_networks

PARALLEL, MIX, UVIT, DIT = paper_networks(
    width=768, depth=16, hops=1, num_heads=12, num_classes=1000
)
VARIANTS = {
    "dig_parallel_4_8": PARALLEL | dict(patch_sizes=(4, 8)),
    "dig_mix_4_8": MIX | dict(patch_sizes=(4, 8)),
    "dig_mix_4_8_16": MIX | dict(patch_sizes=(4, 8, 16)),
    "uvit_4": UVIT | dict(patch_size=4),
    "dit_4": DIT | dict(patch_size=4),
}


def get_config(variant: str = "dig_parallel_4_8") -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.backbone = choose_variant(VARIANTS, variant)
    config.sde = dict(name="vp_linear", beta_min=0.1, beta_max=20.0)
    config.objective = dict(prediction="eps", loss_space="eps", times="uniform")
    config.optimizer = dict(
        learning_rate=3e-4,
        warmup_steps=5000,
        schedule="constant",
        weight_decay=0.03,
        betas=(0.99, 0.99),
        max_grad_norm=0.0,
    )
    config.data = dict(
        name="imagenet64",
        image_size=64,
        channels=3,
        data_dir="",
        random_flip=True,
        num_threads=8,
        num_workers=0,
    )
    config.training = dict(
        batch_size=512,
        num_steps=300_000,
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
        solver="dpm_solver",
        num_steps=50,
        t_end=1e-4,
        num_images=1000,
        labels="balanced",
        seed=0,
        batch_size=512,
    )
    config.evaluation = dict(
        metrics=(),
        features="auto",
        inception_weights="",
        reference="",
    )
    config.mesh = dict(data=-1, fsdp=None)
    return config

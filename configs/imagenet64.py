"""Class-conditional DiG-parallel {4, 8} on ImageNet 64x64 (Table 2, Table 4).

    python -m dig_jax.main --config=configs/imagenet64.py --workdir=runs/imagenet64

DiG-mix by one override: --config.backbone.name=dig_mix. Table 4 samples with
DPM-Solver in 50 steps; here it is Euler-Maruyama.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.backbone = dict(
        name="dig_parallel",
        width=768,
        depth=16,
        patch_sizes=(4, 8),
        hops=1,
        mlp_ratio=3.0,
        neighbors=4,
        num_classes=1000,
        aggregation="auto",
        dtype="mixed",
        unroll=0,
        remat=False,
        node_multiple=1,
    )
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
    config.evaluation = dict(metrics=("frechet_pixels", "copies"))
    config.mesh = dict(data=-1)
    return config

"""Backbones on one's own pictures, at equal multiply-accumulates.

    python -m dig_jax.main --mode=compare --config=configs/compare_folder.py \\
        --config.base.data.data_dir=data --variants=parallel,uvit \\
        --workdir=runs/compare_pictures

The pictures are prepared as for configs/folder.py, with a test split; None is what they
say. See docs/own_images.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.compare = dict(
        reference="parallel",
        budget="macs",
        seeds=(0,),
        num_points=2,
        quality="frechet_pixels",
        width_multiple=4,
    )
    dig = dict(num_classes=None, width=64, depth=4, patch_sizes=None, hops=2)
    vit = dict(num_classes=None, width=64, depth=4, patch_size=None, num_heads=4)
    config.variants = dict(
        parallel=dict(),
        mix=dict(backbone=dict(name="dig_mix", **dig)),
        uvit=dict(backbone=dict(name="uvit", **vit)),
        dit=dict(backbone=dict(name="dit", **vit)),
    )
    config.base = ConfigDict()
    base = config.base
    base.seed = 0
    base.backbone = dict(
        name="dig_parallel",
        mlp_ratio=3.0,
        neighbors=4,
        aggregation="auto",
        dtype="float32",
        unroll=0,
        remat=False,
        **dig,
    )
    base.sde = dict(name="vp_linear", beta_min=0.1, beta_max=20.0)
    base.objective = dict(prediction="v", loss_space="v", times="stratified")
    base.optimizer = dict(
        learning_rate=2e-3,
        warmup_steps=100,
        schedule="cosine",
        weight_decay=0.03,
        betas=(0.9, 0.99),
        max_grad_norm=1.0,
    )
    base.data = dict(
        name="folder",
        image_size=None,
        channels=None,
        transform=None,
        data_dir="",
        random_flip=False,
        num_threads=1,
        num_workers=0,
    )
    base.training = dict(
        batch_size=32,
        num_steps=1000,
        ema_decay=0.998,
        log_every=50,
        diversity_every=500,
        sample_every=0,
        samples_per_class=8,
        checkpoint_every=500,
        keep_checkpoints=3,
    )
    base.sample = dict(
        solver="dpm_solver_pp",
        num_steps=16,
        t_end=1e-3,
        num_images=200,
        labels="balanced",
        seed=0,
        batch_size=64,
    )
    base.evaluation = dict(metrics=None, features="none")
    base.mesh = dict(data=-1, fsdp=None)
    return config

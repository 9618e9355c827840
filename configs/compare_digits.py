"""Every backbone, and every choice within DiG, on digits at equal compute.

    python -m dig_jax.main --mode=compare --config=configs/compare_digits.py \\
        --workdir=runs/compare_digits

What came out is in docs/comparison.md. The budget is one flag away:
--config.compare.budget=parameters or seconds.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.compare = dict(
        reference="parallel",
        budget="macs",
        seeds=(0, 1, 2),
        num_points=4,
        quality="frechet_pixels",
        width_multiple=4,
    )
    dig = dict(num_classes=10, width=64, depth=4, patch_sizes=(2, 4), hops=2)
    vit = dict(num_classes=10, width=64, depth=4, patch_size=2, num_heads=4)
    config.variants = dict(
        parallel=dict(),
        mix=dict(backbone=dict(name="dig_mix", **dig)),
        parallel_one_scale=dict(backbone=dict(patch_sizes=(2,))),
        parallel_gcn=dict(backbone=dict(conv="gcn")),
        parallel_gin=dict(backbone=dict(conv="gin")),
        parallel_add=dict(backbone=dict(conditioning="add")),
        parallel_concat=dict(backbone=dict(conditioning="concat")),
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
        conv="sage",
        conditioning="node",
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
        warmup_steps=200,
        schedule="cosine",
        weight_decay=0.03,
        betas=(0.9, 0.99),
        max_grad_norm=1.0,
    )
    base.data = dict(
        name="digits",
        image_size=8,
        channels=1,
        data_dir="",
        random_flip=False,
        num_threads=1,
        num_workers=0,
    )
    base.training = dict(
        batch_size=64,
        num_steps=1200,
        ema_decay=0.998,
        log_every=50,
        diversity_every=300,
        sample_every=0,
        samples_per_class=10,
        checkpoint_every=300,
        keep_checkpoints=5,
    )
    base.sample = dict(
        solver="dpm_solver_pp",
        num_steps=16,
        t_end=1e-3,
        num_images=500,
        labels="balanced",
        seed=0,
        batch_size=512,
    )
    base.evaluation = dict(
        metrics=("label_accuracy", "frechet_pixels", "copies"), features="none"
    )
    base.mesh = dict(data=-1, fsdp=None)
    return config

"""What each training objective does to the digits in the same budget.

    python -m dig_jax.main --mode=compare --config=configs/compare_objectives.py \\
        --workdir=runs/compare_objectives

One backbone, DiG-parallel; what came out is in docs/comparison.md. The last three are
of whole 8-pixel images as one patch, wider than the network: there eps has more to
carry than x0 (arXiv:2511.13720).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.compare = dict(
        reference="v",
        budget="none",
        seeds=(0, 1, 2),
        num_points=2,
        quality="frechet_pixels",
        width_multiple=4,
    )
    one_patch = dict(patch_sizes=(8,), width=48)
    config.variants = dict(
        v=dict(),
        eps=dict(objective=dict(prediction="eps", loss_space="eps")),
        x0=dict(objective=dict(prediction="x0", loss_space="x0")),
        x0_loss_v=dict(objective=dict(prediction="x0", loss_space="v")),
        eps_loss_v=dict(objective=dict(prediction="eps", loss_space="v")),
        v_min_snr=dict(objective=dict(loss_space="min_snr")),
        v_cosine=dict(sde=dict(name="vp_cosine")),
        flow=dict(
            sde=dict(name="flow"),
            objective=dict(prediction="flow", loss_space="flow"),
        ),
        edm=dict(
            sde=dict(name="edm"),
            objective=dict(prediction="edm", loss_space="edm", times="log_normal"),
            sample=dict(t_end=0.0),
        ),
        eps_one_patch=dict(
            backbone=one_patch, objective=dict(prediction="eps", loss_space="v")
        ),
        v_one_patch=dict(backbone=one_patch),
        x0_one_patch=dict(
            backbone=one_patch, objective=dict(prediction="x0", loss_space="v")
        ),
    )
    config.base = ConfigDict()
    base = config.base
    base.seed = 0
    base.backbone = dict(
        name="dig_parallel",
        num_classes=10,
        width=64,
        depth=4,
        patch_sizes=(2, 4),
        hops=2,
        mlp_ratio=3.0,
        neighbors=4,
        aggregation="auto",
        dtype="float32",
        unroll=0,
        remat=False,
    )
    base.sde = dict(name="vp_linear", beta_min=0.1, beta_max=20.0)
    base.objective = dict(prediction="v", loss_space="v", times="stratified")
    base.optimizer = dict(
        learning_rate=2e-3,
        warmup_steps=80,
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
        num_steps=600,
        ema_decay=0.998,
        log_every=50,
        diversity_every=300,
        sample_every=0,
        samples_per_class=10,
        checkpoint_every=300,
        keep_checkpoints=3,
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

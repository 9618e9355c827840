"""DiG-parallel on one's own pictures, prepared by `python -m dig_jax.prepare folder`.

    python -m dig_jax.prepare folder --source=PICTURES --data_dir=data --image_size=32
    python -m dig_jax.main --config=configs/folder.py --config.data.data_dir=data \\
        --workdir=runs/pictures

What is None here the prepared pictures say: their size, channels and number of classes
(0 for a flat folder), and patches that fit. See docs/own_images.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.backbone = dict(
        name="dig_parallel",
        width=128,
        depth=4,
        patch_sizes=None,
        hops=2,
        mlp_ratio=3.0,
        neighbors=4,
        num_classes=None,
        aggregation="auto",
        dtype="float32",
        unroll=0,
        remat=False,
        node_multiple=1,
    )
    config.sde = dict(name="vp_linear", beta_min=0.1, beta_max=20.0)
    config.objective = dict(prediction="v", loss_space="v", times="stratified")
    config.optimizer = dict(
        learning_rate=2e-3,
        warmup_steps=100,
        schedule="cosine",
        weight_decay=0.03,
        betas=(0.9, 0.99),
        max_grad_norm=1.0,
    )
    config.data = dict(
        name="folder",
        image_size=None,
        channels=None,
        transform=None,
        data_dir="",
        random_flip=False,
        num_threads=2,
        num_workers=0,
    )
    config.training = dict(
        batch_size=32,
        num_steps=2000,
        ema_decay=0.998,
        log_every=50,
        diversity_every=500,
        sample_every=500,
        samples_per_class=8,
        checkpoint_every=500,
        keep_checkpoints=3,
        evaluate_every=1000,
        evaluate_images=200,
        keep_best="frechet_pixels",
    )
    config.sample = dict(
        solver="dpm_solver_pp",
        num_steps=20,
        t_end=1e-3,
        num_images=100,
        labels="balanced",
        seed=0,
        batch_size=64,
    )
    config.evaluation = dict(metrics=None, features="auto", inception_weights="")
    config.mesh = dict(data=-1, fsdp=None)
    return config

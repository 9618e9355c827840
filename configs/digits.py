"""Class-conditional DiG-parallel on scikit-learn's handwritten digits, on a laptop.

    python -m dig_jax.main --config=configs/digits.py --workdir=runs/digits

1,500 grey 8x8 training images; no network, nothing to download.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.backbone = dict(
        name="dig_parallel",
        width=96,
        depth=4,
        patch_sizes=(2, 4),
        hops=2,
        mlp_ratio=3.0,
        neighbors=4,
        num_classes=10,
        aggregation="auto",
        dtype="float32",
        unroll=0,
        remat=False,
        node_multiple=1,
    )
    config.sde = dict(name="vp_linear", beta_min=0.1, beta_max=20.0)
    config.objective = dict(prediction="v", loss_space="v", times="stratified")
    config.optimizer = dict(
        learning_rate=3e-3,
        warmup_steps=200,
        schedule="cosine",
        weight_decay=0.03,
        betas=(0.9, 0.99),
        max_grad_norm=1.0,
    )
    config.data = dict(
        name="digits",
        image_size=8,
        channels=1,
        data_dir="",
        random_flip=False,
        num_threads=2,
        num_workers=0,
    )
    config.training = dict(
        batch_size=64,
        num_steps=2700,
        ema_decay=0.998,
        log_every=50,
        diversity_every=500,
        sample_every=900,
        samples_per_class=10,
        checkpoint_every=500,
        keep_checkpoints=3,
        evaluate_every=900,
        evaluate_images=500,
        keep_best="fd_digits",
    )
    config.sample = dict(
        solver="euler_maruyama",
        num_steps=50,
        t_end=1e-3,
        num_images=1000,
        labels="balanced",
        seed=0,
        batch_size=96,
    )
    config.evaluation = dict(
        metrics=("label_accuracy", "frechet_pixels", "copies"),
        features="classifier",
    )
    config.mesh = dict(data=-1, fsdp=None)
    return config

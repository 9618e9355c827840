"""Class-conditional Fashion-MNIST, 28x28 and grey: on a GPU, or small on two CPU cores.

    python -m dig_jax.prepare idx --name=fashion_mnist --source=FOLDER --data_dir=data
    python -m dig_jax.main --config=configs/fashion_mnist.py \\
        --config.data.data_dir=data --workdir=runs/fashion_mnist
    python -m dig_jax.main --config=configs/fashion_mnist.py:uvit:small \\
        --config.data.data_dir=data --workdir=runs/fashion_mnist_uvit_small

`bash launch/fashion_mnist.sh` does all of it. DiG-parallel {2, 4}, 196 + 49 patches, or
after a colon one of VARIANTS. By `--mode=summary` an image takes 781 to 822 million
multiply-accumulates (attention's own products not counted), 29 to 31 million in a small
variant; training takes 2.4e16 and 2.3e13 of them; these were not trained yet.
`:pretrained` is what comes with the package: an hour of processor time, then
fd_fashion_mnist1k 1.78 (real test images 0.23), label accuracy 83% (real 91%).
"""

from ml_collections import ConfigDict

from dig_jax.config import choose_variant

SHARED = dict(num_classes=10, unroll=0, remat=False)
DIG = SHARED | dict(
    hops=2,
    conv="sage",
    mlp_ratio=3.0,
    neighbors=4,
    conditioning="node",
    position="1d",
    aggregation="auto",
    node_multiple=1,
)
PARALLEL = DIG | dict(name="dig_parallel", coarse="product", fusion="concat")
MIX = DIG | dict(name="dig_mix", across=True)
RELATIONAL = SHARED | dict(
    name="dig_relational",
    neighbors=8,
    relations="typed",
    noise_weights=False,
    channel_gate=False,
    hubs=0,
    conditioning="modulation",
    branches=2,
    zero_gates=True,
    attention_size=0,
    attention_width=0.25,
    num_heads=4,
    outer_size=0,
    outer_width=0.5,
    outer_depth=1,
    long_skips=False,
    mlp_ratio=4.0,
    mlp="gelu",
    norm="layer",
    aggregation="auto",
    node_multiple=1,
)
TRANSFORMER = SHARED | dict(
    patch_size=2,
    num_heads=4,
    mlp_ratio=4.0,
    attention="auto",
    time="continuous",
    token_multiple=1,
)
UVIT = TRANSFORMER | dict(name="uvit", qkv_bias=False)
DIT = TRANSFORMER | dict(name="dit", learned_variance=False)

# Widths make the multiply-accumulates of all variants of a size alike, to 5%; heads
# have multiples of 8 channels, as cuDNN's attention takes them.
GPU = dict(depth=8, dtype="mixed")
SMALL = dict(depth=4, dtype="float32")
VARIANTS = {
    "parallel": PARALLEL | GPU | dict(width=184, patch_sizes=(2, 4)),
    "parallel_2": PARALLEL | GPU | dict(width=200, patch_sizes=(2,)),
    "mix": MIX | GPU | dict(width=184, patch_sizes=(2, 4)),
    "uvit": UVIT | GPU | dict(width=192, mlp_ratio=3.5),
    "dit": DIT | GPU | dict(width=224, mlp_ratio=3.2),
    "relational": RELATIONAL | GPU | dict(width=200, patch_sizes=(2, 4)),
    "parallel:small": PARALLEL | SMALL | dict(width=48, patch_sizes=(2, 4)),
    "parallel_2:small": PARALLEL | SMALL | dict(width=52, patch_sizes=(2,)),
    "mix:small": MIX | SMALL | dict(width=48, patch_sizes=(2, 4)),
    "uvit:small": UVIT | SMALL | dict(width=48, num_heads=3),
    "dit:small": DIT | SMALL | dict(width=56, num_heads=7),
    "relational:small": RELATIONAL | SMALL | dict(width=56, patch_sizes=(2, 4)),
}
VARIANTS["small"] = VARIANTS["parallel:small"]
# `pretrained:fashion_mnist`: relations, and attention between patches of 4 pixels.
VARIANTS["pretrained"] = (
    RELATIONAL
    | SMALL
    | dict(
        width=64,
        patch_sizes=(2, 4),
        attention_size=4,
        attention_width=0.5,
        dtype="mixed",
    )
)


def get_config(variant: str = "parallel") -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.backbone = choose_variant(VARIANTS, variant)
    pretrained = variant == "pretrained"
    small = variant.endswith("small") or pretrained
    config.sde = dict(name="vp_linear", beta_min=0.1, beta_max=20.0)
    config.objective = dict(prediction="v", loss_space="v", times="stratified")
    config.optimizer = dict(
        learning_rate=2e-3 if small else 1e-3,
        warmup_steps=500,
        schedule="cosine",
        weight_decay=0.03,
        betas=(0.9, 0.99),
        max_grad_norm=1.0,
    )
    config.data = dict(
        name="fashion_mnist",
        image_size=28,
        channels=1,
        data_dir="",
        random_flip=False,
        num_threads=2 if small else 8,
        num_workers=0,
    )
    config.training = dict(
        batch_size=64 if small else 256,
        num_steps=4000 if small else 40_000,
        ema_decay=0.998 if small else 0.9995,
        log_every=50 if small else 100,
        diversity_every=1000 if small else 2000,
        sample_every=1000 if small else 4000,
        samples_per_class=10,
        checkpoint_every=1000 if small else 2000,
        keep_checkpoints=3,
        evaluate_every=2000 if small else 10_000,
        evaluate_images=1000,
        keep_best="fd_fashion_mnist",
    )
    config.sample = dict(
        solver="dpm_solver_pp",
        num_steps=20,
        t_end=1e-3,
        num_images=1000,
        labels="balanced",
        seed=0,
        batch_size=100 if small else 500,
    )
    config.evaluation = dict(
        metrics=("label_accuracy", "frechet_pixels", "copies"),
        features="classifier",
    )
    config.mesh = dict(data=-1, fsdp=None)
    if small and not pretrained:
        config.optimizer.update(learning_rate=4e-3, warmup_steps=200)
    if pretrained:  # scored once, when it is trained
        config.training.update(
            num_steps=7000,
            diversity_every=2000,
            held_out_every=1000,
            evaluate_every=0,
            keep_best="",
        )
    return config

"""ImageNet 256x256 in latent space, 32x32x4: the published sizes of five networks.

    python -m dig_jax.main --config=configs/imagenet256.py:dimr_xl_2r --mode=summary
    python -m dig_jax.interop.convert --from=XL_2R_800epochs.pth \\
        --config=configs/imagenet256.py:dimr_xl_2r --to=runs/dimr_xl_2r

After a colon one of VARIANTS. The data are random numbers of a latent's shape until
there is a data set of latents, and the noise is the continuous VP-SDE: the published
networks were trained under a discrete schedule (scaled-linear) that dig_jax does not
have yet, so pictures drawn with converted weights will not be as good as theirs.
"""

from ml_collections import ConfigDict

from dig_jax.config import choose_variant

COMMON = dict(num_classes=1000, dtype="mixed", unroll=0, remat=True)
DIMR = COMMON | dict(
    name="dimr",
    branches=2,
    branch_widths=(),
    branch_depths=(),
    num_heads=16,
    mlp="geglu",
    mlp_ratio=None,
    kernel_size=7,
    norm="td_rms",
    features_up="all",
    time="centered",
    stop_gradient=False,
    attention="auto",
)
TRANSFORMER = COMMON | dict(patch_size=2, num_heads=16, mlp_ratio=4.0)
DIFFIT = TRANSFORMER | dict(
    name="diffit", width=1152, window=None, learned_variance=True
)
WITH_ATTENTION = TRANSFORMER | dict(attention="auto", token_multiple=1)
UVIT = WITH_ATTENTION | dict(name="uvit", qkv_bias=False)
DIT = WITH_ATTENTION | dict(name="dit")
DIG = COMMON | dict(
    name="dig_parallel",
    width=768,
    depth=16,
    hops=1,
    conv="sage",
    mlp_ratio=3.0,
    neighbors=4,
    conditioning="node",
    position="1d",
    coarse="product",
    fusion="concat",
    aggregation="auto",
    node_multiple=1,
)
VARIANTS = {
    "dimr_xl_2r": DIMR | dict(width=960, depth=39),
    "dimr_g_2r": DIMR | dict(width=1152, depth=57),
    "diffit": DIFFIT | dict(depth=28),
    "diffit_30": DIFFIT | dict(depth=30),
    "uvit_l": UVIT | dict(width=1024, depth=20),
    "uvit_h": UVIT | dict(width=1152, depth=28),
    "dit_xl": DIT | dict(width=1152, depth=28),
    "dig_parallel_2_4": DIG | dict(patch_sizes=(2, 4)),
}


def get_config(variant: str = "dimr_xl_2r") -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.backbone = choose_variant(VARIANTS, variant)
    config.sde = dict(name="vp_linear", beta_min=0.1, beta_max=20.0)
    config.objective = dict(
        prediction="eps", loss_space="eps", times="uniform", label_dropout=0.1
    )
    config.optimizer = dict(
        learning_rate=2e-4,
        warmup_steps=5000,
        schedule="constant",
        weight_decay=0.03,
        betas=(0.99, 0.99),
        max_grad_norm=0.0,
    )
    config.data = dict(
        name="synthetic",
        image_size=32,
        channels=4,
        length=1_281_167,
        seed=0,
        random_flip=True,
        num_threads=8,
        num_workers=0,
    )
    config.training = dict(
        batch_size=1024,
        num_steps=1_000_000,
        ema_decay=0.9999,
        log_every=100,
        diversity_every=0,
        sample_every=0,
        samples_per_class=10,
        checkpoint_every=5000,
        keep_checkpoints=3,
        evaluate_every=0,
        evaluate_images=5000,
        keep_best="",
    )
    config.sample = dict(
        solver="dpm_solver_pp",
        num_steps=250,
        t_end=1e-3,
        num_images=1000,
        labels="balanced",
        guidance=1.4,
        seed=0,
        batch_size=256,
    )
    config.evaluation = dict(
        metrics=(), features="auto", inception_weights="", reference=""
    )
    config.mesh = dict(data=-1, fsdp=None)
    return config

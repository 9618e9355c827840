"""ImageNet 256x256 in latent space, 32x32x4: the published sizes of five networks.

    python -m dig_jax.main --config=configs/imagenet256.py:dimr_xl_2r --mode=summary
    python -m dig_jax.interop.convert --from=XL_2R_800epochs.pth \\
        --config=configs/imagenet256.py:dimr_xl_2r --to=runs/dimr_xl_2r

After a colon one of VARIANTS; each has the noise, the sampler and the optimizer that
its authors give (PUBLISHED), for DiG those of U-ViT. docs/latent.md says how latents
are made; until they are, `--config.data.name=synthetic` runs on random numbers.
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
    name="diffit", width=1152, window=None, time="step_from_0", learned_variance=True
)
WITH_ATTENTION = TRANSFORMER | dict(attention="auto", token_multiple=1)
UVIT = WITH_ATTENTION | dict(name="uvit", qkv_bias=False, time="step")
DIT = WITH_ATTENTION | dict(name="dit", time="step_from_0", learned_variance=True)
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


SCALED_LINEAR = dict(
    name="vp_discrete",
    betas="scaled_linear",
    beta_min=0.00085,
    beta_max=0.012,
    num_steps=1000,
)
LINEAR = SCALED_LINEAR | dict(betas="linear", beta_min=1e-4, beta_max=0.02)
DPM_SOLVER = dict(
    solver="dpm_solver",
    integrand="x0",
    inner_times="uniform",
    time_grid="uniform",
    num_steps=50,
    t_end=1e-3,
    guidance=1.4,
)
DDPM = dict(
    solver="ancestral",
    variance="learned",
    time_grid="respaced",
    num_steps=250,
    t_end=0.0,
    guidance=1.5,
    guidance_channels=3,
)
ADAMW = dict(
    learning_rate=2e-4,
    warmup_steps=5000,
    schedule="constant",
    weight_decay=0.03,
    betas=(0.99, 0.99),
    max_grad_norm=0.0,
)
PUBLISHED = {
    "dimr": dict(
        sde=SCALED_LINEAR,
        sample=DPM_SOLVER | dict(num_steps=250),
        optimizer=ADAMW,
        training=dict(batch_size=1024, num_steps=1_000_000),
    ),
    "uvit": dict(
        sde=SCALED_LINEAR,
        sample=DPM_SOLVER,
        optimizer=ADAMW,
        training=dict(batch_size=1024, num_steps=500_000),
    ),
    "dit": dict(
        sde=LINEAR,
        sample=DDPM,
        optimizer=ADAMW
        | dict(
            learning_rate=1e-4, warmup_steps=0, weight_decay=0.0, betas=(0.9, 0.999)
        ),
        training=dict(batch_size=256, num_steps=7_000_000),
    ),
    "diffit": dict(
        sde=LINEAR,
        sample=DDPM
        | dict(
            guidance=4.4,
            guidance_schedule="power_cosine",
            guidance_power=4.0,
            guidance_offset=1e-3,
        ),
        optimizer=ADAMW
        | dict(
            learning_rate=3e-4, warmup_steps=0, weight_decay=0.0, betas=(0.9, 0.999)
        ),
        training=dict(batch_size=256, num_steps=1_000_000),
    ),
}
PUBLISHED["dig_parallel"] = PUBLISHED["uvit"]


def get_config(variant: str = "dimr_xl_2r") -> ConfigDict:
    return config_of(choose_variant(VARIANTS, variant))


def config_of(backbone: dict) -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.backbone = backbone
    published = PUBLISHED[backbone["name"]]
    config.sde = published["sde"]
    config.objective = dict(
        prediction="eps",
        loss_space="eps",
        times="steps",
        label_dropout=0.1,
        variance_loss=0.001 if backbone.get("learned_variance") else 0.0,
    )
    config.optimizer = published["optimizer"]
    config.data = dict(
        name="latents",
        image_size=32,
        channels=4,
        moments="float16",
        pixels="",
        data_dir="",
        autoencoder="",
        latent_scale=0.18215,
        random_flip=True,
        num_threads=8,
        num_workers=0,
    )
    config.training = dict(
        **published["training"],
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
        **published["sample"],
        num_images=1000,
        labels="balanced",
        seed=0,
        batch_size=256,
    )
    config.evaluation = dict(
        metrics=(), features="auto", inception_weights="", reference=""
    )
    config.mesh = dict(data=-1, fsdp=None)
    return config

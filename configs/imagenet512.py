"""ImageNet 512x512 in latent space, 64x64x4: the published sizes of five networks.

    python -m dig_jax.main --config=configs/imagenet512.py:dimr_xl_3r --mode=summary

After a colon one of VARIANTS. Noise, samplers and optimizers are those of
imagenet256.py but for DiffiT's guidance, which is weaker and constant here.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from dig_jax.config import choose_variant

AT_256 = runpy.run_path(str(Path(__file__).with_name("imagenet256.py")))
DIMR, UVIT, DIT = AT_256["DIMR"], AT_256["UVIT"], AT_256["DIT"]
DIFFIT, DIG = AT_256["DIFFIT"], AT_256["DIG"]
VARIANTS = {
    "dimr_xl_3r": DIMR | dict(branches=3, width=960, depth=39),
    "diffit": DIFFIT | dict(depth=28),
    "uvit_l": UVIT | dict(patch_size=4, width=1024, depth=20),
    "uvit_h": UVIT | dict(patch_size=4, width=1152, depth=28),
    "dit_xl": DIT | dict(width=1152, depth=28),
    "dig_parallel_4_8": DIG | dict(patch_sizes=(4, 8)),
}


def get_config(variant: str = "dimr_xl_3r") -> ConfigDict:
    backbone = choose_variant(VARIANTS, variant)
    config = AT_256["config_of"](backbone)
    config.data.image_size = 64
    if backbone["name"] == "diffit":
        config.sample.update(guidance=1.49, guidance_schedule="constant")
        config.optimizer.learning_rate = 1e-4
        config.training.batch_size = 512
    return config

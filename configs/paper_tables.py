"""Tables 1, 2 and 3 of the DiG paper: a configuration of ours for each row.

    python -m dig_jax.main --mode=summary --config=configs/paper_tables.py
    python -m dig_jax.main --mode=summary --config=configs/paper_tables.py \\
        --out=docs/paper.md

Prints our parameters and multiply-accumulates beside the published ones, with the
residual of each row; --out puts the tables into docs/paper.md. Seconds on any machine.
A row: data set, network, FILE:VARIANT, and as published: millions of parameters, tera-
MACs of 128 images, FID. None where the paper has no figure or our copy is cut off.
"""

from pathlib import Path

from ml_collections import ConfigDict

CIFAR10, SVHN, IMAGENET = "CIFAR-10", "SVHN", "ImageNet 64x64"
LABELLED = "CIFAR-10, cond."

TABLE_1 = (
    (CIFAR10, "DiG-parallel {2}", "cifar10.py:dig_parallel_2", 39.13, 1.2),
    (CIFAR10, "DiG-parallel {2, 4}", "cifar10.py:dig_parallel_2_4", 58.05, 1.72),
    (CIFAR10, "DiG-parallel {2, 4, 8}", "cifar10.py:dig_parallel_2_4_8", 65.14, 1.85),
    (CIFAR10, "DiG-mix {2}", "cifar10.py:dig_mix_2", 37.48, 1.53),
    (CIFAR10, "DiG-mix {2, 4}", "cifar10.py:dig_mix_2_4", 37.59, 1.61),
    (CIFAR10, "DiG-mix {2, 4, 8}", "cifar10.py:dig_mix_2_4_8", 37.99, 1.63),
    (CIFAR10, "U-ViT/2", "cifar10.py:uvit_2", 44.26, 1.45),
    (CIFAR10, "U-ViT/4", "cifar10.py:uvit_4", 44.19, 0.37),
    (CIFAR10, "U-ViT/8", "cifar10.py:uvit_8", 44.32, 0.09641),
    (CIFAR10, "DiT/2", "cifar10.py:dit_2", 57.78, 1.24),
    (CIFAR10, "DiT/4", "cifar10.py:dit_4", 57.72, 0.31),
    (CIFAR10, "DiT/8", "cifar10.py:dit_8", 57.84, 0.08035),
)
TABLE_2 = (
    (CIFAR10, "U-ViT/2", "cifar10.py:uvit_2", 44.26, 1.45),
    (CIFAR10, "DiT/2", "cifar10.py:dit_2", 57.78, 1.24),
    (CIFAR10, "DiG-parallel {2, 4}", "cifar10.py:dig_parallel_2_4", 58.05, 1.72),
    (CIFAR10, "DiG-mix {2, 4}", "cifar10.py:dig_mix_2_4", 37.59, 1.61),
    (LABELLED, "U-ViT/2", "cifar10_cond.py:uvit_2", 44.26, 1.46),
    (LABELLED, "DiT/2", "cifar10_cond.py:dit_2", 57.78, 1.24),
    (LABELLED, "DiG-parallel {2, 4}", "cifar10_cond.py:dig_parallel_2_4", 58.06, 1.73),
    (LABELLED, "DiG-mix {2, 4}", "cifar10_cond.py:dig_mix_2_4", 40.6, 1.62),
    (SVHN, "U-ViT/2", "svhn.py:uvit_2", 28.68, 0.94),
    (SVHN, "DiT/2", "svhn.py:dit_2", 37.04, 0.79),
    (SVHN, "DiG-parallel {2, 4}", "svhn.py:dig_parallel_2_4", 37.57, 1.11),
    (SVHN, "DiG-mix {2, 4}", "svhn.py:dig_mix_2_4"),
    (IMAGENET, "U-ViT/4", "imagenet64.py:uvit_4", 130.94, 4.29),
    (IMAGENET, "DiT/4", "imagenet64.py:dit_4", 173.06, 3.72),
    (IMAGENET, "DiG-parallel {4, 8}", "imagenet64.py:dig_parallel_4_8", 125.88, 3.75),
    (IMAGENET, "DiG-mix {4, 8}", "imagenet64.py:dig_mix_4_8"),
)
# FID-10K, unconditional CIFAR-10, {2, 4}; the paper has no counts here.
TABLE_3 = (
    (CIFAR10, "DiG-parallel, GCN", "cifar10.py:dig_parallel_2_4_gcn", None, None, 8.33),
    (CIFAR10, "DiG-parallel, GIN", "cifar10.py:dig_parallel_2_4_gin", None, None, 9.23),
    (CIFAR10, "DiG-parallel, SAGE", "cifar10.py:dig_parallel_2_4", None, None, 6.88),
    (CIFAR10, "DiG-mix, GCN", "cifar10.py:dig_mix_2_4_gcn", None, None, 9.93),
    (CIFAR10, "DiG-mix, GIN", "cifar10.py:dig_mix_2_4_gin", None, None, 11.99),
    (CIFAR10, "DiG-mix, SAGE", "cifar10.py:dig_mix_2_4", None, None, 8.23),
)
# The paper's label stands for one scale more than it says.
SHIFTED = (
    (CIFAR10, "DiG-mix {2}", "cifar10.py:dig_mix_2_4", 37.48, 1.53),
    (CIFAR10, "DiG-mix {2, 4}", "cifar10.py:dig_mix_2_4_8", 37.59, 1.61),
    (CIFAR10, "DiG-mix {2, 4, 8}", "cifar10.py:dig_mix_2_4_8_16", 37.99, 1.63),
    (LABELLED, "DiG-mix {2, 4}", "cifar10_cond.py:dig_mix_2_4_8", 40.6, 1.62),
    (SVHN, "DiG-mix {2, 4}", "svhn.py:dig_mix_2_4_8"),
    (IMAGENET, "DiG-mix {4, 8}", "imagenet64.py:dig_mix_4_8_16"),
)


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.folder = str(Path(__file__).parent)
    config.batch = 128
    config.tables = (
        ("Table 1", TABLE_1),
        ("Table 2", TABLE_2),
        ("Table 3", TABLE_3),
        ("DiG-mix with its labels shifted by one scale", SHIFTED),
    )
    return config

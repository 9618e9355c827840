"""What makes a graph network win on digits, a rung at a time, at equal compute.

    python -m dig_jax.main --mode=compare --config=configs/ladder_digits.py \\
        --workdir=runs/ladder_digits

The runs of configs/compare_digits.py with other networks: DiG-parallel as the
reference, three that others have published, dig_relational, and its rungs, each of
which changes one thing:

    untyped         no directions: one weight for a patch itself, one for the mean of
                    all that it hears; the control of the relations
    gate            each channel of a message times what a hub that hears all sends
    attention       attention among the four patches of 4 pixels, in every block
    noise_weights   the relations' weights depend on the noise level
    hubs            four registers that are joined to every patch

Expected: relational ahead of dit, and untyped not; attention ahead where there is
middling noise; gate, noise_weights and hubs near relational.

Multiply-accumulates are equal within 1.5%, for which widths alone are too coarse: the
MLPs' ratios are not the usual 4 (2 in DiCo). Counted are products and convolutions: of
messages the sums, with their nine weights a channel, are not, while DiCo's depthwise
convolutions are.
"""

from pathlib import Path

from ml_collections import ConfigDict

from dig_jax.config import read_config_file


def get_config() -> ConfigDict:
    config = read_config_file(str(Path(__file__).with_name("compare_digits.py")))
    relational = dict(
        name="dig_relational",
        num_classes=10,
        width=64,
        depth=4,
        patch_sizes=(2,),
        neighbors=8,
        mlp_ratio=3.7,
    )
    rungs = dict(
        untyped=dict(relations="untyped"),
        gate=dict(channel_gate=True),
        # One head: the widths to choose from need not be multiples of more.
        attention=dict(attention_size=4, attention_width=0.25, num_heads=1),
        noise_weights=dict(noise_weights=True),
        hubs=dict(hubs=4),
    )
    dit = dict(config.variants.dit.backbone, mlp_ratio=4.25)
    dico = dict(
        name="dico",
        num_classes=10,
        width=32,
        stage_depths=(2, 1, 1, 1, 2),
        mlp_ratio=1.9,
    )
    config.unlock()
    config.variants = ConfigDict(
        dict(
            parallel=config.variants.parallel,
            uvit=config.variants.uvit,
            dit=dict(backbone=dit),
            dico=dict(backbone=dico),
            relational=dict(backbone=relational),
            **{
                f"relational_{name}": dict(backbone={**relational, **changes})
                for name, changes in rungs.items()
            },
        )
    )
    return config

"""What makes a graph network win on digits, a rung at a time, at equal compute.

    python -m dig_jax.main --mode=compare --config=configs/ladder_digits.py \\
        --workdir=runs/ladder_digits
    python -m dig_jax.main --mode=compare --config=configs/ladder_digits.py:claim \\
        --workdir=runs/claim_digits
    python -m dig_jax.main --mode=compare --config=configs/ladder_digits.py:kept \\
        --workdir=runs/kept_digits

The runs of configs/compare_digits.py with other networks, each with its own learning
rate. The ladder has DiG-parallel as the reference, DiT, dig_relational, and its rungs,
each of which changes one thing (RUNGS). `:claim` has the best of them, and one of three
levels as DiCo has them, beside what others have published, with five seeds;
`--config.base.training.num_steps=4800` trains all of it four times as long. `:kept` has
all that the ladder kept at once, the hourglass, and three levels, beside DiCo.

Multiply-accumulates are equal within 1.5%, for which widths alone are too coarse: the
MLPs' ratios are not the usual 4 (2 in DiCo). Counted are products and convolutions: of
messages the sums, with their nine weights a channel, are not, while the depthwise
convolutions of DiCo and DiMR are. What was expected of each rung, and what came, is in
docs/ladder.md.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dig_jax.config import choose_variant, read_config_file

RELATIONAL: dict[str, Any] = dict(
    name="dig_relational",
    num_classes=10,
    width=64,
    depth=4,
    patch_sizes=(2,),
    neighbors=8,
    mlp_ratio=3.8,
)
# One head: the widths to choose from need not be multiples of more.
ATTENTION: dict[str, Any] = dict(
    attention_size=4, attention_width=0.25, num_heads=1, mlp_ratio=4.1
)  # among the four patches of 4 pixels, in every block
RUNGS: dict[str, dict[str, Any]] = dict(
    # One weight for a patch itself, one for the mean of all that it hears.
    untyped=dict(relations="untyped"),
    neighbors_4=dict(neighbors=4),
    # The block of DiG: the MLP of the messages added, not each of the two.
    one_branch=dict(branches=1, mlp_ratio=3.9),
    # What a block adds does not start at zero.
    open_gates=dict(zero_gates=False),
    # Time and class are two nodes that every patch hears, and modulate no norm.
    told_by_hubs=dict(conditioning="hubs", mlp_ratio=3.4),
    untyped_told_by_hubs=dict(relations="untyped", conditioning="hubs", mlp_ratio=3.4),
    # Each channel of a message times what a hub that hears all sends.
    gate=dict(channel_gate=True, mlp_ratio=3.3),
    attention=ATTENTION,
    # The relations' weights depend on the noise level.
    noise_weights=dict(noise_weights=True),
    # Four registers that are joined to every patch.
    hubs=dict(hubs=4, mlp_ratio=4.2),
    long_skips=dict(long_skips=True, mlp_ratio=4.3),
    swiglu=dict(mlp="swiglu", norm="rms"),
    # Patches of 4 pixels too, joined to those of 2.
    two_scales=dict(patch_sizes=(2, 4), mlp_ratio=4.2),
)
# What the ladder kept, all of it at once, and with each part left out.
KEPT = RUNGS["swiglu"] | RUNGS["two_scales"] | ATTENTION | dict(channel_gate=True)
LEFT_OUT: dict[str, dict[str, Any]] = dict(
    swiglu=dict(mlp="gelu", norm="layer"),
    two_scales=dict(patch_sizes=(2,)),
    attention=dict(attention_size=0),
    gate=dict(channel_gate=False),
)
# Two blocks on patches of 2 pixels, and around them two before and two after on pixels.
HOURGLASS: dict[str, Any] = dict(outer_size=1, outer_width=0.5, outer_depth=2, depth=2)
# A block on the four patches of 4 pixels, two before and two after on patches of 2, and
# around those as many on pixels: half as wide, and half of that.
LEVELS: dict[str, Any] = dict(
    patch_sizes=(4,),
    width=128,
    depth=1,
    outer_size=(1, 2),
    outer_depth=2,
    mlp_ratio=2.05,
)
PUBLISHED: dict[str, dict[str, Any]] = dict(
    dico=dict(name="dico", width=32, stage_depths=(2, 1, 1, 1, 2), mlp_ratio=1.9),
    diffit=dict(
        name="diffit", width=80, depth=4, num_heads=4, patch_size=2, window=4,
        mlp_ratio=3.7,
    ),
    dimr=dict(name="dimr", width=56, branches=2, branch_depths=(5, 2), num_heads=4),
)  # fmt: skip
SIZES = {"ladder": (0, 1, 2), "kept": (0, 1, 2), "claim": (0, 1, 2, 3, 4)}


def get_config(which: str = "ladder") -> ConfigDict:
    seeds = choose_variant(SIZES, which)
    config = read_config_file(str(Path(__file__).with_name("compare_digits.py")))
    config.unlock()
    config.compare.update(
        seeds=seeds,
        num_points=2,
        learning_rates=(4e-3, 8e-3, 1.6e-2),
        search_share=0.35,
        controls=("relational",),
    )
    config.base.optimizer.warmup_steps = 100
    config.base.training.diversity_every = 0
    dit = dict(config.variants.dit.backbone, mlp_ratio=4.25)
    if which == "ladder":
        others = {f"relational_{name}": rung for name, rung in RUNGS.items()}
        networks = {name: RELATIONAL | rung for name, rung in others.items()}
    elif which == "kept":
        networks = {"relational_kept": RELATIONAL | KEPT}
        for name, without in LEFT_OUT.items():
            networks[f"kept_without_{name}"] = RELATIONAL | KEPT | without
        networks["relational_hourglass"] = RELATIONAL | HOURGLASS | dict(mlp_ratio=3.5)
        kept = RELATIONAL | KEPT | LEFT_OUT["two_scales"]
        networks["kept_hourglass"] = kept | HOURGLASS | dict(mlp_ratio=3.45)
        networks["relational_levels"] = RELATIONAL | LEVELS
        networks["levels_untyped"] = RELATIONAL | LEVELS | RUNGS["untyped"]
        networks["dico"] = dict(PUBLISHED["dico"], num_classes=10)
    else:
        networks = {"relational_attention": RELATIONAL | ATTENTION}
        networks["relational_levels"] = RELATIONAL | LEVELS
        networks["uvit"] = dict(config.variants.uvit.backbone)
        networks |= {n: dict(b, num_classes=10) for n, b in PUBLISHED.items()}
    config.variants = dict(
        parallel=dict(),
        dit=dict(backbone=dit),
        relational=dict(backbone=RELATIONAL),
        **{name: dict(backbone=backbone) for name, backbone in networks.items()},
    )
    return config

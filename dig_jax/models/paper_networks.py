"""The networks of the DiG paper's tables, as backbone sections of configurations."""

from typing import Any, NamedTuple


class PaperNetworks(NamedTuple):
    """Sections without patch sizes, which tell a table's rows apart.

    Attributes:
        parallel: DiG-parallel, but for `patch_sizes`.
        mix: DiG-mix, but for `patch_sizes`.
        uvit: U-ViT, but for `patch_size`.
        dit: DiT, but for `patch_size`.
    """

    parallel: dict[str, Any]
    mix: dict[str, Any]
    uvit: dict[str, Any]
    dit: dict[str, Any]


def paper_networks(
    *, width: int, depth: int, hops: int, num_heads: int, num_classes: int
) -> PaperNetworks:
    """The networks that one data set of the paper (Table 4) is learned by.

    Args:
        width: Features of a node or token.
        depth: Blocks.
        hops: DiG's layers in each block.
        num_heads: The transformers'.
        num_classes: Labels; 0 for none.
    """
    shared = dict(
        width=width,
        depth=depth,
        num_classes=num_classes,
        dtype="mixed",
        unroll=0,
        remat=False,
    )
    dig = shared | dict(
        hops=hops,
        conv="sage",
        mlp_ratio=3.0,
        neighbors=4,
        conditioning="node",
        position="1d",
        aggregation="auto",
        node_multiple=1,
    )
    transformer = shared | dict(
        num_heads=num_heads,
        mlp_ratio=4.0,
        time="continuous",
        attention="auto",
        token_multiple=1,
    )
    return PaperNetworks(
        parallel=dig | dict(name="dig_parallel", coarse="product", fusion="concat"),
        mix=dig | dict(name="dig_mix", across=True),
        uvit=transformer | dict(name="uvit", qkv_bias=False),
        dit=transformer | dict(name="dit", learned_variance=False),
    )

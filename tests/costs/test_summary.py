"""The summary counts what is there: parameters by leaf, MACs by closed formula."""

import json
import math
import runpy
from pathlib import Path

import jax
import pytest

from dig_jax.costs.summary import (
    Costs,
    count_costs,
    format_summary,
    summarize,
    summary_record,
)
from dig_jax.models import create_backbone

CONFIGS = Path(__file__).parents[2] / "configs"
WIDTH, DEPTH, HOPS, RATIO = 16, 4, 2, 3.0
ROWS, COLS, RGB = 8, 12, 3
PATCH_SIZES = (2, 4)
KINDS = ("dig_parallel", "dig_mix")


def make(kind, **options):
    options = dict(num_classes=5, aggregation="stencil") | options
    return create_backbone(
        kind,
        image_shape=(ROWS, COLS, RGB),
        width=WIDTH,
        depth=DEPTH,
        patch_sizes=PATCH_SIZES,
        hops=HOPS,
        mlp_ratio=RATIO,
        **options,
    )


def macs_by_hand(kind, num_hubs):
    """Rows times inputs times outputs of each linear layer."""
    patches = [ROWS * COLS // size**2 for size in PATCH_SIZES]
    mlp = 2 * RATIO * WIDTH**2
    sage = HOPS * 2 * WIDTH**2
    if kind == "dig_parallel":
        rows = patches[0] + num_hubs
        fuse = WIDTH**2
        block = rows * mlp + sum((n + num_hubs) * (sage + fuse) for n in patches)
        embedded = PATCH_SIZES[:1]
    else:
        rows = sum(patches) + num_hubs
        block = rows * (mlp + sage)
        embedded = PATCH_SIZES
    # A patch embedding reads each pixel once, whatever the patches' size.
    embed = len(embedded) * ROWS * COLS * RGB * WIDTH
    skips = DEPTH // 2 * rows * 2 * WIDTH**2
    head = ROWS * COLS * RGB * WIDTH + ROWS * COLS * 9 * RGB**2
    return embed + (DEPTH + 1) * block + skips + head


def totals(backbone):
    costs = count_costs(backbone)
    assert costs.attention_macs == 0
    return costs.params, costs.macs


def make_transformer(kind, **options):
    options = dict(num_classes=5, unroll=1) | options
    return create_backbone(
        kind,
        image_shape=(ROWS, COLS, RGB),
        width=WIDTH,
        depth=DEPTH,
        num_heads=2,
        **options,
    )


def transformer_macs_by_hand(kind):
    """(linear layers and convolutions, attention) for patches of 2 pixels and labels.

    Attention: each token's product with each other's, once for Q K^T, once with V.
    """
    patches = ROWS * COLS // 4
    pixels = 2 * ROWS * COLS * RGB * WIDTH  # into the network and out of it
    block = (4 + 2 * 4) * WIDTH**2  # q, k, v, projection, and an MLP of ratio 4
    if kind == "uvit":
        tokens, num_blocks = patches + 2, DEPTH + 1
        skips = DEPTH // 2 * tokens * 2 * WIDTH**2
        others = skips + pixels + ROWS * COLS * 9 * RGB**2
    else:
        tokens, num_blocks = patches, DEPTH
        # The MLP of time; six modulations in each block, two before the pixels.
        once = (256 + WIDTH) * WIDTH + (6 * DEPTH + 2) * WIDTH**2
        others = once + pixels
    return (
        num_blocks * tokens * block + others,
        num_blocks * 2 * tokens**2 * WIDTH,
    )


@pytest.mark.parametrize("num_classes", [0, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_totals_equal_leaves_and_closed_formula(kind, num_classes):
    backbone = make(kind, num_classes=num_classes)
    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    params, macs = totals(backbone)
    assert params == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert macs == macs_by_hand(kind, num_hubs=2 if num_classes else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_totals_do_not_depend_on_how_the_network_is_run(kind):
    expected = totals(make(kind))
    for options in (
        dict(aggregation="segment"),
        dict(unroll=1),
        dict(unroll=1, remat=True),
        dict(dtype="mixed"),
    ):
        assert totals(make(kind, **options)) == expected


@pytest.mark.parametrize("kind", ["dit", "uvit"])
def test_attention_is_counted_apart_from_linear_layers(kind):
    backbone = make_transformer(kind)
    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    expected = Costs(params, *transformer_macs_by_hand(kind))
    assert count_costs(backbone) == expected
    for options in (dict(unroll=0), dict(remat=True), dict(dtype="bfloat16")):
        assert count_costs(make_transformer(kind, **options)) == expected


@pytest.mark.parametrize("kind", ["dit", "uvit"])
def test_attention_stands_in_the_row_of_its_own_module(kind):
    for row in summarize(make_transformer(kind)):
        assert (row.attention_macs > 0) == row.module.endswith("attention"), row
        assert (row.macs > 0) == ("kernel" in row.shapes), row


def test_text_says_both_totals_where_there_is_attention():
    record = summary_record("uvit", make_transformer("uvit"))
    linear, attention = transformer_macs_by_hand("uvit")
    text = format_summary(record)
    assert "in attention" in text
    for count in (linear, attention):
        assert f"{count:,}" in text
    assert f"{(linear + attention) / 1e9:.3f} in all" in text
    assert "attention" not in format_summary(summary_record("x", make("dig_mix")))


def test_a_dense_aggregation_counts_its_products():
    nodes = ROWS * COLS // 4 + ROWS * COLS // 16 + 2
    extra = (DEPTH + 1) * HOPS * nodes**2 * WIDTH
    _, macs = totals(make("dig_mix", aggregation="dense"))
    assert macs == macs_by_hand("dig_mix", num_hubs=2) + extra


@pytest.mark.parametrize("unroll", [0, 1])
def test_macs_stand_in_the_row_of_the_module_that_multiplies(unroll):
    for row in summarize(make("dig_parallel", unroll=unroll)):
        multiplies = "kernel" in row.shapes
        assert (row.macs > 0) == multiplies, row


def test_record_is_json_with_the_promised_keys():
    record = summary_record("dig_mix", make("dig_mix"))
    assert json.loads(json.dumps(record)) == record
    assert set(record) == {
        *("backbone", "image_shape", "num_classes", "params", "macs_per_image"),
        *("attention_macs_per_image", "num_nodes", "num_edges", "graph", "modules"),
    }
    assert record["num_nodes"] == record["graph"]["num_nodes"] == 24 + 6 + 2
    for module in record["modules"]:
        names = {"module", "shapes", "params", "macs", "attention_macs"}
        assert set(module) == names
    text = format_summary(record)
    assert f"{record['params']:,}" in text
    assert f"{record['macs_per_image']:,}" in text


def test_small_variants_of_fashion_mnist_cost_alike():
    variants = runpy.run_path(str(CONFIGS / "fashion_mnist.py"))["VARIANTS"]
    small = [name for name in variants if name.endswith(":small")]
    assert {name.removesuffix(":small") for name in small} <= {*variants}
    for name in small:
        backbone = create_backbone(**variants[name], image_shape=(28, 28, 1))
        assert count_costs(backbone).macs == pytest.approx(30e6, rel=0.05), name

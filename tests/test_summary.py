"""The summary counts what is there: parameters by leaf, MACs by closed formula."""

import json
import math

import jax
import pytest

from dig_jax.models import create_backbone
from dig_jax.summary import format_summary, summarize, summary_record

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
    record = summary_record("x", backbone)
    return record["params"], record["macs_per_image"]


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
        *("num_nodes", "num_edges", "graph", "modules"),
    }
    assert record["num_nodes"] == record["graph"]["num_nodes"] == 24 + 6 + 2
    for module in record["modules"]:
        assert set(module) == {"module", "shapes", "params", "macs"}
    text = format_summary(record)
    assert f"{record['params']:,}" in text
    assert f"{record['macs_per_image']:,}" in text

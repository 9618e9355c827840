"""Every choice within DiG: convolution, conditioning, topology, position, fusion."""

import itertools
import math
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from dig_jax.costs.summary import format_summary, summarize, summary_record
from dig_jax.errors import InputError
from dig_jax.ops.aggregation import AGGREGATIONS
from dig_jax.reporting.graph_drawing import draw_graph

sys.path.insert(0, str(Path(__file__).parent))
from dig_cases import (
    CASES,
    KINDS,
    OPTION_CASES,
    WIDTH,
    assert_close,
    backbone_of,
    in_numpy,
    options_of,
    output_and_gradient,
    problem,
)

OPTIONS = [(kind, case) for kind, cases in OPTION_CASES.items() for case in cases]
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize(
    ("kind", "case", "aggregation"),
    [
        (*option, name)
        for option, name in zip(OPTIONS, itertools.cycle(AGGREGATIONS), strict=False)
    ],
)
def test_prediction_with_each_option_equals_numpy(kind, case, aggregation):
    params, x, t, label, _ = problem(kind, case)
    apply = jax.jit(backbone_of(kind, case, aggregation=aggregation).apply)
    assert_close(apply(params, x, t, label), in_numpy(kind, case, params)[0])


@pytest.mark.parametrize(
    ("kind", "case"), [("dig_parallel", "add"), ("dig_mix", "concat")]
)
def test_features_without_hubs_are_the_patch_nodes_after_each_block(kind, case):
    params, x, t, label, _ = problem(kind, case)
    features = jax.jit(backbone_of(kind, case).features)(params, x, t, label)
    assert_close(features, in_numpy(kind, case, params)[1])


@pytest.mark.parametrize(
    ("kind", "case"),
    [("dig_parallel", "sum, add"), ("dig_mix", "concat of time, 2d")],
)
def test_gradient_with_options_equals_finite_differences(kind, case, rng):
    params, *_, cotangent = problem(kind, case)
    _, gradient = output_and_gradient(kind, case, aggregation="stencil")
    # Each leaf weighs the same, and none is without effect.
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))
    direction = jax.tree.map(
        lambda g: rng.normal(size=g.shape) / np.linalg.norm(g), gradient
    )

    def along(step):
        moved = jax.tree.map(lambda p, d: np.float64(p) + step * d, params, direction)
        return np.vdot(in_numpy(kind, case, moved)[0], np.float64(cotangent))

    expected = (along(1e-6) - along(-1e-6)) / 2e-6
    actual = sum(
        np.vdot(np.float64(g), d)
        for g, d in zip(
            jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True
        )
    )
    # Each leaf adds a standard normal number, wrong by at most ROUNDING or so.
    assert abs(actual - expected) < 1e-3


def num_params(kind, options):
    """Weights by hand, layer by layer."""
    d, sizes = WIDTH, options["patch_sizes"]
    rows, cols, rgb = options["image_shape"]
    embedded = sizes if kind == "dig_mix" else sizes[:1]
    grids = [(rows // size, cols // size) for size in embedded]
    num_conditions = 2 if options["num_classes"] else 1
    conditioning = options.get("conditioning", "node")
    has_hubs = options.get("hubs", conditioning == "node")
    positions = num_conditions if has_hubs else 0
    if options.get("position") == "2d":
        positions += sum(map(sum, grids))
    else:
        positions += sum(map(math.prod, grids))
    embed = sum(size**2 * rgb * d + d for size in embedded)
    embed += (options["num_classes"] + positions) * d
    if conditioning == "concat":
        embed += (1 + num_conditions) * d**2 + d

    hop = {"sage": 2 * d**2, "gcn": d**2, "gin": 2 * (d**2 + d)}
    gnn = options["hops"] * hop[options.get("conv", "sage")]
    if kind == "dig_parallel":
        gnn *= len(sizes)
        if len(sizes) > 1 and options.get("fusion") != "sum":
            gnn += len(sizes) * d**2 + d
    block = gnn + 2 * 2 * d + 3 * d * d + 3 * d + 3 * d * d + d
    stack = (options["depth"] + 1) * block + options["depth"] // 2 * (2 * d**2 + d)
    pixels = sizes[0] ** 2 * rgb
    head = 2 * d + d * pixels + pixels + 9 * rgb**2 + rgb
    return embed + stack + head


@pytest.mark.parametrize(
    ("kind", "case"), [*itertools.product(KINDS, CASES), *OPTIONS], ids=str
)
def test_parameters_are_those_of_the_layers(kind, case):
    params, *_ = problem(kind, case)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert count == num_params(kind, options_of(kind, case))


@pytest.mark.parametrize(
    ("kind", "case"),
    [("dig_parallel", "gcn"), ("dig_parallel", "sum, add"), ("dig_mix", "concat")],
)
def test_summary_tells_the_options_layers_and_graph(kind, case):
    backbone = backbone_of(kind, case, aggregation="stencil")
    rows = {row.module: row for row in summarize(backbone)}
    for row in rows.values():
        assert (row.macs > 0) == ("kernel" in row.shapes), row
    record = summary_record(kind, backbone)
    assert record["params"] == num_params(kind, options_of(kind, case))
    num_patches = 24 + 6
    num_hubs = 2 if case == "gcn" else 0
    assert record["num_nodes"] == num_patches + num_hubs
    assert ("hubs" in record["graph"]["edges"]) == bool(num_hubs)
    assert ("hubs" in format_summary(record)) == bool(num_hubs)
    if case == "concat":
        assert rows["concat_h"].macs == num_patches * WIDTH**2
        for name in ("concat_time", "concat_context"):
            assert rows[name].macs == WIDTH**2
    if case == "gcn":
        # The finest graph's nodes and the coarser one's, in the middle block.
        macs = [rows[f"blocks/middle_block/block/hops_{s}/hop_1"].macs for s in (2, 4)]
        assert macs == [(24 + 2) * WIDTH**2, (6 + 2) * WIDTH**2]


@kinds
def test_graph_without_hubs_can_be_drawn(kind, tmp_path):
    graph = backbone_of(kind, "concat").graph
    assert graph is not None
    draw_graph(graph, tmp_path / "graph.png")
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")


@kinds
def test_a_network_that_would_not_know_the_time_is_refused(kind):
    message = r"conditioning='node' needs hubs.*'add' or 'concat'"
    with pytest.raises(InputError, match=message):
        backbone_of(kind, "gcn", hubs=False)


def test_scales_that_would_never_meet_are_refused():
    with pytest.raises(InputError, match="edges between its scales"):
        backbone_of("dig_mix", "add", across=False)
    # A single scale has none to meet.
    backbone_of("dig_mix", "add", across=False, patch_sizes=(2,))

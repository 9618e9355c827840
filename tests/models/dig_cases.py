"""What the tests of DiG share: cases, and each case's answer here and in NumPy."""

import sys
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.models import create_backbone

sys.path.insert(0, str(Path(__file__).parent))
import dig_in_numpy

# Some 30 layers in float32, each wrong by a few 6e-8 of its largest value, and norms
# that stretch small differences.
ROUNDING = 5e-5
WIDTH = 16

# Over both kinds: 1 to 3 scales, 1 to 3 hops, 4 and 8 neighbours, with and without
# labels, a rectangle, 1 and 3 channels, padding.
CASES = {
    "one scale": dict(
        image_shape=(8, 8, 3), patch_sizes=(2,), hops=3, depth=4, num_classes=0
    ),
    "two scales": dict(
        image_shape=(8, 12, 3), patch_sizes=(2, 4), hops=2, depth=4, num_classes=5
    ),
    "three scales": dict(
        image_shape=(8, 8, 1),
        patch_sizes=(1, 2, 4),
        hops=1,
        depth=2,
        num_classes=0,
        neighbors=8,
        node_multiple=8,
    ),
}
KINDS = ("dig_parallel", "dig_mix")

# Each choice of the network and of its graph, alone or beside others.
SMALL = dict(image_shape=(8, 12, 3), patch_sizes=(2, 4), hops=2, depth=2, num_classes=5)
THREE = dict(SMALL, image_shape=(8, 8, 1), patch_sizes=(1, 2, 4), hops=1)
EITHER = {
    "gcn": dict(SMALL, conv="gcn", hops=2),
    "gin, 2d": dict(SMALL, conv="gin", position="2d", num_classes=0),
    "concat": dict(SMALL, conditioning="concat", neighbors=8, node_multiple=8),
}
OPTION_CASES = {
    "dig_parallel": {
        **EITHER,
        "add": dict(SMALL, conditioning="add", node_multiple=8),
        "add with hubs": dict(SMALL, conditioning="add", hubs=True, conv="gcn"),
        "concat with hubs": dict(
            SMALL, conditioning="concat", hubs=True, position="2d"
        ),
        "gcn on coarse grids": dict(THREE, conv="gcn", coarse="grid"),
        "gin of three scales": dict(THREE, conv="gin", neighbors=8),
        "sum of scales": dict(THREE, fusion="sum", coarse="grid"),
        "sum, add": dict(SMALL, fusion="sum", conditioning="add", conv="gin"),
    },
    "dig_mix": {
        **EITHER,
        "add": dict(THREE, conv="gin", conditioning="add"),
        "concat of time, 2d": dict(
            SMALL, conditioning="concat", num_classes=0, position="2d", conv="gcn"
        ),
        "apart": dict(SMALL, across=False, conv="gcn"),
        "apart, concat": dict(THREE, across=False, conditioning="concat", hubs=True),
    },
}


def options_of(kind, case):
    return CASES[case] if case in CASES else OPTION_CASES[kind][case]


def backbone_of(kind, case, **options):
    # A loop over blocks compiles faster than its unrolling.
    defaults = dict(width=WIDTH, unroll=1)
    return create_backbone(kind, **{**defaults, **options_of(kind, case), **options})


@cache
def problem(kind, case):
    """Parameters, a batch, and a direction in the space of predictions.

    The parameters are random, biases and norms too: mistakes hide behind 0 and 1.
    """
    backbone = backbone_of(kind, case)
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape)
        return 1 + 0.2 * noise if path[-1].key == "scale" else 0.15 * noise

    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    params = jax.tree_util.tree_map_with_path(draw, shapes)
    params = jax.tree.map(np.float32, params)
    x, cotangent = rng.normal(size=(2, 2, *backbone.image_shape)).astype(np.float32)
    t = np.array([0.013, 0.77], np.float32)
    label = np.array([4, 0]) if backbone.num_classes else None
    return jax.tree.map(jnp.asarray, (params, x, t, label, cotangent))


def in_numpy(kind, case, params):
    """Predictions and features of the batch in float64."""
    _, x, t, label, _ = problem(kind, case)
    ours = ("image_shape", "num_classes", "node_multiple")
    options = {k: v for k, v in options_of(kind, case).items() if k not in ours}
    as_float64 = partial(np.asarray, dtype=np.float64)
    images = [
        dig_in_numpy.dig(
            jax.tree.map(as_float64, params),
            as_float64(x[i]),
            as_float64(t[i]),
            None if label is None else int(label[i]),
            kind=kind,
            **options,
        )
        for i in range(len(x))
    ]
    outputs, features = zip(*images, strict=True)
    return np.stack(outputs), np.stack(features, axis=1)


@cache
def output_and_gradient(kind, case, **options):
    """Prediction, and the gradient of its product with the cotangent."""
    apply = backbone_of(kind, case, **options).apply
    params, x, t, label, cotangent = problem(kind, case)

    @jax.jit
    def run(params):
        output, vjp = jax.vjp(lambda p: apply(p, x, t, label), params)
        return output, vjp(cotangent)[0]

    return run(params)


def assert_close(actual, expected, tolerance=ROUNDING):
    """Leaf by leaf, to a fraction of each leaf's largest value."""

    def compare(path, a, b):
        a, b = (np.asarray(v, np.float64) for v in (a, b))
        assert a.shape == b.shape
        error = np.abs(a - b).max() / np.abs(b).max()
        assert error < tolerance, f"{jax.tree_util.keystr(path)}: {error:.2g}"

    jax.tree_util.tree_map_with_path(compare, actual, expected)

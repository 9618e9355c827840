"""Graph convolutions against their formulas in NumPy, and against PyTorch Geometric."""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.devices.target import compiling_for
from dig_jax.errors import InputError
from dig_jax.graphs import Graph, GridGraph
from dig_jax.models.convolutions import CONVOLUTIONS, create_convolution
from dig_jax.ops.aggregation import AGGREGATIONS

sys.path.insert(0, str(Path(__file__).parent))
import dig_in_numpy

WIDTH = 6
# Sums of at most some 100 terms in float32, and two products for GIN: a few roundings
# (6e-8) of the largest value.
ROUNDING = 2e-6

GRIDS = {
    "two scales": GridGraph.create((8, 12), (2, 4), neighbors=8),
    "coarse, with weights": GridGraph.create((8, 12), (2, 4)).at_scale(1),
    "no hub": GridGraph.create(8, (2, 4), num_hubs=0, node_multiple=8),
}
convs = pytest.mark.parametrize("conv", CONVOLUTIONS)


def random_graph(rng, weighted, num_nodes=17, num_edges=40):
    """Directed, with self-loops (each once), double edges, and nodes with no edge.

    It goes to `jraph.GraphsTuple` and back, and is padded.
    """
    ends = rng.integers(0, num_nodes - 2, (2, num_edges))
    ends = ends[:, ends[0] != ends[1]]
    loops = np.array([0, 3, 4])
    senders, receivers = np.concatenate([ends, np.stack([loops, loops])], axis=1)
    weights = rng.uniform(0.5, 2, len(senders)) if weighted else None
    graph = Graph.create(senders, receivers, weights, num_nodes=num_nodes).padded(8)
    return Graph.from_graphs_tuple(graph.to_graphs_tuple(), num_padding_graphs=1)


def random_params(rng, layer, h) -> Any:
    shapes = jax.eval_shape(layer.init, jax.random.key(0), h)["params"]
    return jax.tree.map(
        lambda leaf: np.float32(rng.normal(size=leaf.shape) / WIDTH**0.5), shapes
    )


def run(layer, params, h) -> Any:
    return jax.jit(layer.apply)({"params": params}, jnp.asarray(h))


def check_formula(rng, conv, graph, **options):
    """A batch of two through a layer, and each image through its formula."""
    n = graph.num_padded_nodes
    h = rng.normal(size=(2, n, WIDTH)).astype(np.float32)
    layer = create_convolution(conv, graph, **options)
    params = random_params(rng, layer, h.reshape(-1, WIDTH))
    out = run(layer, params, h.reshape(-1, WIDTH))
    exact = jax.tree.map(np.float64, params)
    real = slice(graph.num_nodes)
    edges = graph if isinstance(graph, Graph) else graph.graph
    adjacency = edges.adjacency()[real, real]
    for image, actual in zip(h, out.reshape(h.shape), strict=True):
        expected = dig_in_numpy.CONVOLUTIONS[conv](
            exact, np.float64(image[real]), adjacency
        )
        atol = ROUNDING * max(1, np.abs(expected).max())
        np.testing.assert_allclose(actual[real], expected, atol=atol)
    return params


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("aggregation", ["segment", "dense"])
@convs
def test_convolution_on_any_graph_is_its_formula(rng, conv, aggregation, weighted):
    graph = random_graph(rng, weighted)
    check_formula(rng, conv, graph, aggregation=aggregation)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("grid", GRIDS)
@convs
def test_convolution_on_a_grid_is_its_formula(rng, conv, grid, aggregation):
    check_formula(rng, conv, GRIDS[grid], aggregation=aggregation)


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
@pytest.mark.parametrize("grid", GRIDS)
def test_graph_sage_for_an_accelerator_is_its_formula(rng, grid, platform):
    with compiling_for(platform):
        check_formula(rng, "sage", GRIDS[grid])


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("platform", ["cpu", "tpu", "gpu"])
def test_derivatives_of_graph_sage_are_those_of_its_formula(rng, platform, aggregation):
    """h W_self + A h W_neigh, and the same for gradient and tangent by hand."""
    graph = GRIDS["two scales"]
    h, dh, g = rng.normal(size=(3, 2, graph.num_padded_nodes, WIDTH))
    kernel, d_kernel = rng.normal(size=(2, WIDTH, 2 * WIDTH)) / WIDTH**0.5
    adjacency = graph.graph.adjacency()
    mean = adjacency / np.maximum(adjacency.sum(1, keepdims=True), 1)

    def sage(h, kernel):
        w_self, w_neigh = np.split(kernel, 2, axis=1)
        return h @ w_self + mean @ h @ w_neigh

    with compiling_for(platform):
        layer = create_convolution("sage", graph, aggregation=aggregation)

        def apply(h, kernel):
            rows = h.reshape(-1, WIDTH)
            out = layer.apply({"params": {"kernel": kernel}}, rows)
            return jnp.asarray(out).reshape(h.shape)

        given = jnp.float32(h), jnp.float32(kernel)
        moved = jnp.float32(dh), jnp.float32(d_kernel)
        _, tangent = jax.jvp(apply, given, moved)
        of_h, of_kernel = jax.vjp(apply, *given)[1](jnp.float32(g))
    atol = 10 * ROUNDING * len(h) * graph.num_nodes**0.5  # sums over all rows
    np.testing.assert_allclose(tangent, sage(dh, kernel) + sage(h, d_kernel), atol=atol)
    w_self, w_neigh = np.split(kernel, 2, axis=1)
    expected = g @ w_self.T + mean.T @ g @ w_neigh.T
    np.testing.assert_allclose(of_h, expected, atol=atol)
    expected = np.concatenate(
        [np.einsum("bni,bno->io", part, g) for part in (h, mean @ h)], axis=1
    )
    np.testing.assert_allclose(of_kernel, expected, atol=atol)


@pytest.mark.parametrize(
    ("conv", "options", "name"),
    [("gcn", dict(use_bias=True), "bias"), ("gin", dict(train_eps=True), "eps")],
)
def test_optional_parameters_are_those_of_the_formula(rng, conv, options, name):
    params = check_formula(rng, conv, GRIDS["two scales"], **options)
    assert name in params


def test_graph_sage_on_a_path_by_hand():
    """A path 0 - 1 - 2, with 2 joined to itself by weight 3."""
    graph = Graph.create(
        np.array([0, 1, 1, 2, 2]),
        np.array([1, 0, 2, 1, 2]),
        np.array([1.0, 1, 1, 1, 3]),
        num_nodes=3,
    )
    h = np.array([[1, 2], [3, 5], [7, 11]], np.float32)
    w_self = np.array([[1.0, 2], [3, 4]])
    w_neigh = np.array([[5.0, 6], [7, 8]])
    kernel = np.concatenate([w_self, w_neigh], axis=1).astype(np.float32)
    out = run(create_convolution("sage", graph), {"kernel": kernel}, h)
    means = np.array(
        [[3, 5], [(1 + 7) / 2, (2 + 11) / 2], [(3 + 21) / 4, (5 + 33) / 4]]
    )
    np.testing.assert_allclose(out, h @ w_self + means @ w_neigh, rtol=1e-6)


def test_gcn_on_a_path_by_hand():
    """The same path: 0 and 1 get a self-loop of 1, 2 keeps its own of 3."""
    graph = Graph.create(
        np.array([0, 1, 1, 2, 2]),
        np.array([1, 0, 2, 1, 2]),
        np.array([1.0, 1, 1, 1, 3]),
        num_nodes=3,
    )
    h = np.array([[1], [5], [7]], np.float32)
    out = run(
        create_convolution("gcn", graph), {"kernel": np.array([[1]], np.float32)}, h
    )
    # Degrees 2, 3 and 4.
    expected = [
        1 / 2 + 5 / 6**0.5,
        1 / 6**0.5 + 5 / 3 + 7 / 12**0.5,
        5 / 12**0.5 + 3 * 7 / 4,
    ]
    np.testing.assert_allclose(np.ravel(out), expected, rtol=1e-6)


@convs
def test_low_precision_keeps_its_type_and_stays_close(rng, conv):
    graph = GRIDS["two scales"]
    h = jnp.asarray(rng.normal(size=(graph.num_nodes, WIDTH)), jnp.bfloat16)
    exact = create_convolution(conv, graph)
    params = random_params(rng, exact, h)
    expected = run(exact, params, h.astype(jnp.float32))
    out = run(create_convolution(conv, graph, dtype="bfloat16"), params, h)
    assert out.dtype == jnp.bfloat16
    # A handful of roundings to 2^-9.
    error = np.abs(np.asarray(out, np.float32) - expected).max()
    assert 0 < error < 0.03 * np.abs(expected).max()


def test_unknown_convolution_is_refused():
    with pytest.raises(InputError, match=r"'gat'.*gcn, gin, sage"):
        create_convolution("gat", GRIDS["no hub"])


def pyg_layer(conv, params):
    """PyTorch Geometric's layer with our weights, in float64."""
    torch = pytest.importorskip("torch")
    pyg = pytest.importorskip("torch_geometric")

    def transposed(kernel):
        kernel = np.asarray(kernel, np.float64)
        return torch.nn.Parameter(torch.tensor(kernel.T.copy()))

    if conv == "sage":
        layer = pyg.nn.SAGEConv(WIDTH, WIDTH, aggr="mean", bias=False)
        w_self, w_neigh = np.split(params["kernel"], 2, axis=1)
        layer.lin_r.weight, layer.lin_l.weight = map(transposed, (w_self, w_neigh))
    elif conv == "gcn":
        layer = pyg.nn.GCNConv(WIDTH, WIDTH)
        layer.lin.weight = transposed(params["kernel"])
        layer.bias = torch.nn.Parameter(torch.tensor(np.float64(params["bias"])))
    else:
        linears = [torch.nn.Linear(WIDTH, WIDTH) for _ in range(2)]
        mlp = torch.nn.Sequential(linears[0], torch.nn.GELU(), linears[1])
        layer = pyg.nn.GINConv(mlp, eps=float(params["eps"]))
        # Its constructor draws the weights of its MLP anew.
        for linear, name in zip(linears, ("expand", "project"), strict=True):
            linear.weight = transposed(params["mlp"][name]["kernel"])
            bias = torch.tensor(np.float64(params["mlp"][name]["bias"]))
            linear.bias = torch.nn.Parameter(bias)
    return layer.double()


@pytest.mark.parametrize("aggregation", ["segment", "dense"])
@pytest.mark.parametrize(
    ("conv", "weighted", "options"),
    [
        ("sage", False, {}),
        ("gcn", False, dict(use_bias=True)),
        ("gcn", True, dict(use_bias=True)),
        ("gin", False, dict(train_eps=True)),
    ],
)
def test_convolution_equals_pytorch_geometric(
    rng, conv, weighted, options, aggregation
):
    """With the same weights on a directed graph; SAGEConv and GINConv take no weights
    of edges."""
    torch = pytest.importorskip("torch")
    graph = random_graph(rng, weighted)
    h = rng.normal(size=(graph.num_padded_nodes, WIDTH)).astype(np.float32)
    layer = create_convolution(conv, graph, aggregation=aggregation, **options)
    params = random_params(rng, layer, h)
    out = run(layer, params, h)
    real, edges = slice(graph.num_nodes), slice(graph.num_edges)
    inputs = [
        torch.tensor(np.float64(h[real])),
        torch.tensor(
            np.stack([graph.senders[edges], graph.receivers[edges]]).astype(np.int64)
        ),
    ]
    if weighted:
        inputs.append(torch.tensor(graph.weights[edges]))
    expected = pyg_layer(conv, params)(*inputs).detach().numpy()
    np.testing.assert_allclose(out[real], expected, atol=4 * ROUNDING)

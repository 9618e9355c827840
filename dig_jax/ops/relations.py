"""Messages by relation: one meaning, computed in three ways.

    out[v, c] = sum_r w[r, c] (A_r h)[v, c],

with A_r the adjacency of relation r, its rows normalized (the mean over a node's edges
of that relation), and w a weight for each relation and channel, for all images or for
each. The functions of `create_relational_sum` map node features, [batch * node, width]
or [batch, node, width], and weights so; they sum in float32 whatever the type of h, and
agree to rounding.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Float

from dig_jax.devices.target import target_platform
from dig_jax.errors import InputError
from dig_jax.graphs import GridGraph, RelationalGraph
from dig_jax.graphs.relations import COMPASS
from dig_jax.ops.conv2d import depthwise_conv2d
from dig_jax.ops.keep_shape import keep_shape
from dig_jax.ops.node_product import column, node_product
from dig_jax.ops.stencil import pool_sum, repeat_patches, shift_grid

Rows: TypeAlias = Float[Array, "*rows width"]
Weights: TypeAlias = Float[Array, "*batch relation width"]
"""For all images, or with an axis of images."""
RelationalSum: TypeAlias = Callable[[Rows, Weights], Rows]
Grid: TypeAlias = Float[Array, "batch row col width"]


def create_relational_sum(
    name: str, relations: RelationalGraph, grid: GridGraph | None = None
) -> RelationalSum:
    """The sum over relations, `(h, w) -> out`.

    Args:
        name: segment, dense, or with a grid stencil; auto chooses for this platform.
        relations: Any graph whose edges have types.
        grid: Whose `RelationalGraph.of_grid` those are.

    Raises:
        InputError: Unknown name, or a stencil without a grid.
    """
    if name == "auto":
        # A matrix for each relation would be more work than the shifts it stands for.
        name = "segment" if grid is None else "stencil"
    if name == "segment":
        return _segment(relations)
    if name == "dense":
        return _dense(relations)
    if name != "stencil":
        raise InputError(
            f"Unknown aggregation {name!r}. Available: auto, dense, segment, stencil."
        )
    if grid is None:
        raise InputError(
            "Aggregation 'stencil' needs the relations of a GridGraph, got any "
            "graph's. Available for those: auto, dense, segment."
        )
    return _stencil(relations, grid)


def _segment(relations: RelationalGraph) -> RelationalSum:
    """Gather, weigh by relation, `jraph.segment_sum`. The reference."""
    graph, weights = relations.graph, column(relations.weights)

    def of_image(
        h: Float[Array, "node width"], w: Float[Array, "relation width"]
    ) -> Float[Array, "node width"]:
        messages = h.astype(jnp.float32)[graph.senders] * w[relations.relation]
        total = jraph.segment_sum(
            messages * weights, graph.receivers, graph.num_padded_nodes
        )
        return total.astype(h.dtype)

    def total_of(h: Rows, w: Weights) -> Rows:
        # [batch * node, width] to [batch, node, width] and back
        per_image = h.reshape(-1, graph.num_padded_nodes, h.shape[-1])
        mapped = jax.vmap(of_image, (0, 0 if w.ndim == 3 else None))
        return mapped(per_image, w).reshape(h.shape)

    return total_of


def _dense(relations: RelationalGraph) -> RelationalSum:
    """A product with the adjacencies side by side, of what each relation sends."""
    adjacency = relations.adjacency()
    size = adjacency.shape[-1]
    largest = adjacency.max(axis=(1, 2), keepdims=True)
    factors = np.where(largest > 0, largest, 1)
    ones = adjacency / factors
    # On a grid all nodes that a relation reaches have as many edges of it: their
    # number stays out of the matrix, which bfloat16 then holds exactly.
    exact = bool(np.isin(ones, (0, 1)).all())
    if not exact:
        ones, factors = adjacency, np.ones_like(factors)
    # [relation, receiver, sender] to [receiver, relation * sender]
    matrix = ones.transpose(1, 0, 2).reshape(size, -1)
    before = column(np.repeat(factors.ravel(), size))

    def total_of(h: Rows, w: Weights) -> Rows:
        per_image = h.reshape(-1, 1, size, h.shape[-1])
        sent = per_image.astype(jnp.float32) * w[..., :, None, :]
        # [batch, relation, node, width] to [batch * relation * node, width]
        rows = sent.astype(h.dtype).reshape(-1, h.shape[-1])
        low = exact and h.dtype == jnp.bfloat16
        total = node_product(
            matrix, rows, "bfloat16" if low else "float32", before=before
        )
        return total.reshape(h.shape)

    return total_of


def _stencil(relations: RelationalGraph, grid: GridGraph) -> RelationalSum:
    """Shifts of each scale's grid, whose weights ride on them; sums for the rest."""
    index = {name: i for i, name in enumerate(relations.names)}

    def total_of(h: Rows, w: Weights) -> Rows:
        h, width = keep_shape(h), h.shape[-1]
        w = w.astype(jnp.float32).reshape(-1, *w.shape[-2:])  # [1 or batch, ...]
        nodes = h.reshape(-1, grid.num_padded_nodes, width).astype(jnp.float32)
        batch = len(nodes)

        def weight(name: str) -> Float[Array, "_ 1 1 width"]:
            return w[:, index[name], None, None]

        grids = [scale.as_grid(nodes) for scale in grid.scales]
        totals = []
        for i, scale in enumerate(grid.scales):
            total = _shifted_sum(
                grids[i],
                {
                    offset: weight(f"{name}{scale.patch_size}")
                    for offset, name in COMPASS.items()
                    if f"{name}{scale.patch_size}" in index
                },
            )
            if grid.across:
                total = total + _across(grids, i, grid, weight)
            for k, name in enumerate(grid.hub_names):
                hub = nodes[:, grid.hubs.start + k, None, None]
                total = total + hub * weight(f"from_{name}")
            totals.append(total.reshape(batch, scale.num_nodes, width))
        if grid.num_hubs:
            mean = jnp.mean(nodes[:, : grid.num_patches], axis=1, keepdims=True)
        for k, name in enumerate(grid.hub_names):
            hub = nodes[:, grid.hubs.start + k, None]
            own = hub * weight(f"self_{name}")[:, 0]
            totals.append(mean * weight(f"to_{name}")[:, 0] + own)
        padding = grid.num_padded_nodes - grid.num_nodes
        if padding:
            totals.append(jnp.zeros((batch, padding, width)))
        return jnp.concatenate(totals, axis=1).astype(h.dtype).reshape(h.shape)

    return total_of


def _across(
    grids: list[Float[Array, "batch _ _ width"]],
    i: int,
    grid: GridGraph,
    weight: Callable[[str], Float[Array, "_ 1 1 width"]],
) -> Grid:
    """What the patches of a scale are sent by those of the others."""
    total = jnp.zeros(())
    mine = grid.scales[i].patch_size
    for j, other in enumerate(grid.scales):
        size = other.patch_size
        if j < i:
            factor = grid.factor(j, i)
            mean = pool_sum(grids[j], factor) / factor**2
            total = total + mean * weight(f"up{size}_{mine}")
        elif j > i:
            sent = grids[j] * weight(f"down{size}_{mine}")
            total = total + repeat_patches(sent, grid.factor(i, j))
    return total


def _shifted_sum(
    image: Grid, weights: dict[tuple[int, int], Float[Array, "_ 1 1 width"]]
) -> Grid:
    """Sum of w * image[v + (row, col)] over the offsets; beyond the border is nothing.

    On a TPU by its depthwise convolution, where all images have the same weights: a
    fifth of the shifts' cycles by the compiler's estimate. On a CPU column by column,
    so that an image is shifted along its rows once for the offsets of a column: half of
    the time of shifts in both directions for each.
    """
    if target_platform() == "tpu" and all(len(w) == 1 for w in weights.values()):
        nothing = jnp.zeros((1, 1, 1, image.shape[-1]))
        nine = [weights.get(offset, nothing) for offset in COMPASS]
        return _convolved(image, jnp.concatenate(nine).reshape(3, 3, -1))
    shift = shift_grid if target_platform() == "cpu" else _shift_by_padding
    total = jnp.zeros((), jnp.float32)
    for col in sorted({col for _, col in weights}):
        along = shift(image, col, 2)
        of_column = jnp.zeros((), jnp.float32)
        for row in sorted(row for row, c in weights if c == col):
            of_column = of_column + shift(along, row, 1) * weights[row, col]
        total = total + of_column
    return jnp.broadcast_to(total, image.shape)


def shifts_by_convolution(image: Grid, kernel: Float[Array, "3 3 width"]) -> Grid:
    """Sum of kernel[1 + row, 1 + col] * image[v + (row, col)]."""
    return depthwise_conv2d(image, kernel)


MESSAGES = shifts_by_convolution.__name__
"""Name of a program in which `dig_jax.costs` counts no multiply-accumulates: they are
those of messages, however these are computed."""
_convolved = jax.jit(shifts_by_convolution)


def _shift_by_padding(image: Grid, step: int, axis: int) -> Grid:
    """image[v + step] along an axis: one read for a kernel that it is fused with."""
    around = [(0, 0, 0)] * 4
    around[axis] = (-step, step, 0)
    return jax.lax.pad(image, jnp.zeros((), image.dtype), around)

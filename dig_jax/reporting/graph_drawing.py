"""Draw a grid graph over an image."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from dig_jax.files.paths import AnyPath, open_path, written_whole
from dig_jax.graphs.grid import GridGraph

SCALE_COLORS = ("tab:blue", "tab:red", "tab:purple", "tab:brown", "tab:olive")
HUB_COLORS = ("tab:orange", "tab:green", "tab:pink", "tab:cyan")
HUB_COLUMNS = (-0.14, 1.14)  # left and right of the image, in its sides
PANEL_INCHES = 3.4


class Panel(NamedTuple):
    """One picture: a title, the kinds of edges and the nodes to draw."""

    title: str
    kinds: list[str]
    nodes: Int[np.ndarray, "node"]


def draw_graph(
    graph: GridGraph,
    path: str | AnyPath,
    image: UInt8[np.ndarray, "row col rgb"] | None = None,
) -> None:
    """Write a PNG: a panel for each scale's grid, the edges across scales, the hubs.

    Nodes have the colour of their scale, a hub's edges that of the hub, edges across
    scales that of the coarser one.

    Args:
        graph: What to draw.
        path: The PNG to write.
        image: Drawn beneath, of the graph's size.
    """
    from matplotlib.figure import Figure

    panels = _panels(graph)
    rows, cols = graph.image_size
    # The hubs stand beside the image; every panel leaves them room, to be of one scale.
    side = (0.27 if graph.num_hubs else 0.03) * cols
    height = PANEL_INCHES * 1.04 * rows / (cols + 2 * side)
    figure = Figure(
        figsize=(PANEL_INCHES * len(panels), height + 0.9), layout="constrained"
    )
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    positions = _node_positions(graph)
    for axis, panel in zip(axes, panels, strict=True):
        if image is not None:
            axis.imshow(
                image.squeeze(), cmap="gray", alpha=0.45, extent=(0, cols, rows, 0)
            )
        for kind in panel.kinds:
            _draw_edges(axis, graph, positions, graph.edges_by_kind[kind])
        _draw_nodes(axis, graph, positions, panel.nodes)
        axis.set_title(panel.title, fontsize=10)
        axis.set(
            xlim=(-side, cols + side), ylim=(1.02 * rows, -0.02 * rows), aspect="equal"
        )
        axis.axis("off")
    figure.suptitle(
        f"{graph.num_nodes} nodes, {graph.graph.num_edges} directed edges", fontsize=11
    )
    with written_whole(open_path(path)) as unfinished:
        figure.savefig(unfinished, dpi=110)


def _panels(graph: GridGraph) -> list[Panel]:
    panels = []
    for i, scale in enumerate(graph.scales):
        kind = f"grid{scale.patch_size}"
        title = f"{scale.patch_size}-pixel patches\n{scale.num_nodes} nodes, "
        title += f"{graph.edges_by_kind[kind].shape[1]} edges"
        panels.append(Panel(title, [kind], graph.grid(i).ravel()))
    across = [kind for kind in graph.edges_by_kind if kind.startswith("across")]
    if across:
        count = sum(graph.edges_by_kind[kind].shape[1] for kind in across)
        title = f"across scales\n{count} edges"
        panels.append(Panel(title, across, np.arange(graph.num_patches)))
    if graph.num_hubs:
        count = graph.edges_by_kind["hubs"].shape[1]
        title = f"hubs: {' and '.join(graph.hub_words)}\n{count} edges"
        panels.append(Panel(title, ["hubs"], np.arange(graph.num_nodes)))
    return panels


def _node_positions(graph: GridGraph) -> Float[np.ndarray, "node 2"]:
    """(x, y) of each node in pixels: patches at their centres, hubs left and right."""
    rows, cols = graph.image_size
    positions = np.zeros((graph.num_nodes, 2))
    for scale in graph.scales:
        row, col = np.indices((scale.rows, scale.cols))
        centres = np.stack([col.ravel(), row.ravel()], axis=1) + 0.5
        positions[scale.nodes] = centres * scale.patch_size
    for i in range(graph.num_hubs):
        column = i % 2
        in_column = (graph.num_hubs + 1 - column) // 2
        place = (HUB_COLUMNS[column], (i // 2 + 0.5) / in_column)
        positions[graph.hubs.start + i] = np.array(place) * (cols, rows)
    return positions


def _node_colors(graph: GridGraph) -> list[str]:
    colors = []
    for i, scale in enumerate(graph.scales):
        colors += [SCALE_COLORS[i % len(SCALE_COLORS)]] * scale.num_nodes
    return colors + [HUB_COLORS[i % len(HUB_COLORS)] for i in range(graph.num_hubs)]


def _draw_edges(
    axis,
    graph: GridGraph,
    positions: Float[np.ndarray, "node 2"],
    edges: Int[np.ndarray, "2 edge"],
) -> None:
    """One line for both directions, in the colour of the node that comes last."""
    from matplotlib.collections import LineCollection

    pairs = edges[:, edges[0] < edges[1]].T
    colors = _node_colors(graph)
    # Lines to a hub lie over each other and over the image: the more, the fainter.
    to_hub = len(pairs) and pairs[0, 1] >= graph.num_patches
    alpha = np.clip(6 / np.sqrt(len(pairs)), 0.15, 0.7) if to_hub else 0.7
    # One collection: thousands of lines are quick in it, and slow one by one.
    lines = LineCollection(
        list(positions[pairs]),  # [edge, end, xy]
        colors=[colors[last] for last in pairs[:, 1]],
        linewidths=np.clip(40 / np.sqrt(max(len(pairs), 1)), 0.3, 1.2),
        alpha=alpha,
        zorder=2,
    )
    axis.add_collection(lines)


def _draw_nodes(
    axis,
    graph: GridGraph,
    positions: Float[np.ndarray, "node 2"],
    nodes: Int[np.ndarray, "shown"],
) -> None:
    colors = _node_colors(graph)
    points_per_pixel = 72 * PANEL_INCHES / (1.5 * graph.image_size[1])
    for scale in graph.scales:
        mine = nodes[(nodes >= scale.nodes.start) & (nodes < scale.nodes.stop)]
        diameter = np.clip(0.2 * scale.patch_size * points_per_pixel, 1, 9)
        axis.scatter(
            *positions[mine].T, s=diameter**2, color=colors[scale.start], zorder=3
        )
    for hub in nodes[nodes >= graph.num_patches]:
        axis.scatter(*positions[hub], s=60, color=colors[hub], zorder=3)
        outward = np.sign(positions[hub, 0])
        axis.annotate(
            graph.hub_words[hub - graph.num_patches],
            positions[hub],
            xytext=(14 * outward, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            rotation=90,
            fontsize=9,
        )

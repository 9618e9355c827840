"""Draw a grid graph over an image."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from dig_jax.graphs.grid import HUB_NAMES, GridGraph

HUB_COLORS = ("tab:orange", "tab:green")


def draw_graph(
    graph: GridGraph,
    path: str | Path,
    image: UInt8[np.ndarray, "row col rgb"] | None = None,
) -> None:
    """Write a PNG: a panel for each scale's grid, the edges across scales, the hubs.

    Args:
        graph: What to draw.
        path: The PNG to write.
        image: Drawn beneath, of the graph's size.
    """
    from matplotlib.figure import Figure

    panels = _panels(graph)
    rows, cols = graph.image_size
    figure = Figure(
        figsize=(3.6 * len(panels) + 0.2, 3.6 * rows / cols + 0.9), layout="constrained"
    )
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    positions = _node_positions(graph)
    for axis, (title, kinds, nodes) in zip(axes, panels, strict=True):
        if image is not None:
            axis.imshow(
                image.squeeze(), cmap="gray", alpha=0.45, extent=(0, cols, rows, 0)
            )
        for kind in kinds:
            edges = graph.edges_by_kind[kind]
            for sender, receiver in edges[:, edges[0] < edges[1]].T:
                color = "tab:blue"
                if receiver >= graph.num_patches:
                    color = HUB_COLORS[receiver - graph.num_patches]
                ends = positions[[sender, receiver]]
                axis.plot(*ends.T, color=color, linewidth=0.6, alpha=0.6, zorder=2)
        _draw_nodes(axis, graph, positions, nodes)
        axis.set_title(title, fontsize=9)
        axis.set_xlim(
            -0.02 * cols, cols * (1.25 if graph.hubs.start in nodes else 1.02)
        )
        axis.set_ylim(rows * 1.02, -0.02 * rows)
        axis.set_aspect("equal")
        axis.axis("off")
    figure.suptitle(
        f"{graph.num_nodes} nodes, {graph.graph.num_edges} edges (both directions)",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)


def _panels(
    graph: GridGraph,
) -> list[tuple[str, list[str], Int[np.ndarray, "node"]]]:
    """(title, kinds of edges, nodes) of each panel."""
    panels = []
    for i, scale in enumerate(graph.scales):
        kind = f"grid{scale.patch_size}"
        count = graph.edges_by_kind[kind].shape[1]
        panels.append(
            (
                f"{scale.patch_size}-pixel patches: {scale.num_nodes} nodes, "
                f"{count} edges",
                [kind],
                graph.grid(i).ravel(),
            )
        )
    across = [kind for kind in graph.edges_by_kind if kind.startswith("across")]
    patches = np.arange(graph.num_patches)
    if across:
        count = sum(graph.edges_by_kind[kind].shape[1] for kind in across)
        panels.append((f"across scales: {count} edges", across, patches))
    if graph.num_hubs:
        count = graph.edges_by_kind["hubs"].shape[1]
        panels.append((f"hubs: {count} edges", ["hubs"], np.arange(graph.num_nodes)))
    return panels


def _node_positions(graph: GridGraph) -> Float[np.ndarray, "node 2"]:
    """(x, y) of each node in pixels: patches at their centres, hubs at the right."""
    rows, cols = graph.image_size
    positions = np.zeros((graph.num_nodes, 2))
    for scale in graph.scales:
        row, col = np.indices((scale.rows, scale.cols))
        centres = np.stack([col.ravel(), row.ravel()], axis=1) + 0.5
        positions[scale.nodes] = centres * scale.patch_size
    for hub in range(graph.num_hubs):
        y = rows * (hub + 1) / (graph.num_hubs + 1)
        positions[graph.num_patches + hub] = cols * 1.14, y
    return positions


def _draw_nodes(
    axis,
    graph: GridGraph,
    positions: Float[np.ndarray, "node 2"],
    nodes: Int[np.ndarray, "node"],
) -> None:
    finest = graph.patch_sizes[0]
    for scale in graph.scales:
        mine = nodes[(nodes >= scale.nodes.start) & (nodes < scale.nodes.stop)]
        size = 4 * scale.patch_size / finest
        axis.scatter(*positions[mine].T, s=size, color="tab:blue", zorder=3)
    for hub, color in enumerate(HUB_COLORS[: graph.num_hubs]):
        node = graph.num_patches + hub
        if node in nodes:
            x, y = positions[node]
            axis.scatter([x], [y], s=40, color=color, zorder=3)
            axis.annotate(
                HUB_NAMES[hub],
                (x, y),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )

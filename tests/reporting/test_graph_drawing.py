"""The drawing of a graph opens as a picture and shows every edge once."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from dig_jax.graphs import GridGraph
from dig_jax.reporting.graph_drawing import draw_graph


@pytest.mark.parametrize(
    ("image_size", "patch_sizes", "num_hubs", "rgb", "panels"),
    [
        ((8, 8), (2, 4), 2, 1, 4),
        ((8, 12), (1, 2, 4), 1, 3, 5),
        ((4, 4), (4,), 0, None, 1),  # a single node without an edge
        ((8, 12), (2, 4), 0, 3, 3),  # no hub beside the image
    ],
)
def test_drawing_is_a_png_with_every_edge_once(
    tmp_path, monkeypatch, rng, image_size, patch_sizes, num_hubs, rgb, panels
):
    image = rgb and rng.integers(0, 256, (*image_size, rgb), dtype=np.uint8)
    graph = GridGraph.create(image_size, patch_sizes, num_hubs=num_hubs)
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda f, *a, **k: (figures.append(f), save(f, *a, **k))
    )
    path = tmp_path / "graph.png"
    draw_graph(graph, path, image)

    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert 300 * panels <= picture.width <= 500 * panels
        assert 200 <= picture.height <= 800
        assert (
            len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0))
            > 2
        )
    (figure,) = figures
    assert len(figure.axes) == panels
    lines = sum(
        len(collection.get_segments())
        for axis in figure.axes
        for collection in axis.collections
        if isinstance(collection, LineCollection)
    )
    assert lines == graph.graph.num_edges / 2

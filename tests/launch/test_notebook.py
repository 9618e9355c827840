"""The Colab notebook runs from top to bottom, here on the CPU with small settings."""

import base64
import io
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "launch" / "dig_jax_colab.ipynb"
SMALL = [
    "--config.backbone.width=16",
    "--config.backbone.depth=2",
    "--config.backbone.hops=1",
    "--config.training.num_steps=4",
    "--config.training.batch_size=8",
    "--config.training.log_every=1",
    "--config.training.samples_per_class=1",
    "--config.training.diversity_every=0",
    "--config.sample.num_steps=2",
]


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_kept_without_outputs(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


def test_the_notebook_trains_draws_and_shows_images(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # to compile quickly
    (place,) = (
        index
        for index, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", [])
    )
    settings = f"FOLDER = {str(ROOT)!r}\nSETTINGS = {SMALL}"
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(settings))
    client = NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    loss, grid = shown
    assert loss.std() > 0
    # Ten digits in a row, each pixel repeated to some 64, with white gaps of 2.
    assert grid.shape == (10 * 66 + 2, 10 * 66 + 2, 3)
    assert grid.std() > 0
    assert (tmp_path / "runs" / "digits" / "checkpoints").is_dir()

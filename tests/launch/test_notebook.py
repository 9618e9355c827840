"""The Colab notebook runs from top to bottom, here on the CPU with small settings."""

import base64
import copy
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from dig_jax.evaluation import read_records

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
    "--config.evaluation.features=none",
]


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_kept_without_outputs(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


def cell_of(notebook, text):
    """The index of the one code cell that has a text."""
    (found,) = (
        index
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and text in cell.source
    )
    return found


def write_pictures(folder, rng):
    """Two classes of noise."""
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for index in range(12):
            pixels = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


def test_the_notebook_takes_own_pictures_to_an_export(
    notebook, tmp_path, monkeypatch, rng
):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # to compile quickly
    write_pictures(tmp_path / "pictures", rng)
    notebook = copy.deepcopy(notebook)
    place = cell_of(notebook, "EXPERIMENT = ")
    assert notebook.cells[place].metadata["tags"] == ["parameters"]
    cell = notebook.cells[place]
    cell.source = cell.source.replace('"digits"', '"pictures"', 1)
    small = f"FOLDER, IMAGE_SIZE, SCORED = {str(ROOT)!r}, 8, 10\nSETTINGS += {SMALL}"
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(small))
    client = NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))))
        for output in outputs
        if "image/png" in output.get("data", {})
    ]
    loss, *_, grid, one_class = shown
    assert loss.std() > 0
    # Ten in a row, each pixel repeated to some 64, with white gaps of 2.
    assert grid.shape == (10 * 66 + 2, 10 * 66 + 2, 3)
    assert one_class.shape == (66 + 2, 10 * 66 + 2, 3)
    assert grid.std() > 0
    said = "".join(output.get("text", "") for output in outputs)
    assert "Dry run: would train steps 1 to 4" in said
    assert "classes: cat, dog" in said
    workdir = tmp_path / "runs" / "pictures"
    (record,) = read_records(workdir)[-1:]
    assert record["num_images"] == 10
    with zipfile.ZipFile(f"{workdir}_export.zip") as packed:
        assert {"sample.py", "parameters.safetensors"} <= set(packed.namelist())


def test_the_notebook_clones_nothing_without_an_address(notebook, tmp_path):
    install = notebook.cells[cell_of(notebook, '"git"')].source
    missing = "import importlib.util\nimportlib.util.find_spec = lambda name: None\n"
    names = {"FOLDER": str(tmp_path / "none"), "REPOSITORY": ""}
    script = "\n".join([*(f"{k} = {v!r}" for k, v in names.items()), missing, install])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "ValueError: Upload dig_jax as the folder" in done.stderr
    assert not (tmp_path / "none").exists()

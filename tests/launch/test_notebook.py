"""The notebooks run from top to bottom, here on the CPU with small settings."""

import base64
import io
import json
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
NOTEBOOKS = {path.stem: path for path in (ROOT / "notebooks").glob("*.ipynb")}
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
SMALL_COMPARISON = [
    "--config.base.backbone.width=8",
    "--config.base.backbone.depth=2",
    "--config.base.backbone.hops=1",
    "--config.base.backbone.patch_sizes=(4,)",
    "--config.variants.uvit.backbone.width=8",
    "--config.variants.uvit.backbone.depth=2",
    "--config.variants.uvit.backbone.num_heads=2",
    "--config.base.training.num_steps=4",
    "--config.base.training.batch_size=8",
    "--config.base.training.log_every=2",
    "--config.base.training.diversity_every=2",
    "--config.base.sample.num_steps=2",
    "--config.base.sample.num_images=10",
    "--config.base.evaluation.metrics=('frechet_pixels',)",
    "--config.compare.budget=none",
    "--config.base.evaluation.features=none",
    "--config.compare.num_points=1",
]


@pytest.fixture(autouse=True)
def compile_quickly(monkeypatch):
    """In the kernels that are started."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


@pytest.fixture(params=sorted(NOTEBOOKS))
def any_notebook(request):
    return nbformat.read(NOTEBOOKS[request.param], as_version=4)


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOKS["first_run"], as_version=4)


def test_notebooks_are_kept_without_outputs(any_notebook):
    nbformat.validate(any_notebook)
    for cell in any_notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


def test_notebooks_say_what_runtime_they_want(any_notebook):
    head = any_notebook.cells[0].source
    for name in ("**Runtime**", "CPU", "GPU", "TPU"):
        assert name in head


def test_notebooks_install_alike(any_notebook, notebook):
    """The cells of all of them are those of the first, which tests try."""
    install = notebook.cells[cell_of(notebook, '"git"')].source
    assert any_notebook.cells[cell_of(any_notebook, '"git"')].source == install


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


def execute(notebook, folder, small):
    """Run all cells, with these lines after the first; returns texts and pictures."""
    place = cell_of(notebook, "REPOSITORY = ")
    assert notebook.cells[place].metadata["tags"] == ["parameters"]
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(small))
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, resources=resources).execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))))
        for output in outputs
        if "image/png" in output.get("data", {})
    ]
    texts = [output.get("text", "") for output in outputs]
    texts += [output.get("data", {}).get("text/markdown", "") for output in outputs]
    return "".join(texts), shown


def test_the_first_run_takes_own_pictures_to_an_export(notebook, tmp_path, rng):
    write_pictures(tmp_path / "pictures", rng)
    cell = notebook.cells[cell_of(notebook, "EXPERIMENT = ")]
    cell.source = cell.source.replace('"digits"', '"pictures"', 1)
    small = f"FOLDER, IMAGE_SIZE, SCORED = {str(ROOT)!r}, 8, 10\nSETTINGS += {SMALL}"
    said, shown = execute(notebook, tmp_path, small)
    loss, *_, grid, one_class = shown
    assert loss.std() > 0
    # Ten in a row, each pixel repeated to some 64, with white gaps of 2.
    assert grid.shape == (10 * 66 + 2, 10 * 66 + 2, 3)
    assert one_class.shape == (66 + 2, 10 * 66 + 2, 3)
    assert grid.std() > 0
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


def test_an_own_graph_gets_a_network_that_draws(tmp_path):
    notebook = nbformat.read(NOTEBOOKS["own_graph"], as_version=4)
    small = f"FOLDER, STEPS, WIDTH = {str(ROOT)!r}, 30, 8"
    said, shown = execute(notebook, tmp_path, small)
    # 8x8 pixels: 2 * 2 * 7 * 8 edges to sides, and 8 * 6 * 7 knights' moves.
    for name, count in (("no edges", 0), ("neighbours", 224)):
        assert f"{name}: 64 nodes, {count} directed edges" in said
    assert "neighbours and knights: 64 nodes, 560 directed edges" in said
    assert said.count("over the last fifth") == 3
    drawn = shown[-3:]
    assert {image.shape for image in drawn} == {(8 * 6 + 4, 10 * 50 + 2, 3)}
    assert len({image.tobytes() for image in drawn}) == 3


def test_two_backbones_are_compared(tmp_path):
    notebook = nbformat.read(NOTEBOOKS["compare_backbones"], as_version=4)
    small = f"FOLDER, SEEDS = {str(ROOT)!r}, (0,)\nSETTINGS = {SMALL_COMPARISON}\n"
    small += "from dig_jax.comparison import measure\n"
    small += "measure.ROUNDS, measure.SECONDS_A_ROUND = 1, 0.01"  # speed is not tested
    said, shown = execute(notebook, tmp_path, small)
    workdir = tmp_path / "runs" / "compare"
    record = json.loads((workdir / "compare.json").read_text(encoding="utf-8"))
    assert {name for name in ("parallel", "uvit") if name in json.dumps(record)} == {
        "parallel",
        "uvit",
    }
    assert "frechet_pixels" in said
    first, second = shown[-2:]
    assert first.shape == second.shape == (8 * 6 + 4, 10 * 50 + 2, 3)
    assert (first != second).any()
    assert said.count("per image") == 2

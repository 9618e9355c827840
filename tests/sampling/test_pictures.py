"""Single pictures out, and a folder of pictures in."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from dig_jax.errors import EXIT_DONE, InputError
from dig_jax.evaluation import read_records
from dig_jax.main import main
from dig_jax.sampling.pictures import read_pictures, write_pictures

NAMES = ("circle", "big square", "no/folder")
SHAPE = (8, 6, 3)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (4, *SHAPE), dtype=np.uint8)


LABELS = np.array([2, 0, 1, 0], np.int32)


def test_pictures_are_read_as_they_were_written(images, tmp_path):
    write_pictures(tmp_path, np.tile(images, (2, 1, 1, 1)), None)
    (tmp_path / "step_10.png").write_bytes(b"")  # a preview of training
    write_pictures(tmp_path, images, LABELS, NAMES)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "000000_no-folder.png",
        "000001_circle.png",
        "000002_big-square.png",
        "000003_circle.png",
        "step_10.png",
    ]
    found = read_pictures(tmp_path, SHAPE, 3, NAMES)
    np.testing.assert_array_equal(found.drawn.images, images)
    np.testing.assert_array_equal(found.drawn.labels, LABELS)
    # Those who know no names have no labels.
    assert read_pictures(tmp_path, SHAPE).provenance["labels"] == "none"


def test_folders_are_classes_and_content_says_what_is_a_picture(images, tmp_path):
    for label, image in zip(LABELS, images, strict=True):
        folder = tmp_path / ("circle", "big square", "2")[label]
        folder.mkdir(exist_ok=True)
        count = len([*folder.iterdir()])
        Image.fromarray(image).save(folder / f"{count}.dat", "PNG")
    (tmp_path / "notes.png").write_text("no picture")
    found = read_pictures(tmp_path, SHAPE, 3, NAMES)
    assert sorted(found.drawn.labels) == sorted(LABELS)
    for image, label in zip(found.drawn.images, found.drawn.labels, strict=True):
        assert any((image == one).all() for one in images[label == LABELS])
    assert "4 pictures" in found.note
    assert "1 files are no pictures: notes.png" in found.note


def test_what_cannot_be_scored_is_named(images, tmp_path):
    with pytest.raises(InputError, match=r"needs pictures.*has 0 other files"):
        read_pictures(tmp_path, SHAPE)
    write_pictures(tmp_path, images, LABELS, NAMES)
    with pytest.raises(InputError, match=r"must be 4x4 .*got 8x6 in .*000000"):
        read_pictures(tmp_path, (4, 4, 3), 3, NAMES)
    shutil.copy(tmp_path / "000001_circle.png", tmp_path / "other.png")
    with pytest.raises(InputError, match=r"1 of 5 .* none of the 3 classes.*other.png"):
        read_pictures(tmp_path, SHAPE, 3, NAMES)
    whole = (tmp_path / "000001_circle.png").read_bytes()
    (tmp_path / "000001_circle.png").write_bytes(whole[:60])
    with pytest.raises(InputError, match=r"000001_circle.png is no picture"):
        read_pictures(tmp_path, SHAPE, 3, NAMES)


def test_single_pictures_have_the_scores_of_their_npz(trained_runs, tmp_path, capsys):
    workdir = trained_runs.workdir()
    # As many as were drawn at once elsewhere: a program that may be there already.
    drawn = ("--mode=sample", f"--workdir={workdir}", f"--out={tmp_path}", "--png")
    assert main([*drawn]) == EXIT_DONE
    assert re.search(r"samples\.png, .*/samples$", capsys.readouterr().out.strip())
    for name in ("samples.npz", "samples"):
        scored = ("--mode=evaluate", f"--workdir={workdir}", f"--out={tmp_path}")
        more = (f"--samples={tmp_path / name}", "--config.evaluation.features=none")
        assert main([*scored, *more]) == EXIT_DONE
    npz, pictures = read_records(tmp_path)
    assert npz["scores"] == pictures["scores"]

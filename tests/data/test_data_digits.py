"""Digits are scikit-learn's, split once and for all."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dig_jax.data import create_dataset
from dig_jax.data.loader import read_images
from dig_jax.errors import InputError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def splits(data_dir):
    return {
        split: read_images(create_dataset("digits", split=split, data_dir=data_dir))
        for split in ("train", "test")
    }


def sort_rows(images, labels):
    rows = np.column_stack([images.reshape(len(images), -1), labels]).astype(int)
    return rows[np.lexsort(rows.T)]


def test_both_splits_together_are_scikit_learns_digits(splits):
    values, labels = load_digits(return_X_y=True)
    pixels = np.array([round(v * 255 / 16) for v in values.ravel()])
    ours = sort_rows(
        np.concatenate([splits["train"].images, splits["test"].images]),
        np.concatenate([splits["train"].labels, splits["test"].labels]),
    )
    np.testing.assert_array_equal(ours, sort_rows(pixels.reshape(-1, 64), labels))


def test_splits_have_their_sizes_and_share_no_image(splits):
    train, test = splits["train"].images, splits["test"].images
    assert (len(train), len(test)) == (1500, 297)
    both = np.concatenate([train, test])
    assert len(np.unique(both, axis=0)) == len(both)


def test_each_label_has_its_share_of_the_test_split(splits):
    labels = np.concatenate([splits["train"].labels, splits["test"].labels])
    share = np.bincount(labels) * 297 / 1797
    counts = np.bincount(splits["test"].labels)
    assert np.abs(counts - share).max() <= 1


def test_preparing_again_gives_the_same_records(splits, tmp_path):
    again = read_images(create_dataset("digits", data_dir=str(tmp_path)))
    np.testing.assert_array_equal(again.images, splits["train"].images)
    np.testing.assert_array_equal(again.labels, splits["train"].labels)


def test_processes_that_prepare_at_once_all_read_the_same(tmp_path):
    # Imports take longer than the race: all wait for a file before they start.
    program = (
        "import pathlib, sys, time\n"
        "from dig_jax.data import create_dataset\n"
        "from dig_jax.data.loader import read_images\n"
        "import tensorflow_datasets, sklearn.datasets\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "(folder / sys.argv[2]).touch()\n"
        "while len(list(folder.glob('ready*'))) < 3:\n"
        "    time.sleep(0.001)\n"
        "source = create_dataset('digits', data_dir=str(folder))\n"
        "assert 'tensorflow' not in sys.modules\n"
        "images, labels = read_images(source)\n"
        "print(source.fingerprint, len(images), int(images.sum()), int(labels.sum()))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), f"ready{index}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(3)
    ]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    assert len({out for out, _ in results}) == 1
    assert [err for _, err in results] == ["", "", ""]  # And nobody says a word.
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_a_loser_of_the_race_reads_the_winners_files(tmp_path, monkeypatch):
    from dig_jax.data.digits import Digits

    def lose(self, **options):
        monkeypatch.undo()
        Digits(data_dir=str(tmp_path)).download_and_prepare(**options)
        raise OSError("Directory not empty")

    monkeypatch.setattr(Digits, "download_and_prepare", lose)
    assert len(create_dataset("digits", data_dir=str(tmp_path))) == 1500


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"can be written, got .*file.* data_dir"):
        create_dataset("digits", data_dir=str(tmp_path / "file"))


def test_another_size_or_split_is_refused(data_dir):
    with pytest.raises(InputError, match=r"8x8x1 .* got image_size=16"):
        create_dataset("digits", image_size=16, data_dir=data_dir)
    with pytest.raises(InputError, match=r"no split 'valid'. Available: test, train\."):
        create_dataset("digits", split="valid", data_dir=data_dir)

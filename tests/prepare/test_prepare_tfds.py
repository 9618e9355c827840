"""What TensorFlow Datasets prepared, or would download."""

import numpy as np
import tensorflow_datasets as tfds
from official_archives import (
    encode,
    random_images,
)
from opened_as_told import read_as_told
from PIL import Image
from tfds_files import write_tfds

from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE
from dig_jax.prepare import command as prepare
from dig_jax.prepare import from_tfds
from dig_jax.prepare.command import main


def test_a_download_without_tensorflow_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(from_tfds, "find_spec", lambda name: None)
    assert main(["cifar10"]) == EXIT_BAD_INPUT
    message = capsys.readouterr().err
    assert "needs tensorflow and importlib_resources" in message
    assert "pip install tensorflow importlib_resources" in message
    assert "--source" in message


def test_what_tfds_prepared_is_left_as_it_is(tmp_path, monkeypatch, capsys):
    class Builder:
        data_path = tmp_path

        def download_and_prepare(self, **options):
            assert options == {"file_format": "array_record"}

    monkeypatch.setattr(from_tfds, "find_spec", lambda name: True)
    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: Builder())
    assert main(["cifar10", f"--data_dir={tmp_path}"]) == EXIT_DONE
    assert f"is prepared in {tmp_path}" in capsys.readouterr().out

    def fail(self, **options):
        raise RuntimeError("404")

    monkeypatch.setattr(Builder, "download_and_prepare", fail)
    assert main(["cifar10", f"--data_dir={tmp_path}"]) == EXIT_BAD_INPUT
    assert "could not prepare 'cifar10': RuntimeError: 404" in capsys.readouterr().err


def test_celeba_from_tfds_is_cut_and_resized(tmp_path, rng, monkeypatch, capsys):
    images = random_images(rng, 3, 218, 178)
    builder = write_celeb_a(tmp_path / "celeb_a" / "2.1.0", images)
    monkeypatch.setattr(prepare, "download_with_tfds", lambda name, data_dir: builder)
    options = (f"--data_dir={tmp_path}", "--num_workers=0")
    assert main(["celeba64", *options]) == EXIT_DONE
    source = read_as_told(capsys.readouterr().out, "train")
    for index, image in enumerate(images):
        square = Image.fromarray(image[39:179, 19:159]).resize((64, 64), 2)
        np.testing.assert_array_equal(source[index]["image"], np.asarray(square))


def write_celeb_a(folder, images):
    """A stand-in for TFDS's own, with whole image files."""
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(218, 178, 3))}
    )
    records = [features.serialize_example({"image": encode(i)}) for i in images]
    return write_tfds(folder, "celeb_a", features, records)

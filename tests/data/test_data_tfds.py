"""Data sets of TFDS's own, read from small files of the same names and features."""

import io
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.registered import skip_registration

from dig_jax.data import create_dataset
from dig_jax.data.loader import load_batches, read_images
from dig_jax.data.prepared import find_prepared
from dig_jax.data.tfds_source import TFDSSource
from dig_jax.errors import InputError

NUM_RECORDS = 40


def make_images(size):
    shape = (NUM_RECORDS, size, size, 3)
    return np.random.default_rng(size).integers(0, 256, shape, dtype=np.uint8)


def encode_png(pixels):
    # TFDS takes encoded bytes as they are; only arrays need TensorFlow.
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def prepare(data_dir, *, name, version, size, num_classes, splits, config=None):
    """Writes a stand-in with the real one's name, version, features and splits."""

    def info(self):
        features = {
            "image": tfds.features.Image(shape=(size, size, 3)),
            "label": tfds.features.ClassLabel(num_classes=num_classes),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def split_generators(self, dl_manager):
        return {split: self._generate_examples() for split in splits}

    def generate(self):
        for index, pixels in enumerate(make_images(size)):
            yield index, {"image": encode_png(pixels), "label": index % num_classes}

    class_name = "".join(word.title() for word in name.split("_"))
    configs = [tfds.core.BuilderConfig(name=config)] if config else []
    members = {
        "VERSION": tfds.core.Version(version),
        "BUILDER_CONFIGS": configs,
        "_info": info,
        "_split_generators": split_generators,
        "_generate_examples": generate,
        "url_infos": None,
    }
    with skip_registration():
        builder = type(class_name, (tfds.core.GeneratorBasedBuilder,), members)
    assert builder.name == name
    builder(data_dir=data_dir).download_and_prepare(
        file_format="array_record",
        download_config=tfds.download.DownloadConfig(try_download_gcs=False),
    )


STAND_INS = {
    "cifar10": {
        "name": "cifar10",
        "version": "3.0.2",
        "size": 32,
        "num_classes": 10,
        "splits": ("train", "test"),
    },
    "svhn": {
        "name": "svhn_cropped",
        "version": "3.1.0",
        "size": 32,
        "num_classes": 10,
        "splits": ("train", "test", "extra"),
    },
    "imagenet64": {
        "name": "imagenet_resized",
        "version": "0.1.0",
        "config": "64x64",
        "size": 64,
        "num_classes": 1000,
        "splits": ("train", "validation"),
    },
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tfds"))
    for options in STAND_INS.values():
        prepare(data_dir=folder, **options)
    return folder


@pytest.mark.parametrize("name", STAND_INS)
def test_png_records_are_read_as_they_were_written(name, data_dir):
    size = STAND_INS[name]["size"]
    for split in ("train", "test"):
        source = create_dataset(name, split=split, data_dir=data_dir)
        images, labels = read_images(source)
        assert source.image_shape == (size, size, 3)
        assert source.num_classes == STAND_INS[name]["num_classes"]
        np.testing.assert_array_equal(images, make_images(size))
        np.testing.assert_array_equal(
            labels, np.arange(NUM_RECORDS) % source.num_classes
        )


def test_parts_of_splits_can_be_asked_for(data_dir):
    part = create_dataset("svhn", split="train[5:8]+extra[:2]", data_dir=data_dir)
    expected = make_images(32)[[5, 6, 7, 0, 1]]
    np.testing.assert_array_equal(read_images(part).images, expected)


class Counted:
    """Records that remember which of them were asked for."""

    def __init__(self, records):
        self._records, self.asked = records, []

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        self.asked.append(index)
        return self._records[index]

    def __getitems__(self, indices):
        self.asked += indices
        return self._records.__getitems__(indices)


def test_a_kept_record_is_read_from_disk_once(data_dir, monkeypatch):
    builder = find_prepared("cifar10", data_dir, tfds_name="cifar10")
    kept = TFDSSource("cifar10", builder, split="train")
    records = Counted(kept._records)
    monkeypatch.setattr(kept, "_records", records)
    kept[3]
    first, second = read_images(kept), read_images(kept)
    assert sorted(records.asked) == list(range(NUM_RECORDS))
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.images, make_images(32))


@pytest.mark.parametrize("max_kept_bytes", [0, 2**20])
def test_records_read_together_are_those_read_one_by_one(data_dir, max_kept_bytes):
    builder = find_prepared("svhn", data_dir, tfds_name="svhn_cropped")
    source = TFDSSource(
        "svhn", builder, split="train[7:]+extra", max_kept_bytes=max_kept_bytes
    )
    indices = [70, 3, 3, 40, 0, 32, 33]
    for _ in range(2):
        for index, record in zip(indices, source.__getitems__(indices), strict=True):
            alone = source[index]
            np.testing.assert_array_equal(record["image"], alone["image"])
            assert record["label"] == alone["label"]
    assert source.__getitems__([]) == []
    for outside in (-1, len(source)):
        with pytest.raises(IndexError):
            source.__getitems__([2, outside])


def test_a_large_split_is_read_again_each_time_and_gives_the_same(data_dir):
    builder = find_prepared("cifar10", data_dir, tfds_name="cifar10")
    num_bytes = 32 * 32 * 3 * NUM_RECORDS
    kept, large = (
        TFDSSource("cifar10", builder, split="train", max_kept_bytes=most)
        for most in (num_bytes, num_bytes - 1)
    )
    assert large[3] is not large[3]
    assert kept[3] is kept[3]
    np.testing.assert_array_equal(read_images(large).images, read_images(kept).images)


def test_a_kept_image_cannot_be_written_to(data_dir):
    source = create_dataset("cifar10", data_dir=data_dir)
    with pytest.raises(ValueError, match="read-only"):
        source[0]["image"][:] = 0


def test_worker_processes_read_the_same(data_dir):
    source = create_dataset("cifar10", data_dir=data_dir)
    here = load_batches(source, batch_size=16, seed=0)
    there = load_batches(source, batch_size=16, seed=0, num_workers=2)
    for _ in range(4):
        ours, theirs = next(here), next(there)
        for key in ours:
            np.testing.assert_array_equal(ours[key], theirs[key])
    here.close()
    there.close()


def test_a_missing_data_set_says_where_it_was_sought_and_how_to_prepare_it(tmp_path):
    with pytest.raises(InputError) as raised:
        create_dataset("imagenet64", data_dir=str(tmp_path))
    message = str(raised.value)
    assert str(tmp_path / "imagenet_resized" / "64x64") in message
    assert str(tmp_path / "dig_imagenet64_box" / "1.0.0") in message
    assert (
        f"dig_jax.prepare imagenet64 --source=FILE_OR_FOLDER --data_dir={tmp_path}"
        in (message)
    )


def test_another_file_format_is_named(data_dir, tmp_path):
    shutil.copytree(f"{data_dir}/cifar10", tmp_path / "cifar10")
    info = tmp_path / "cifar10" / "3.0.2" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    for path in info.parent.glob("*array_record*"):
        path.rename(str(path).replace("array_record", "tfrecord"))
    with pytest.raises(
        InputError, match="as array_record, and is tfrecord in"
    ) as raised:
        create_dataset("cifar10", data_dir=str(tmp_path))
    assert "dig_jax.prepare cifar10" in str(raised.value)


def test_extra_images_of_svhn_are_trained_on_only_if_asked_for(data_dir):
    plain = create_dataset("svhn", data_dir=data_dir)
    both = create_dataset("svhn", data_dir=data_dir, extra=True)
    assert (len(plain), len(both)) == (NUM_RECORDS, 2 * NUM_RECORDS)
    assert plain.fingerprint != both.fingerprint
    test = create_dataset("svhn", split="test", data_dir=data_dir, extra=True)
    assert test.split == "test"


def test_the_newest_version_is_read(data_dir, tmp_path):
    shutil.copytree(f"{data_dir}/cifar10", tmp_path / "cifar10")
    for version in ("3.0.10", "2.9.9"):
        shutil.copytree(tmp_path / "cifar10/3.0.2", tmp_path / "cifar10" / version)
    (tmp_path / "cifar10" / "3.1.0.incompleteA1B2").mkdir()
    assert str(
        find_prepared("cifar10", str(tmp_path), tfds_name="cifar10").data_path
    ) == (str(tmp_path / "cifar10" / "3.0.10"))


def test_what_dig_jax_prepared_goes_before_what_tfds_did(data_dir, tmp_path):
    shutil.copytree(f"{data_dir}/cifar10", tmp_path / "cifar10")
    shutil.copytree(f"{data_dir}/svhn_cropped/3.1.0", tmp_path / "dig_cifar10/1.0.0")
    source = create_dataset("cifar10", split="extra", data_dir=str(tmp_path))
    assert len(source) == NUM_RECORDS


def test_another_size_or_split_is_refused(data_dir):
    with pytest.raises(InputError, match=r"32x32x3 .* got image_size=64"):
        create_dataset("cifar10", image_size=64, data_dir=data_dir)
    for split in ("valid", "train[", "train+valid"):
        with pytest.raises(InputError, match=r"Available: extra, test, train\."):
            create_dataset("svhn", split=split, data_dir=data_dir)


def test_reading_never_imports_tensorflow(data_dir):
    program = (
        "import sys\n"
        "import dig_jax.data\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        "assert 'sklearn' not in sys.modules\n"
        "from dig_jax.data.labels import label_counts\n"
        f"source = dig_jax.data.create_dataset('cifar10', data_dir={data_dir!r})\n"
        "assert label_counts(source).sum() == len(source)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)

"""What TFDS downloads by itself, for which it needs TensorFlow."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from dig_jax.errors import InputError
from dig_jax.prepare.splits import RawDataset, RawImage


def download_with_tfds(tfds_name: str, data_dir: str) -> Any:
    """The builder of one of TFDS's data sets, downloaded and written as array_record.

    Raises:
        InputError: TensorFlow is missing, or the download failed.
    """
    missing = [m for m in ("tensorflow", "importlib_resources") if not find_spec(m)]
    if missing:
        raise InputError(
            f"Without --source, TFDS downloads {tfds_name!r}, which needs "
            f"{' and '.join(missing)}: pip install {' '.join(missing)}. Or name the "
            f"official archive on your disk with --source."
        )
    import tensorflow_datasets as tfds

    builder = tfds.builder(tfds_name, data_dir=data_dir or None)
    try:
        builder.download_and_prepare(file_format="array_record")
    # Whatever TFDS, a server or a full disk has to say, it is about the download.
    except Exception as error:
        raise InputError(
            f"TFDS could not prepare {tfds_name!r}: {type(error).__name__}: {error}. "
            f"Download the official archive and name it with --source."
        ) from error
    return builder


def open_tfds_celeba(builder: Any) -> RawDataset:
    """TFDS's celeb_a, whose images are whole JPEG files, to be cropped and resized."""
    splits = {name: TFDSFilesSplit(builder, name) for name in builder.info.splits}
    return RawDataset(
        splits=splits,
        class_names=(),
        encoded=True,
        source=f"TFDS's {builder.info.full_name}",
    )


class TFDSFilesSplit:
    """The image files in a split of TFDS's, in TFDS's order, which is a random one."""

    def __init__(self, builder: Any, split: str):
        info = builder.info.splits[split]
        self._folder = str(builder.data_path)
        self._split = split
        self._length = info.num_examples
        self.identity = f"{builder.info.full_name}, {self._length}, {info.num_bytes}"

    def __len__(self) -> int:
        return self._length

    def part(self, start: int, stop: int) -> "TFDSFilesPart":
        """Some images in a row, which can be pickled."""
        return TFDSFilesPart(self._folder, self._split, start, min(stop, len(self)))


class TFDSFilesPart:
    """Image files of a TFDS data set, read when they are iterated over."""

    def __init__(self, folder: str, split: str, start: int, stop: int):
        self._folder, self._split = folder, split
        self._indices = range(start, stop)

    def __iter__(self) -> Iterator[RawImage]:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2

        records = tfds.builder_from_directory(self._folder).as_data_source(
            self._split,
            deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,  # pyright: ignore[reportCallIssue]
        )
        for index in self._indices:
            example = tf_example_pb2.Example.FromString(records[index])
            content = example.features.feature["image"].bytes_list.value[0]
            yield RawImage(f"{self._folder}, {self._split}, {index}", content, 0)

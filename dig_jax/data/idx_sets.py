"""Data sets of the MNIST family, which `dig_jax.prepare idx` reads from IDX files."""

from __future__ import annotations

from dig_jax.data.data_dir import explain_remote_errors
from dig_jax.data.prepared import check_shape, find_prepared
from dig_jax.data.tfds_source import TFDSSource


def create_fashion_mnist(
    *,
    split: str = "train",
    image_size: int | tuple[int, int] = 28,
    channels: int = 1,
    data_dir: str = "",
) -> TFDSSource:
    """Fashion-MNIST: 60,000 train and 10,000 test images of clothes, 28x28 and grey.

    Args:
        split: train or test.
        image_size: 28.
        channels: 1.
        data_dir: TFDS's folder; "" is its default.
    """
    check_shape("fashion_mnist", image_size, channels, (28, 28, 1))
    return _open("fashion_mnist", split, data_dir, may_flip=True)


def create_mnist(
    *,
    split: str = "train",
    image_size: int | tuple[int, int] = 28,
    channels: int = 1,
    data_dir: str = "",
) -> TFDSSource:
    """MNIST: 60,000 train and 10,000 test images of digits, 28x28 and grey.

    Args:
        split: train or test.
        image_size: 28.
        channels: 1.
        data_dir: TFDS's folder; "" is its default.
    """
    check_shape("mnist", image_size, channels, (28, 28, 1))
    return _open("mnist", split, data_dir, may_flip=False)


def create_kmnist(
    *,
    split: str = "train",
    image_size: int | tuple[int, int] = 28,
    channels: int = 1,
    data_dir: str = "",
) -> TFDSSource:
    """Kuzushiji-MNIST: 60,000 train and 10,000 test images of kana, 28x28 and grey.

    Args:
        split: train or test.
        image_size: 28.
        channels: 1.
        data_dir: TFDS's folder; "" is its default.
    """
    check_shape("kmnist", image_size, channels, (28, 28, 1))
    return _open("kmnist", split, data_dir, may_flip=False)


def create_idx(
    *,
    split: str = "train",
    called: str = "",
    image_size: int | tuple[int, int] = 28,
    channels: int = 1,
    data_dir: str = "",
) -> TFDSSource:
    """Any other data set of IDX files, such as EMNIST or QMNIST.

    Args:
        split: train or test.
        called: The --name that it was prepared under, by which scores call it.
        image_size: Side, or (rows, cols), in pixels.
        channels: 1.
        data_dir: TFDS's folder; "" is its default.
    """
    options = f"--name={called}" if called else ""
    with explain_remote_errors(data_dir):
        builder = find_prepared("idx", data_dir, called, options=options)
        source = TFDSSource(called or "idx", builder, split=split)
    check_shape(source.name, image_size, channels, source.image_shape)
    return source


def _open(name: str, split: str, data_dir: str, *, may_flip: bool) -> TFDSSource:
    """A data set that TFDS has under the same name."""
    with explain_remote_errors(data_dir):
        builder = find_prepared(name, data_dir, tfds_name=name)
        return TFDSSource(name, builder, split=split, may_flip=may_flip)

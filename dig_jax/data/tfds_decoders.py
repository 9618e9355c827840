"""From a record of TFDS to an image: what its features are decoded by."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from dig_jax.errors import InputError


def choose_decoder(name: str, features: Any) -> Callable[[Any], np.ndarray]:
    """From a record's feature to pixels, for TFDS's Image and Tensor(uint8)."""
    import tensorflow_datasets as tfds

    # A FeaturesDict has no get().
    feature: Any = features["image"] if "image" in features else None  # noqa: SIM401
    if isinstance(feature, tfds.features.Image):
        return _decode_encoded_image
    is_tensor = isinstance(feature, tfds.features.Tensor)
    if is_tensor and feature.np_dtype == np.uint8 and len(feature.shape) == 3:
        if feature.get_serialized_info().shape:
            return _DecodeNumbers(feature)
        return _DecodeBytes(feature)
    raise InputError(
        f"Data set {name!r} needs a feature `image`, TFDS's Image or uint8 Tensor of "
        f"[row, col, rgb], and has {feature}."
    )


def _decode_encoded_image(feature: Any) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(feature.bytes_list.value[0])) as image:
        pixels = np.array(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


class _DecodeNumbers:
    """Pixels stored as a list of integers."""

    def __init__(self, feature: Any):
        self._shape, self._dtype = feature.shape, feature.np_dtype

    def __call__(self, feature: Any) -> np.ndarray:
        numbers = np.array(feature.int64_list.value, self._dtype)
        return numbers.reshape(self._shape)


class _DecodeBytes:
    """Pixels stored as they are in memory, maybe compressed."""

    def __init__(self, feature: Any):
        self._feature = feature

    def __call__(self, feature: Any) -> np.ndarray:
        return self._feature.decode_example_np(feature.bytes_list.value[0])

"""The FID network: Inception-v3 as TensorFlow published it on 2015-12-05.

Differs from other Inception-v3 in its average pooling, which leaves padding out of the
mean, in a max pooling in the last block, and in its 1008 logits; compare scores of this
network alone with published ones. All in float32 at the highest matmul precision.
"""

from functools import lru_cache, partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt8

from dig_jax.files.paths import AnyPath
from dig_jax.interfaces import Params
from dig_jax.metrics.extraction import (
    FeatureExtractor,
    Features,
    FeatureSpace,
    ImageFeaturesFn,
)
from dig_jax.metrics.networks.inception_weights import (
    NUM_FEATURES,
    StateDict,
    fold_batch_norm,
    hash_weights,
    read_weights,
)
from dig_jax.options import Resize

# How images become the network's input; scores under one rule are not the other's.
# tf1: as the published graph, TTUR, the ADM evaluator and torch-fidelity: samples at
# i * in / out, no antialiasing, then (x - 128) / 128. torch: as pytorch-fid: samples at
# (i + 1/2) * in / out - 1/2, no antialiasing, then x / 127.5 - 1.

IMAGE_SIZE = 299
NUM_SPATIAL_CHANNELS = 7


def create_inception_extractor(
    *, weights: AnyPath, resize: Resize = "tf1"
) -> FeatureExtractor:
    """The network with the weights of a file.

    Raises:
        InputError: The file is missing or wrong; the message says how to get it.
    """
    return inception_extractor(read_weights(weights), resize)


def inception_extractor(weights: StateDict, resize: Resize = "tf1") -> FeatureExtractor:
    """The network with given weights."""
    space = FeatureSpace("inception", hash_weights(weights), resize, NUM_FEATURES)
    return FeatureExtractor(space, fold_batch_norm(weights), _image_features(resize))


@lru_cache
def _image_features(resize: Resize) -> ImageFeaturesFn:
    """The same function for the same rule, so that it compiles once."""

    def apply(params: Params, images: UInt8[Array, "batch row col rgb"]) -> Features:
        return inception_features(params, preprocess(images, resize))

    return apply


def preprocess(
    images: UInt8[Array, "batch row col rgb"], resize: Resize, size: int = IMAGE_SIZE
) -> Float32[Array, "batch size size 3"]:
    """Bilinear resize without antialiasing, then about [-1, 1]; grey becomes RGB.

    Every pixel of the output is between two of the input in each direction, also when
    the image shrinks: that is what the published scores were computed with.
    """
    x = images.astype(jnp.float32)
    x = _resize_axis(x, 2, size, resize)
    x = _resize_axis(x, 1, size, resize)
    x = jnp.broadcast_to(x, (*x.shape[:3], 3))
    return (x - 128) / 128 if resize == "tf1" else 2 * (x / 255) - 1


def _resize_axis(
    x: Float32[Array, "batch row col rgb"], axis: int, size: int, resize: Resize
) -> Float32[Array, "batch row2 col2 rgb"]:
    low, high, weight = _sample_places(x.shape[axis], size, resize)
    a, b = (jnp.take(x, i, axis, mode="clip") for i in (low, high))
    return a + (b - a) * np.expand_dims(weight, [i for i in range(4) if i != axis])


def _sample_places(
    length: int, size: int, resize: Resize
) -> tuple[
    Int[np.ndarray, "size"], Int[np.ndarray, "size"], Float32[np.ndarray, "size"]
]:
    """The two neighbours of each sample and the second one's weight.

    In float32, as both originals: where a place falls on a pixel, float64 may fall on
    the other side of it.
    """
    scale = np.float32(length) / np.float32(size)
    index = np.arange(size, dtype=np.float32)
    if resize == "tf1":
        place = index * scale
    else:
        half = np.float32(0.5)
        place = np.maximum((index + half) * scale - half, np.float32(0))
    low = np.minimum(place.astype(np.int32), length - 1)
    return low, np.minimum(low + 1, length - 1), place - low.astype(np.float32)


def inception_features(params: Params, x: Float[Array, "batch row col 3"]) -> Features:
    """The network itself, on preprocessed images of 299x299 (of 75x75 and more works).

    Returns:
        pool: The 2048 averages of the last block ("pool_3").
        logits: 1008, without the bias, whose softmax Inception score is defined by
            (TTUR, the ADM evaluator and torch-fidelity leave it out alike).
        spatial: First 7 channels of "mixed_6/conv", 17x17x7 = 2023 in row, col, channel
            order, as the ADM evaluator takes them for sFID (arXiv:2103.03841).
    """
    conv = partial(_conv, params)
    x = conv("Conv2d_1a_3x3", x, stride=2)
    x = conv("Conv2d_2a_3x3", x, padding="VALID")
    x = conv("Conv2d_2b_3x3", x)
    x = _max_pool(x)
    x = conv("Conv2d_3b_1x1", x)
    x = conv("Conv2d_4a_3x3", x, padding="VALID")
    x = _max_pool(x)  # [batch, 35, 35, 192]
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = _block_a(params, name, x)
    x = _block_b(params, "Mixed_6a", x)  # [batch, 17, 17, 768]
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d"):
        x = _block_c(params, name, x)
    spatial = x[..., :NUM_SPATIAL_CHANNELS]
    x = _block_c(params, "Mixed_6e", x)
    x = _block_d(params, "Mixed_7a", x)  # [batch, 8, 8, 1280]
    x = _block_e(params, "Mixed_7b", x, _average_pool)
    x = _block_e(params, "Mixed_7c", x, partial(_max_pool, stride=1, padding="SAME"))
    pool = jnp.mean(x, axis=(1, 2))
    logits = jnp.matmul(pool, params["fc"]["kernel"], precision="highest")
    return Features(pool, logits, spatial.reshape(len(x), -1))


def _conv(
    params: Params,
    name: str,
    x: Float[Array, "batch row col rgb"],
    *,
    stride: int = 1,
    padding: Literal["SAME", "VALID"] | None = None,
) -> Float[Array, "batch row2 col2 width"]:
    """Convolution, bias, ReLU; padded to the same size unless it strides."""
    x = jax.lax.conv_general_dilated(
        x,
        jnp.asarray(params[name]["kernel"]),
        window_strides=(stride, stride),
        padding=padding or ("SAME" if stride == 1 else "VALID"),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    return jax.nn.relu(x + params[name]["bias"])


def _max_pool(
    x: Float[Array, "batch row col width"],
    stride: int = 2,
    padding: Literal["SAME", "VALID"] = "VALID",
) -> Float[Array, "batch row2 col2 width"]:
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, stride, stride, 1), padding
    )


def _average_pool(
    x: Float[Array, "batch row col width"],
) -> Float[Array, "batch row col width"]:
    """Mean over the neighbours in 3x3 that are inside the image."""
    window = (1, 3, 3, 1)
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1, 1, 1, 1), "SAME")
    rows, cols = (_neighbours_inside(length) for length in x.shape[1:3])
    return total / (rows[:, None] * cols)[..., None]


def _neighbours_inside(length: int) -> Float32[np.ndarray, "length"]:
    place = np.arange(length, dtype=np.float32)
    return np.minimum(place + 1, length - 1) - np.maximum(place - 1, 0) + 1


def _block_a(
    params: Params, block: str, x: Float[Array, "batch row col width"]
) -> Float[Array, "batch row col width2"]:
    conv = partial(_in_block, params, block)
    five = conv("branch5x5_2", conv("branch5x5_1", x))
    three = conv("branch3x3dbl_2", conv("branch3x3dbl_1", x))
    three = conv("branch3x3dbl_3", three)
    pooled = conv("branch_pool", _average_pool(x))
    return jnp.concatenate([conv("branch1x1", x), five, three, pooled], axis=-1)


def _block_b(
    params: Params, block: str, x: Float[Array, "batch row col width"]
) -> Float[Array, "batch row2 col2 width2"]:
    conv = partial(_in_block, params, block)
    double = conv("branch3x3dbl_2", conv("branch3x3dbl_1", x))
    double = conv("branch3x3dbl_3", double, stride=2)
    three = conv("branch3x3", x, stride=2)
    return jnp.concatenate([three, double, _max_pool(x)], axis=-1)


def _block_c(
    params: Params, block: str, x: Float[Array, "batch row col width"]
) -> Float[Array, "batch row col width2"]:
    conv = partial(_in_block, params, block)
    seven = double = x
    for i in range(1, 4):
        seven = conv(f"branch7x7_{i}", seven)
    for i in range(1, 6):
        double = conv(f"branch7x7dbl_{i}", double)
    pooled = conv("branch_pool", _average_pool(x))
    return jnp.concatenate([conv("branch1x1", x), seven, double, pooled], axis=-1)


def _block_d(
    params: Params, block: str, x: Float[Array, "batch row col width"]
) -> Float[Array, "batch row2 col2 width2"]:
    conv = partial(_in_block, params, block)
    three = conv("branch3x3_2", conv("branch3x3_1", x), stride=2)
    seven = x
    for i in range(1, 4):
        seven = conv(f"branch7x7x3_{i}", seven)
    seven = conv("branch7x7x3_4", seven, stride=2)
    return jnp.concatenate([three, seven, _max_pool(x)], axis=-1)


def _block_e(
    params: Params, block: str, x: Float[Array, "batch row col width"], pool
) -> Float[Array, "batch row col width2"]:
    conv = partial(_in_block, params, block)
    three = conv("branch3x3_1", x)
    double = conv("branch3x3dbl_2", conv("branch3x3dbl_1", x))
    branches = [
        conv("branch1x1", x),
        conv("branch3x3_2a", three),
        conv("branch3x3_2b", three),
        conv("branch3x3dbl_3a", double),
        conv("branch3x3dbl_3b", double),
        conv("branch_pool", pool(x)),
    ]
    return jnp.concatenate(branches, axis=-1)


def _in_block(
    params: Params,
    block: str,
    branch: str,
    x: Float[Array, "batch row col width"],
    *,
    stride: int = 1,
) -> Float[Array, "batch row2 col2 width2"]:
    return _conv(params, f"{block}.{branch}", x, stride=stride)

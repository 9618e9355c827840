"""Features without Inception: a small classifier trained on the data set itself.

It takes less than three minutes of two CPU cores, is a function of the images, labels
and options alone, and is kept in a file. Scores with it carry the data set's name
(`fd_digits1k`): they compare with nothing but each other.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, Int, UInt8
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from safetensors.numpy import save

from dig_jax.errors import InputError
from dig_jax.files.paths import AnyPath, make_folder, write_whole
from dig_jax.files.tensors import read_tensors
from dig_jax.interfaces import LabelledImages, Params, UInt8Images
from dig_jax.metrics.extraction import FeatureExtractor, Features, FeatureSpace
from dig_jax.metrics.networks.inception_weights import hash_weights

TrainStep: TypeAlias = Callable[..., tuple[Params, Params]]
"""`(params, state, images, labels) -> (params, state)`."""

SCHEMA = 1
MAX_SIDE = 32
"""Larger images are folded into channels first: 2x2 pixels become one of four times."""

FINE_SIDE = 16
"""Larger ones begin with a convolution of half the width, for their fine detail."""

MIN_SIDE = 4
"""Blocks halve the image down to this."""


@dataclass(frozen=True)
class ClassifierOptions:
    """The classifier and its training.

    Attributes:
        widths: Channels of each 3x3 convolution; larger images have one more before
            (see FINE_SIDE).
        num_features: Width of the last hidden layer, the features.
        num_steps: Of AdamW, with a linear decay to 0, at least.
        num_epochs: Times that all images are gone through, at least: many images take
            more steps.
        batch_size: Images in a step.
        learning_rate: Of the first step.
        shift: Images are moved by up to so many pixels, at random, in training.
        seed: Of the initial weights, the order of images and the shifts.
    """

    widths: tuple[PositiveInt, ...] = (32, 64, 128)
    num_features: PositiveInt = 64
    num_steps: PositiveInt = 600
    num_epochs: NonNegativeInt = 6
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 2e-3
    shift: NonNegativeInt = 1
    seed: NonNegativeInt = 0

    def count_steps(self, num_images: int) -> int:
        """Training steps on so many images."""
        epochs = -(-self.num_epochs * num_images // self.batch_size)
        return max(self.num_steps, epochs)


def load_or_train_classifier(
    path: AnyPath,
    train: Callable[[], LabelledImages],
    *,
    num_images: int,
    dataset: str,
    fingerprint: str,
    options: ClassifierOptions | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> FeatureExtractor:
    """The classifier in a file, if trained on these images; else train and keep it.

    Args:
        path: The file, beside the data set.
        train: Gives the training images, where they are needed.
        num_images: How many those are.
        dataset: Name of the data set; names of scores carry it.
        fingerprint: Digest of the training images.
        options: The classifier and its training.
        on_progress: Called with the number of training steps done.

    Raises:
        InputError: The images have fewer than two labels, or the file cannot be
            written.
    """
    options = options or ClassifierOptions()
    description = json.dumps(
        {
            "schema": SCHEMA,
            "dataset": dataset,
            "fingerprint": fingerprint,
            "num_images": num_images,
            "options": asdict(options),
        },
        sort_keys=True,
    )
    weights = _read_classifier(path, description)
    if weights is None:
        weights = train_classifier(train(), options, on_progress)
        try:
            make_folder(path.parent)
            write_whole(path, save(weights, _metadata(weights, description)))
        except OSError as error:
            raise InputError(
                f"The classifier of {dataset} needs a place to be kept in, and {path} "
                f"cannot be written: {error}."
            ) from error
    return classifier_extractor(weights, dataset)


def classifier_extractor(
    weights: dict[str, np.ndarray], dataset: str
) -> FeatureExtractor:
    """The classifier with given weights."""
    dim = weights["hidden.kernel"].shape[1]
    space = FeatureSpace(
        "small_classifier", hash_weights(weights), "none", dim, domain=dataset
    )
    return FeatureExtractor(space, weights, _features)


def train_classifier(
    train: LabelledImages,
    options: ClassifierOptions,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Train on labelled images with cross entropy; the same weights for the same seed.

    Raises:
        InputError: There are fewer than two labels, or labels below 0.
    """
    classes = np.unique(train.labels)
    if len(classes) < 2 or classes[0] < 0:
        raise InputError(
            "A classifier needs training images with at least two labels, counted from "
            f"0, got {', '.join(map(str, classes[:5])) or 'none'}. Without labels, use "
            "Inception's features or frechet_pixels."
        )
    rng = np.random.default_rng(options.seed)
    shape = train.images.shape[1:]
    params: Params = init_classifier(rng, shape, int(classes[-1]) + 1, options)
    num_steps = options.count_steps(len(train.images))
    optimizer, step = _training(options.learning_rate, num_steps)
    state = optimizer.init(params)
    order = np.empty(0, np.int64)
    for number in range(num_steps):
        while len(order) < options.batch_size:
            order = np.concatenate([order, rng.permutation(len(train.images))])
        index, order = np.split(order, [options.batch_size])
        images = _shift(rng, train.images[index], options.shift)
        params, state = step(params, state, images, train.labels[index])
        if on_progress is not None:
            on_progress(number + 1)
    weights = {name: np.asarray(value) for name, value in params.items()}
    return weights | {"deviation": _feature_deviation(params, train.images)}


def init_classifier(
    rng: np.random.Generator,
    image_shape: tuple[int, ...],
    num_classes: int,
    options: ClassifierOptions,
) -> dict[str, np.ndarray]:
    """Random parameters by name: kernels with variance 2 / fan_in, biases of 0."""
    shapes: dict[str, tuple[int, ...]] = {}
    x = jax.eval_shape(_fold, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    side, width = x.shape[1:3], x.shape[3]
    fine = [-(-options.widths[0] // 2)] if min(side) > FINE_SIDE else []
    for i, next_width in enumerate([*fine, *options.widths]):
        shapes[f"conv{i}"] = (3, 3, width, next_width)
        width = next_width
        if min(side) > MIN_SIDE:
            side = -(-side[0] // 2), -(-side[1] // 2)
    shapes["hidden"] = (side[0] * side[1] * width, options.num_features)
    shapes["logits"] = (options.num_features, num_classes)
    params: dict[str, np.ndarray] = {"deviation": np.ones((), np.float32)}
    for name, shape in shapes.items():
        std = np.float32(np.sqrt(2 / np.prod(shape[:-1])))
        params[f"{name}.kernel"] = std * rng.standard_normal(shape, np.float32)
        params[f"{name}.bias"] = np.zeros(shape[-1], np.float32)
    return params


def _feature_deviation(params: Params, images: UInt8Images) -> Float32[np.ndarray, ""]:
    """Root of the features' mean variance over at most 10,000 images.

    Divided by it, features have variance 1 on average: distances do not depend on the
    scale that training happened to end at.
    """
    index = np.linspace(0, len(images) - 1, min(len(images), 10_000)).astype(int)
    apply = jax.jit(_features)
    features = [
        np.asarray(apply(params, images[index[i : i + 500]]).pool, np.float64)
        for i in range(0, len(index), 500)
    ]
    variance = np.concatenate(features).var(axis=0).mean()
    return np.asarray(np.sqrt(variance), np.float32)


def _features(params: Params, images: UInt8[Array, "batch row col rgb"]) -> Features:
    return _classify(params, images.astype(jnp.float32) / 127.5 - 1)


def _classify(params: Params, x: Float[Array, "batch row col rgb"]) -> Features:
    """Convolutions, each with GELU and 2x2 max pooling, and a hidden layer."""
    x = _fold(x)
    for i in range(sum(name.endswith("kernel") for name in params) - 2):
        x = jax.lax.conv_general_dilated(
            x,
            jnp.asarray(params[f"conv{i}.kernel"]),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
        x = jax.nn.gelu(x + params[f"conv{i}.bias"])
        if min(x.shape[1:3]) > MIN_SIDE:
            window = (1, 2, 2, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "SAME")
    hidden = _linear(params, "hidden", x.reshape(len(x), -1))
    logits = _linear(params, "logits", jax.nn.gelu(hidden))
    return Features(hidden / params["deviation"], logits)


def _linear(
    params: Params, name: str, x: Float[Array, "batch width"]
) -> Float[Array, "batch width2"]:
    kernel, bias = params[f"{name}.kernel"], params[f"{name}.bias"]
    return jnp.matmul(x, kernel, precision="highest") + bias


def _fold(
    x: Float[Array, "batch row col rgb"],
) -> Float[Array, "batch row2 col2 width"]:
    """2x2 pixels into one until small; an odd side's last row or column is lost."""
    while min(x.shape[1:3]) > MAX_SIDE:
        rows, cols = x.shape[1] // 2, x.shape[2] // 2
        x = x[:, : 2 * rows, : 2 * cols].reshape(len(x), rows, 2, cols, 2, -1)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(len(x), rows, cols, -1)
    return x


@lru_cache(maxsize=2)
def _training(
    learning_rate: float, num_steps: int
) -> tuple[optax.GradientTransformation, TrainStep]:
    schedule = optax.linear_schedule(learning_rate, 0.0, num_steps)
    optimizer = optax.adamw(schedule, weight_decay=1e-3)

    def step(
        params: Params,
        state: Params,
        images: UInt8[Array, "batch row col rgb"],
        labels: Int[Array, "batch"],
    ) -> tuple[Params, Params]:
        def loss(params: Params) -> Float[Array, ""]:
            logits = _features(params, images).logits
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, labels
            ).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    return optimizer, jax.jit(step)


def _shift(rng: np.random.Generator, images: UInt8Images, most: int) -> UInt8Images:
    """Each image moved by up to `most` pixels; its edge is repeated behind it."""
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), "edge")
    row, col = rng.integers(0, 2 * most + 1, (2, len(images), 1))
    rows = (row + np.arange(images.shape[1]))[:, :, None]
    cols = (col + np.arange(images.shape[2]))[:, None, :]
    return padded[np.arange(len(images))[:, None, None], rows, cols]


def _read_classifier(path: AnyPath, description: str) -> dict[str, np.ndarray] | None:
    """Weights of the file; None if it is missing, damaged, or of another training."""
    if not path.is_file():
        return None
    try:
        weights, metadata = read_tensors(path)
    except InputError:
        return None
    return weights if metadata == _metadata(weights, description) else None


def _metadata(weights: dict[str, np.ndarray], description: str) -> dict[str, str]:
    """In one entry, because safetensors orders several at random."""
    return {"classifier": f"{description} weights {hash_weights(weights)}"}

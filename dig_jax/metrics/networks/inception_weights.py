"""Weights of the FID Inception-v3: their names and shapes, their file, random ones.

The file is safetensors with the names and shapes of pytorch-fid's state dict (without
`num_batches_tracked`), all float32: for each of the 94 convolutions `NAME.conv.weight`
[out, in, row, col] and `NAME.bn.{weight,bias,running_mean,running_var}` [out], and
`fc.weight` [1008, 2048], `fc.bias` [1008]. `python -m dig_jax.metrics.convert` makes it
from the published files.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32
from safetensors.numpy import save

from dig_jax.errors import InputError
from dig_jax.files.paths import AnyPath, write_whole
from dig_jax.files.reading import parse_object, readable
from dig_jax.files.shown import printable
from dig_jax.files.tensors import WHAT, Declared, read_tensors
from dig_jax.interfaces import Params

BATCH_NORM_EPSILON = 1e-3
NUM_FEATURES = 2048
NUM_LOGITS = 1008

StateDict: TypeAlias = dict[str, Float32[np.ndarray, "..."]]
"""Tensors of the weights' file by name."""

ConvShape: TypeAlias = tuple[int, int, int, int]
"""[out, in, row, col]."""

_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")

HOW_TO_GET_WEIGHTS = (
    "Download pt_inception-2015-12-05-6726825d.pth (the release fid_weights of "
    "pytorch-fid) or classify_image_graph_def.pb (inception-2015-12-05.tgz of "
    "TensorFlow), and convert it once: python -m dig_jax.metrics.convert SOURCE "
    "--output=inception.safetensors"
)


def conv_shapes() -> dict[str, ConvShape]:
    """Every convolution's name and kernel shape, in the order of the network."""
    shapes: dict[str, ConvShape] = {
        "Conv2d_1a_3x3": (32, 3, 3, 3),
        "Conv2d_2a_3x3": (32, 32, 3, 3),
        "Conv2d_2b_3x3": (64, 32, 3, 3),
        "Conv2d_3b_1x1": (80, 64, 1, 1),
        "Conv2d_4a_3x3": (192, 80, 3, 3),
    }
    blocks = {
        "Mixed_5b": _block_a(192, 32),
        "Mixed_5c": _block_a(256, 64),
        "Mixed_5d": _block_a(288, 64),
        "Mixed_6a": _block_b(288),
        "Mixed_6b": _block_c(768, 128),
        "Mixed_6c": _block_c(768, 160),
        "Mixed_6d": _block_c(768, 160),
        "Mixed_6e": _block_c(768, 192),
        "Mixed_7a": _block_d(768),
        "Mixed_7b": _block_e(1280),
        "Mixed_7c": _block_e(2048),
    }
    for block, branches in blocks.items():
        shapes |= {f"{block}.{name}": shape for name, shape in branches.items()}
    return shapes


def _block_a(inputs: int, pooled: int) -> dict[str, ConvShape]:
    return {
        "branch1x1": (64, inputs, 1, 1),
        "branch5x5_1": (48, inputs, 1, 1),
        "branch5x5_2": (64, 48, 5, 5),
        "branch3x3dbl_1": (64, inputs, 1, 1),
        "branch3x3dbl_2": (96, 64, 3, 3),
        "branch3x3dbl_3": (96, 96, 3, 3),
        "branch_pool": (pooled, inputs, 1, 1),
    }


def _block_b(inputs: int) -> dict[str, ConvShape]:
    return {
        "branch3x3": (384, inputs, 3, 3),
        "branch3x3dbl_1": (64, inputs, 1, 1),
        "branch3x3dbl_2": (96, 64, 3, 3),
        "branch3x3dbl_3": (96, 96, 3, 3),
    }


def _block_c(inputs: int, width: int) -> dict[str, ConvShape]:
    return {
        "branch1x1": (192, inputs, 1, 1),
        "branch7x7_1": (width, inputs, 1, 1),
        "branch7x7_2": (width, width, 1, 7),
        "branch7x7_3": (192, width, 7, 1),
        "branch7x7dbl_1": (width, inputs, 1, 1),
        "branch7x7dbl_2": (width, width, 7, 1),
        "branch7x7dbl_3": (width, width, 1, 7),
        "branch7x7dbl_4": (width, width, 7, 1),
        "branch7x7dbl_5": (192, width, 1, 7),
        "branch_pool": (192, inputs, 1, 1),
    }


def _block_d(inputs: int) -> dict[str, ConvShape]:
    return {
        "branch3x3_1": (192, inputs, 1, 1),
        "branch3x3_2": (320, 192, 3, 3),
        "branch7x7x3_1": (192, inputs, 1, 1),
        "branch7x7x3_2": (192, 192, 1, 7),
        "branch7x7x3_3": (192, 192, 7, 1),
        "branch7x7x3_4": (192, 192, 3, 3),
    }


def _block_e(inputs: int) -> dict[str, ConvShape]:
    return {
        "branch1x1": (320, inputs, 1, 1),
        "branch3x3_1": (384, inputs, 1, 1),
        "branch3x3_2a": (384, 384, 1, 3),
        "branch3x3_2b": (384, 384, 3, 1),
        "branch3x3dbl_1": (448, inputs, 1, 1),
        "branch3x3dbl_2": (384, 448, 3, 3),
        "branch3x3dbl_3a": (384, 384, 1, 3),
        "branch3x3dbl_3b": (384, 384, 3, 1),
        "branch_pool": (192, inputs, 1, 1),
    }


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the weights' file."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in conv_shapes().items():
        shapes[f"{name}.conv.weight"] = shape
        shapes |= {f"{name}.bn.{part}": shape[:1] for part in _BATCH_NORM}
    return shapes | {
        "fc.weight": (NUM_LOGITS, NUM_FEATURES),
        "fc.bias": (NUM_LOGITS,),
    }


def check_weights(weights: StateDict, source: str) -> StateDict:
    """The weights, if they are the network's.

    Raises:
        InputError: A name is missing or unknown, or a tensor has another shape, or
            values that are not finite; `source` is what the message calls them.
    """
    _check_names({name: values.shape for name, values in weights.items()}, source)
    bad = [name for name in weights if not np.isfinite(weights[name]).all()]
    _refuse("has values that are not finite in", bad, source)
    return weights


def _check_names(shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Raise InputError unless these are the names and shapes of the network."""
    expected = tensor_shapes()
    _refuse("lacks", sorted(expected.keys() - shapes.keys()), source)
    _refuse("has unknown", sorted(shapes.keys() - expected.keys()), source)
    other = [name for name in expected if shapes[name] != expected[name]]
    _refuse("has another shape for", other, source)


def _refuse(what: str, names: list[str], source: str) -> None:
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise InputError(
            f"{source} holds no weights of the FID Inception-v3: it {what} "
            f"{printable(names[0])[:80]}{more}."
        )


def read_weights(path: AnyPath) -> StateDict:
    """Read the weights' file.

    Raises:
        InputError: There is no such file, or it is not one that `write_weights` wrote.
    """
    if not path.is_file():
        raise InputError(
            f"Inception features need the network's weights, got no file {path}. "
            f"{HOW_TO_GET_WEIGHTS}"
        )

    def check(declared: Mapping[str, Declared], _: Mapping[str, str]) -> None:
        shapes = {name: one.shape for name, one in declared.items()}
        if any(one.dtype != np.float32 for one in declared.values()):
            raise InputError(f"{path} must hold float32 alone. {HOW_TO_GET_WEIGHTS}")
        _check_names(shapes, str(path))

    weights, metadata = read_tensors(path, check, HOW_TO_GET_WEIGHTS)
    with readable(path, WHAT, HOW_TO_GET_WEIGHTS):
        described = parse_object(metadata.get("provenance", "{}").encode())
        if described.get("weights_hash") not in (None, hash_weights(weights)):
            raise ValueError("its values are not those that were written")
    return check_weights(weights, str(path))


def write_weights(path: AnyPath, weights: StateDict, metadata: dict[str, str]) -> None:
    """Write the weights' file, whole or not at all."""
    tensors = {name: np.ascontiguousarray(weights[name]) for name in sorted(weights)}
    described = {**metadata, "weights_hash": hash_weights(weights)}
    # One entry, because safetensors orders several at random.
    metadata = {"provenance": json.dumps(described)}
    # safetensors' own writer makes a file that nobody else may read.
    write_whole(path, save(tensors, metadata))


def hash_weights(weights: StateDict) -> str:
    """Hex digest of names, shapes and values; the same whatever file they came from."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = np.ascontiguousarray(weights[name], "<f4")
        digest.update(f"{name} {values.shape};".encode())
        digest.update(values.data)
    return digest.hexdigest()[:16]


def fold_batch_norm(weights: StateDict) -> Params:
    """Parameters of the network: each batch normalization folded into its convolution.

    `{NAME: {"kernel": [row, col, in, out], "bias": [out]}, "fc": {"kernel": [2048,
    1008]}}`. The last layer's bias is left out: Inception score is defined without it.
    """
    params = {}
    for name in conv_shapes():
        gamma, beta, mean, var = (
            weights[f"{name}.bn.{part}"].astype(np.float64) for part in _BATCH_NORM
        )
        scale = gamma / np.sqrt(var + BATCH_NORM_EPSILON)
        kernel = weights[f"{name}.conv.weight"].transpose(2, 3, 1, 0) * scale
        params[name] = {
            "kernel": kernel.astype(np.float32),
            "bias": (beta - mean * scale).astype(np.float32),
        }
    params["fc"] = {"kernel": np.ascontiguousarray(weights["fc.weight"].T)}
    return params


def random_weights(seed: int) -> StateDict:
    """Weights that keep activations of order one: a network for tests, not for scores.

    Kernels are normal with variance 2 / fan_in, batch statistics are not trivial.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in tensor_shapes().items():
        if name.endswith(("conv.weight", "fc.weight")):
            fan_in = np.prod(shape[1:])
            values = rng.standard_normal(shape, np.float32) * np.sqrt(2 / fan_in)
        elif name.endswith(("bn.weight", "running_var")):
            values = rng.uniform(0.8, 1.25, shape)
        else:
            values = rng.uniform(-0.1, 0.1, shape)
        weights[name] = values.astype(np.float32)
    return weights

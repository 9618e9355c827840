"""Make the file of Inception weights that dig_jax reads from the published ones.

    python -m dig_jax.metrics.convert SOURCE --output=inception.safetensors

SOURCE is pytorch-fid's pt_inception-2015-12-05-6726825d.pth (needs torch: pip install
torch) or TensorFlow's classify_image_graph_def.pb (needs nothing more). Both
hold the same network, and should give the same hash of weights.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np

from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from dig_jax.files.reading import readable
from dig_jax.files.shown import printable, say
from dig_jax.metrics.networks.graph_def import Node, read_graph
from dig_jax.metrics.networks.inception_weights import (
    BATCH_NORM_EPSILON,
    HOW_TO_GET_WEIGHTS,
    StateDict,
    check_weights,
    conv_shapes,
    hash_weights,
    write_weights,
)

PUBLISHED_SHA256 = "6726825d"
"""What the digest of pytorch-fid's file begins with, as its name says."""

# The TensorFlow graph's scope of each convolution: of the stem, and in each block.
_STEM = {
    "Conv2d_1a_3x3": "conv",
    "Conv2d_2a_3x3": "conv_1",
    "Conv2d_2b_3x3": "conv_2",
    "Conv2d_3b_1x1": "conv_3",
    "Conv2d_4a_3x3": "conv_4",
}
_BLOCK_A = {
    "branch1x1": "conv",
    "branch5x5_1": "tower/conv",
    "branch5x5_2": "tower/conv_1",
    "branch3x3dbl_1": "tower_1/conv",
    "branch3x3dbl_2": "tower_1/conv_1",
    "branch3x3dbl_3": "tower_1/conv_2",
    "branch_pool": "tower_2/conv",
}
_BLOCK_B = {
    "branch3x3": "conv",
    "branch3x3dbl_1": "tower/conv",
    "branch3x3dbl_2": "tower/conv_1",
    "branch3x3dbl_3": "tower/conv_2",
}
_BLOCK_C = {
    "branch1x1": "conv",
    "branch7x7_1": "tower/conv",
    "branch7x7_2": "tower/conv_1",
    "branch7x7_3": "tower/conv_2",
    "branch7x7dbl_1": "tower_1/conv",
    "branch7x7dbl_2": "tower_1/conv_1",
    "branch7x7dbl_3": "tower_1/conv_2",
    "branch7x7dbl_4": "tower_1/conv_3",
    "branch7x7dbl_5": "tower_1/conv_4",
    "branch_pool": "tower_2/conv",
}
_BLOCK_D = {
    "branch3x3_1": "tower/conv",
    "branch3x3_2": "tower/conv_1",
    "branch7x7x3_1": "tower_1/conv",
    "branch7x7x3_2": "tower_1/conv_1",
    "branch7x7x3_3": "tower_1/conv_2",
    "branch7x7x3_4": "tower_1/conv_3",
}
_BLOCK_E = {
    "branch1x1": "conv",
    "branch3x3_1": "tower/conv",
    "branch3x3_2a": "tower/mixed/conv",
    "branch3x3_2b": "tower/mixed/conv_1",
    "branch3x3dbl_1": "tower_1/conv",
    "branch3x3dbl_2": "tower_1/conv_1",
    "branch3x3dbl_3a": "tower_1/mixed/conv",
    "branch3x3dbl_3b": "tower_1/mixed/conv_1",
    "branch_pool": "tower_2/conv",
}
_BLOCKS = {
    "Mixed_5b": ("mixed", _BLOCK_A),
    "Mixed_5c": ("mixed_1", _BLOCK_A),
    "Mixed_5d": ("mixed_2", _BLOCK_A),
    "Mixed_6a": ("mixed_3", _BLOCK_B),
    "Mixed_6b": ("mixed_4", _BLOCK_C),
    "Mixed_6c": ("mixed_5", _BLOCK_C),
    "Mixed_6d": ("mixed_6", _BLOCK_C),
    "Mixed_6e": ("mixed_7", _BLOCK_C),
    "Mixed_7a": ("mixed_8", _BLOCK_D),
    "Mixed_7b": ("mixed_9", _BLOCK_E),
    "Mixed_7c": ("mixed_10", _BLOCK_E),
}


def tensorflow_scope(name: str) -> str:
    """The scope of a convolution in classify_image_graph_def.pb."""
    if name in _STEM:
        return _STEM[name]
    block, branch = name.split(".")
    scope, branches = _BLOCKS[block]
    return f"{scope}/{branches[branch]}"


def read_tensorflow_graph(path: Path) -> StateDict:
    """Weights of classify_image_graph_def.pb.

    Raises:
        InputError: The file is another graph.
    """
    with readable(path, "is no TensorFlow graph", HOW_TO_GET_WEIGHTS):
        nodes = read_graph(path.read_bytes())
    weights: StateDict = {}
    for name in conv_shapes():
        scope = tensorflow_scope(name)
        kernel = _constant(nodes, f"{scope}/conv2d_params", path)
        weights[f"{name}.conv.weight"] = kernel.transpose(3, 2, 0, 1)
        for theirs, ours in {
            "gamma": "weight",
            "beta": "bias",
            "moving_mean": "running_mean",
            "moving_variance": "running_var",
        }.items():
            values = _constant(nodes, f"{scope}/batchnorm/{theirs}", path)
            weights[f"{name}.bn.{ours}"] = values
        _apply_batch_norm_flags(nodes.get(f"{scope}/batchnorm"), name, weights)
    weights["fc.weight"] = _constant(nodes, "softmax/weights", path).T
    weights["fc.bias"] = _constant(nodes, "softmax/biases", path)
    return weights


def _constant(nodes: dict[str, Node], name: str, path: Path) -> np.ndarray:
    value = nodes[name].attributes.get("value") if name in nodes else None
    if not isinstance(value, np.ndarray):
        raise InputError(
            f"{path} is not the Inception graph of 2015-12-05: it has no float32 "
            f"constant {name!r}. {HOW_TO_GET_WEIGHTS}"
        )
    return value


def _apply_batch_norm_flags(node: Node | None, name: str, weights: StateDict) -> None:
    """The graph may leave gamma unused, or have another epsilon."""
    if node is None:
        return
    if node.attributes.get("scale_after_normalization") is False:
        weights[f"{name}.bn.weight"] = np.ones_like(weights[f"{name}.bn.weight"])
    epsilon = node.attributes.get("variance_epsilon", BATCH_NORM_EPSILON)
    if not np.isclose(epsilon, BATCH_NORM_EPSILON):
        raise InputError(
            f"The FID network normalizes with epsilon {BATCH_NORM_EPSILON}, got "
            f"{epsilon} for {name}."
        )


def read_torch_weights(path: Path) -> StateDict:
    """Weights of a state dict that torch saved, without running code from the file.

    Raises:
        InputError: torch is missing, or the file is no such state dict.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError as error:
        raise InputError(
            "Reading a .pth file needs torch (pip install torch); "
            "classify_image_graph_def.pb of TensorFlow needs nothing more."
        ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {
            name: tensor.float().numpy()
            for name, tensor in state.items()
            if not name.endswith("num_batches_tracked")
        }
    except Exception as error:  # pickle, zip and torch have errors of their own
        summary = printable(str(error).strip().split("\n")[0])
        raise InputError(f"{path} is no state dict of torch: {summary}") from error


def convert(source: Path, output: Path) -> str:
    """Write the weights of a published file as safetensors; returns their hash.

    Raises:
        InputError: The source is missing, of another kind, or another network's.
    """
    if not source.is_file():
        raise InputError(f"There is no file {source}. {HOW_TO_GET_WEIGHTS}")
    if source.suffix in (".pth", ".pt"):
        weights = read_torch_weights(source)
    elif source.suffix == ".pb":
        weights = read_tensorflow_graph(source)
    else:
        raise InputError(
            f"Weights come from a .pth, .pt or .pb file, got {source}. "
            f"{HOW_TO_GET_WEIGHTS}"
        )
    check_weights(weights, str(source))
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    metadata = {
        "network": "FID Inception-v3 of 2015-12-05",
        "source": source.name,
        "source_sha256": digest,
    }
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_weights(output, weights, metadata)
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error}.") from error
    if source.suffix != ".pb" and not digest.startswith(PUBLISHED_SHA256):
        say(
            f"Note: {source.name} is not pytorch-fid's published file (sha256 "
            f"{digest[:8]}..., not {PUBLISHED_SHA256}...): scores with it compare with "
            "each other alone."
        )
    return hash_weights(weights)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="the .pth or .pb file")
    parser.add_argument("--output", type=Path, default=Path("inception.safetensors"))
    options = parser.parse_args(arguments)
    try:
        weights_hash = convert(options.source, options.output)
    except (InputError, OSError) as error:  # a full disk
        say(error, error=True)
        return EXIT_BAD_INPUT
    say(f"Wrote {options.output} (weights {weights_hash}).")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())

"""The file of an autoencoder: its parameters and size, as safetensors."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np
import pydantic
from safetensors.numpy import save_file

from dig_jax.errors import InputError
from dig_jax.files.reading import readable
from dig_jax.files.tensors import Declared, digest_of_arrays, read_tensors
from dig_jax.interfaces import Params
from dig_jax.models.autoencoder import (
    SCALE,
    Autoencoder,
    AutoencoderOptions,
    create_autoencoder,
)
from dig_jax.storage.checkpoint_record import unflatten
from dig_jax.storage.fingerprint import named_leaves

FORMAT = "dig_jax autoencoder 1"
DIGEST = "arrays_sha256"
"""What the checksum of the arrays is called; older files have none."""


def write_autoencoder(
    path: Path, autoencoder: Autoencoder, params: Params, source: Mapping[str, str]
) -> None:
    """Write an autoencoder.

    Args:
        path: A file that ends in .safetensors.
        autoencoder: Whose size is kept.
        params: Its parameters.
        source: What is known of where they are from; kept as text.

    Raises:
        InputError: The file cannot be written.
    """
    if path.suffix != ".safetensors":
        raise InputError(f"An autoencoder's file ends in .safetensors, got {path}.")
    options = json.dumps(asdict(autoencoder.options))
    arrays = {
        name: np.ascontiguousarray(leaf, np.float32)
        for name, leaf in named_leaves(params).items()
    }
    described = {"format": FORMAT, "options": options}
    metadata = {**source, **described, DIGEST: digest_of_arrays(arrays)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(arrays, path, metadata)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}.") from error


def read_autoencoder_file(
    path: Path, *, scale: float = SCALE
) -> tuple[Autoencoder, Params]:
    """An autoencoder and its parameters, as NumPy arrays.

    Args:
        path: The file.
        scale: What latents are multiplied by.

    Raises:
        InputError: No such file, a damaged one, or one of another kind.
    """
    to = shlex.quote(f"--to={path}")
    make = f"python -m dig_jax.interop.convert --from=FILE --autoencoder {to}"
    if not path.is_file():
        raise InputError(f"There is no autoencoder {path}. Make it with `{make}`.")
    advice, found = f"Make it with `{make}`.", {}

    def check(declared: Mapping[str, Declared], metadata: Mapping[str, str]) -> None:
        if metadata.get("format") != FORMAT:
            raise InputError(f"{path} is no autoencoder of dig_jax. {advice}")
        with readable(path, "does not say its size", advice, (Exception,)):
            kind = pydantic.TypeAdapter(AutoencoderOptions)
            options = kind.validate_json(metadata["options"])
            autoencoder = create_autoencoder(options, scale=scale)
            abstract = jax.eval_shape(autoencoder.init, jax.random.key(0))
        wanted = {name: leaf.shape for name, leaf in named_leaves(abstract).items()}
        there = {name: one.shape for name, one in declared.items()}
        kinds = {one.dtype for one in declared.values()}
        if wanted != there or kinds != {np.dtype(np.float32)}:
            raise InputError(
                f"{path} does not hold the arrays of the size that it names."
            )
        found.update(autoencoder=autoencoder, abstract=abstract)

    arrays, metadata = read_tensors(path, check, advice)
    if metadata.get(DIGEST) not in (None, digest_of_arrays(arrays)):
        raise InputError(
            f"{path} is damaged: its arrays are not those that were written. {advice}"
        )
    return found["autoencoder"], unflatten(arrays, found["abstract"])


def weights_digest(params: Params) -> str:
    """16 hex digits of weights, on whatever machine.

    Those of an autoencoder's encoder decide what latents are: autoencoders of different
    decoders may share them, as Stable Diffusion's do.
    """
    digest = hashlib.sha256()
    for name, leaf in sorted(named_leaves(params).items()):
        digest.update(name.encode() + np.ascontiguousarray(leaf, np.float32).tobytes())
    return digest.hexdigest()[:16]

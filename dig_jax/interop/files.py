"""State dicts in files: safetensors, and what torch saves. No code in a file is run."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from dig_jax.errors import InputError
from dig_jax.files.shown import printable
from dig_jax.files.tensors import read_tensors

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
NESTED = ("ema", "state_dict")
"""Entries of a training checkpoint that hold its averaged or only state dict."""


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a file by its name; floating-point ones as float32.

    Raises:
        InputError: No such file, one of another kind, one cut short, or one that would
            need code to be run.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    if path.suffix == ".safetensors":
        state = _read_safetensors(path)
    elif path.suffix in TORCH_SUFFIXES:
        state = _read_torch(path)
    else:
        raise InputError(
            f"Weights come from a file that ends in {', '.join(SUFFIXES)}, got {path}."
        )
    if not state:
        raise InputError(f"{path} holds no tensors.")
    return state


def write_state_dict(path: Path, state: Mapping[str, np.ndarray]) -> None:
    """Write tensors as safetensors, or as torch saves a state dict.

    Raises:
        InputError: A file of another kind, or one that cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"Weights go into a file that ends in {', '.join(SUFFIXES)}, got {path}."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            save_file(dict(state), path)
        else:
            torch = _import_torch()
            tensors = {name: torch.from_numpy(x.copy()) for name, x in state.items()}
            torch.save(tensors, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}.") from error


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    state = read_tensors(path, advice="Download it again?").arrays
    return {
        name: x.astype(np.float32) if _is_floating(x) else x
        for name, x in state.items()
    }


def _is_floating(array: np.ndarray) -> bool:
    # bfloat16 is no kind of NumPy's own.
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    torch = _import_torch()
    try:
        whole = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch have errors of their own
        said = printable(str(error).strip().split("\n")[0])
        raise InputError(
            f"{path} is no whole state dict of torch, or would run code: {said}"
        ) from error
    for name in NESTED:
        if isinstance(whole, Mapping) and isinstance(whole.get(name), Mapping):
            whole = whole[name]
    if not isinstance(whole, Mapping):
        raise InputError(
            f"{path} must hold a state dict, tensors by name, got "
            f"{type(whole).__name__}."
        )
    others = [name for name, x in whole.items() if not isinstance(x, torch.Tensor)]
    if others:
        raise InputError(
            f"{path} must hold a state dict, tensors by name; {others[0]!r} is "
            f"{type(whole[others[0]]).__name__}."
        )
    return {
        name: (x.float() if x.is_floating_point() else x).numpy()
        for name, x in whole.items()
    }


def _import_torch() -> Any:
    try:
        import torch  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError as error:
        raise InputError(
            f"Files that end in {', '.join(TORCH_SUFFIXES)} need torch (pip install "
            f"torch); .safetensors needs nothing more."
        ) from error
    return torch

"""Safetensors files: read as safetensors reads them, or refused in a line."""

import json
import struct
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from dig_jax.errors import InputError
from dig_jax.files.tensors import read_tensors


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "bfloat16", "int8", "uint64", "bool", "int32"]
)
def test_what_safetensors_writes_comes_back(path, dtype, rng):
    values = np.asarray(rng.uniform(0, 9, (3, 4)), jnp.dtype(dtype))
    arrays = {"b": values, "a": np.zeros((0, 2), np.float32), "c": values[0, 0]}
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    path.write_bytes(save(arrays, {"made": "here"}))
    found, metadata = read_tensors(path)
    assert metadata == {"made": "here"}
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def write(path, header, content=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    start = struct.pack("<Q", len(text) if length is None else length)
    path.write_bytes(start + text + content)


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    "header",
    [
        entry("F4", (4,)),
        {"w": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}},
        entry(shape=(2**40,), offsets=(0, 2**42)),
        entry(shape=(True, 2)),
        entry(shape=(-2,)),
        entry(shape=3),
        entry(offsets=(0, 16)),
        entry(offsets=(4, 12)),
        entry(offsets=(0,)),
        entry(shape=(2,) + (1,) * 60),
        {"w": 3},
        {"__metadata__": {"a": 1}, **entry()},
        {"__metadata__": [], **entry()},
        [1],
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=lambda header: str(header)[:60],
)
def test_what_is_declared_wrongly_is_refused_before_it_is_read(path, header):
    write(path, header, bytes(8))
    with pytest.raises(InputError, match=r"weights\.safetensors is no whole file"):
        read_tensors(path)


def test_a_long_header_takes_no_memory(path):
    write(path, b"{", length=2**33)
    with path.open("r+b") as file:
        file.truncate(2**34)  # sparse
    tracemalloc.start()
    with pytest.raises(InputError, match="its header is of 8589934592 bytes"):
        read_tensors(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_reader_says_what_it_needs_before_arrays_are_read(path):
    save_to = {"large": np.zeros(2**22, np.float32)}
    path.write_bytes(save(save_to))

    def check(declared, metadata):
        assert str(declared["large"]) == "float32[4194304]"
        raise InputError("not these")

    tracemalloc.start()
    with pytest.raises(InputError, match="not these"):
        read_tensors(path, check)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()

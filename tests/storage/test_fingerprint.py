"""Fingerprints are exact, see every bit and every move, and do not see the sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.storage import fingerprint
from dig_jax.storage.fingerprint import fingerprints, named_leaves

DTYPES = ["float32", "bfloat16", "float16", "int32", "uint32", "uint8", "bool"]


@pytest.fixture(params=["small", "large"], autouse=True)
def size(request, monkeypatch):
    """Every test, of what is summed where Python runs and of what devices sum."""
    if request.param == "large":
        monkeypatch.setattr(fingerprint, "SMALL_BYTES", 0)


def numpy_fingerprint(x):
    """The definition, in Python's integers where it matters."""
    x = np.asarray(x)
    bits = x.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[x.dtype.itemsize])
    words = bits.astype(np.uint64).ravel()
    h = np.arange(words.size, dtype=np.uint64) * 0x9E3779B1 % 2**32
    h = (h ^ (h >> 15)) * 0x85EBCA77 % 2**32
    h = (h ^ (h >> 13)) | 1
    return [int(words.sum() % 2**32), int((words * h % 2**32).sum() % 2**32)]


def random_array(rng, dtype, shape):
    if dtype == "bool":
        return jnp.asarray(rng.integers(0, 2, shape), bool)
    raw = rng.bytes(int(np.prod(shape)) * jnp.dtype(dtype).itemsize)
    return jnp.asarray(np.frombuffer(raw, jnp.dtype(dtype)).reshape(shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (7,), (3, 1, 5, 2)])
def test_fingerprint_equals_its_definition_in_numpy(dtype, shape):
    x = random_array(np.random.default_rng(0), dtype, shape)
    assert fingerprints({"x": x}) == {"x": numpy_fingerprint(x)}


def test_fingerprint_of_typed_keys_is_that_of_their_data():
    keys = jax.random.split(jax.random.key(3), 4)
    data = jax.random.key_data(keys)
    assert fingerprints({"k": keys}) == {"k": numpy_fingerprint(data)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
def test_each_flipped_bit_changes_both_sums(dtype):
    rng = np.random.default_rng(1)
    x = np.array(random_array(rng, dtype, (40,)))
    before = fingerprints({"x": jnp.asarray(x)})["x"]
    for bit in rng.choice(8 * x.nbytes, 25, replace=False):
        flipped = x.copy()
        flipped.view(np.uint8)[bit // 8] ^= 1 << (bit % 8)
        after = fingerprints({"x": jnp.asarray(flipped)})["x"]
        assert after[0] != before[0]
        assert after[1] != before[1]


def test_elements_that_changed_places_change_the_weighted_sum_alone():
    x = jnp.arange(12.0).reshape(3, 4)
    before, after = fingerprints(
        {"b": x, "a": x.at[0].set(x[1]).at[1].set(x[0])}
    ).values()
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_leaves_are_named_by_their_path():
    tree = {"block_0": {"kernel": 1, "bias": 2}, "opt": (3, [4], None)}
    assert named_leaves(tree) == {
        "block_0/bias": 2,
        "block_0/kernel": 1,
        "opt/0": 3,
        "opt/1/0": 4,
    }

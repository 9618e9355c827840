"""Latents that were drawn, a file a batch, joined at the end."""

import numpy as np
import pytest

from dig_jax.errors import InputError
from dig_jax.sampling.latents import LatentFiles


def test_what_a_kill_left_half_written_is_no_batch(tmp_path):
    files = LatentFiles(tmp_path / "parts")
    latents = np.arange(6, dtype=np.float32).reshape(3, 1, 1, 2)
    (tmp_path / "parts" / ".000000002.17.partial.npy").write_bytes(b"half")
    files.write(0, latents[:2])
    with pytest.raises(InputError, match="1 of 3 images"):
        files.join(tmp_path / "latents.npz", 3, {})
    files.write(2, latents[2:])
    files.join(tmp_path / "latents.npz", 3, {"from": "here"})
    with np.load(tmp_path / "latents.npz") as joined:
        np.testing.assert_array_equal(joined["latents"], latents)

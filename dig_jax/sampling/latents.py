"""Drawn latents, kept beside the pixels that they decode to."""

import io
import json
from typing import Any

import numpy as np

from dig_jax.errors import InputError
from dig_jax.files.paths import AnyPath, make_folder, written_whole

_DIGITS = 9


class LatentFiles:
    """A file for each batch of latents while images are drawn, and then one of all.

    A drawing that was stopped goes on: a batch that is drawn again is written again.

    Args:
        folder: Of the batches, for one provenance.
    """

    def __init__(self, folder: AnyPath) -> None:
        self._folder = folder
        make_folder(folder)

    def write(self, first: int, latents: np.ndarray) -> None:
        """Keep a batch.

        Args:
            first: The number of its first image.
            latents: [batch, row, col, channel], scaled.
        """
        with written_whole(self._folder / f"{first:0{_DIGITS}}.npy") as unfinished:
            np.save(unfinished, np.asarray(latents, np.float32), allow_pickle=False)

    def join(self, path: AnyPath, num_images: int, provenance: dict[str, Any]) -> None:
        """Write an npz: float32 `latents` in the order of the images, `provenance`.

        Raises:
            InputError: Some were drawn when latents were not kept.
        """
        latents, known = None, np.zeros(num_images, bool)
        for part in sorted(self._folder.glob(f"{'[0-9]' * _DIGITS}.npy")):
            batch = np.load(io.BytesIO(part.read_bytes()), allow_pickle=False)
            if latents is None:
                latents = np.empty((num_images, *batch.shape[1:]), np.float32)
            rows = slice(int(part.stem), min(int(part.stem) + len(batch), num_images))
            latents[rows], known[rows] = batch[: max(rows.stop - rows.start, 0)], True
        if latents is None or not known.all():
            raise InputError(
                f"{num_images - int(known.sum())} of {num_images} images were drawn "
                f"before, when their latents were not kept: delete "
                f"{self._folder.parent} and draw again."
            )
        with written_whole(path) as unfinished:
            np.savez(
                unfinished, latents=latents, provenance=np.array(json.dumps(provenance))
            )

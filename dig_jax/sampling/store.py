"""Images as they are drawn, batch by batch, so that a killed evaluation goes on."""

import hashlib
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from etils import epath

from dig_jax.errors import InputError
from dig_jax.files.json_lines import append_line, read_lines, to_line
from dig_jax.files.paths import (
    AnyPath,
    is_remote,
    make_folder,
    naming_file,
    write_whole,
)
from dig_jax.interfaces import UInt8Images

_READ_BYTES = 1 << 24
_ATTEMPTS = 3
_DIGITS = 9
"""Of an image's number in a name, so that names are sorted as numbers are."""


class SampleStore:
    """Finished batches of images of one provenance, in a folder of their own.

    `images.u8` holds their pixels one after the other, `batches.jsonl` a line for each
    batch with the number of images so far and a checksum. A line is written when its
    pixels are on disk, so a kill at any moment leaves whole batches; what follows the
    last sound one is cut off, and said where it was damaged. In a bucket, which knows
    no appending, each batch is an object of its own, and the two files are a local copy
    of them all.

    Args:
        root: Folder of such folders.
        provenance: What the images depend on; names the folder.
        image_shape: (row, col, rgb).

    Attributes:
        folder: Where they are.
        num_images: How many are there.
    """

    def __init__(
        self,
        root: AnyPath,
        provenance: dict[str, Any],
        image_shape: tuple[int, int, int],
    ) -> None:
        text = json.dumps(provenance, sort_keys=True)
        self.folder = root / hashlib.sha256(text.encode()).hexdigest()[:16]
        self._shape = image_shape
        make_folder(self.folder)
        write_whole(self.folder / "provenance.json", json.dumps(provenance, indent=1))
        if is_remote(self.folder):
            self._temporary = tempfile.TemporaryDirectory(prefix="dig_jax_")
            local = Path(self._temporary.name)
        else:
            local = Path(self.folder)
        self._pixels, self._lines = local / "images.u8", local / "batches.jsonl"
        self._pixels.touch()
        if is_remote(self.folder):
            self._download()
        self.num_images = self._recover()

    def append(self, images: UInt8Images) -> None:
        """Keep a batch that follows those that are there.

        Raises:
            OSError: The disk is full; what was there stays sound.
        """
        data = np.ascontiguousarray(images).tobytes()
        crc32 = zlib.crc32(data)
        if is_remote(self.folder):
            name = f"images_{self.num_images:0{_DIGITS}}_{crc32:08x}.u8"
            write_whole(self.folder / name, data)
        self._append(data, self.num_images + len(images), crc32)
        self.num_images += len(images)

    def _append(self, data: bytes, num_images: int, crc32: int) -> None:
        with naming_file(self._pixels), self._pixels.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        append_line(self._lines, {"num_images": num_images, "pixels_crc32": crc32})

    def images(self, num_images: int) -> UInt8Images:
        """The first images, read from disk where they are looked at.

        Whoever has not just opened the store sees by `check` that they are sound.
        """
        if num_images > self.num_images:
            raise InputError(
                f"{self.folder} holds {self.num_images} images, got {num_images} to "
                "read."
            )
        shape = (num_images, *self._shape)
        return np.memmap(self._pixels, np.uint8, "r", shape=shape)

    def check(self) -> int:
        """Compare all batches with their checksums; returns how many images are sound.

        The others are no longer there, and are to be drawn again.
        """
        self.num_images = self._recover()
        return self.num_images

    def delete(self) -> None:
        """Remove the folder, and the folder of folders if it was the last."""
        if is_remote(self.folder):
            epath.Path(self.folder).rmtree()
            return
        shutil.rmtree(self.folder)
        if not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _download(self) -> None:
        """Fetch the batches that follow one another; `_recover` checks them."""
        image_bytes, count = int(np.prod(self._shape)), 0
        for path in sorted(self.folder.iterdir()):
            found = re.fullmatch(r"images_(\d+)_([0-9a-f]{8})\.u8", path.name)
            if found and int(found[1]) == count:
                data = path.read_bytes()
                count += len(data) // image_bytes
                self._append(data, count, int(found[2], 16))

    def _recover(self) -> int:
        """Images up to the last sound batch; what follows is cut off."""
        image_bytes = int(np.prod(self._shape))
        lines, sound = read_lines(self._lines), []
        count = 0
        with self._pixels.open("rb") as file:
            for line in lines:
                total = line.get("num_images")
                if type(total) is not int:
                    break
                size = (total - count) * image_bytes
                # Older lines called it crc32, and had none of their own.
                crc32 = line.get("pixels_crc32", line.get("crc32"))
                if size <= 0 or _crc32(file, size) != crc32:
                    break
                sound.append({"num_images": total, "pixels_crc32": crc32})
                count = total
        if len(sound) < len(lines):
            logging.warning(
                "%s: a batch after image %d is damaged; it and those after it are "
                "drawn again.",
                self.folder,
                count,
            )
        write_whole(self._lines, "".join(map(to_line, sound)))
        os.truncate(self._pixels, count * image_bytes)
        return count


def draw_into(
    store: SampleStore,
    num_images: int,
    draw: Callable[[int], Iterator[UInt8Images]],
    on_progress: Callable[[int], None] | None = None,
) -> UInt8Images:
    """Draw the images that a store lacks; returns as many as are wanted.

    Args:
        store: Keeps each batch when it is drawn.
        num_images: How many are wanted.
        draw: `first -> batches` of image `first` and those after it.
        on_progress: Called with the number of images there are.

    Raises:
        InputError: They are damaged as soon as they are written.
    """
    for _ in range(_ATTEMPTS):
        if store.num_images < num_images:
            for images in draw(store.num_images):
                store.append(images)
                if on_progress is not None:
                    on_progress(store.num_images)
        if store.check() >= num_images:
            return store.images(num_images)
    raise InputError(
        f"Images in {store.folder} do not come back as they were written, "
        f"{_ATTEMPTS} times: is the disk sound, and does nobody else write there?"
    )


def _crc32(file, size: int) -> int | None:
    """Checksum of the next bytes; None if there are fewer."""
    value = 0
    while size:
        data = file.read(min(size, _READ_BYTES))
        if not data:
            return None
        value = zlib.crc32(data, value)
        size -= len(data)
    return value

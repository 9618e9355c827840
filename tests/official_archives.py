"""Tiny archives in the formats in which data sets are handed out."""

import io
import tarfile
import zipfile
from typing import Literal

import numpy as np
from PIL import Image
from scipy.io import savemat

CIFAR_NAMES = ["airplane", "automobile", "bird", "cat", "deer"]
CIFAR_NAMES += ["dog", "frog", "horse", "ship", "truck"]


def random_images(rng, number, rows=32, cols=32):
    return rng.integers(0, 256, (number, rows, cols, 3), dtype=np.uint8)


def encode(pixels, form="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=form)
    return file.getvalue()


def write_tar(path, files, mode: Literal["w", "w:gz"] = "w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_zip(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_files(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def cifar10_files(rng, per_file=4):
    """The files of the binary version, and the images and labels in them by split."""
    files, splits = {}, {"train": ([], []), "test": ([], [])}
    for number in range(1, 7):
        images, labels = random_images(rng, per_file), rng.integers(0, 10, per_file)
        name = f"data_batch_{number}.bin" if number < 6 else "test_batch.bin"
        planes = images.transpose(0, 3, 1, 2).reshape(per_file, -1)
        records = np.column_stack([labels.astype(np.uint8), planes])
        files[f"cifar-10-batches-bin/{name}"] = records.tobytes()
        split = splits["train" if number < 6 else "test"]
        split[0].extend(images)
        split[1].extend(labels.tolist())
    text = "\n".join(CIFAR_NAMES) + "\n\n"
    files["cifar-10-batches-bin/batches.meta.txt"] = text.encode()
    files["cifar-10-batches-bin/readme.html"] = b"<html></html>"
    return files, splits


def write_svhn(folder, rng, splits=("train", "test", "extra")):
    """The .mat files, and the images and digits in them by split."""
    made = {}
    for number, split in enumerate(splits):
        images, digits = random_images(rng, 5 + number), rng.integers(0, 10, 5 + number)
        content = {
            "X": images.transpose(1, 2, 3, 0),
            "y": np.where(digits == 0, 10, digits)[:, None].astype(np.uint8),
        }
        savemat(folder / f"{split}_32x32.mat", content, do_compression=number == 0)
        made[split] = (list(images), digits.tolist())
    return made


def imagenet64_npz(rng, name, number):
    """One npz file of downsampled ImageNet, and the images and labels in it."""
    images, labels = random_images(rng, number, 64, 64), rng.integers(0, 1000, number)
    file = io.BytesIO()
    np.savez_compressed(
        file,
        data=images.transpose(0, 3, 1, 2).reshape(number, -1),
        labels=labels + 1,
        mean=np.zeros(12288),
    )
    return {name: file.getvalue()}, images, labels


def sorted_rows(images, labels):
    """Images and labels as rows of numbers, in an order that is theirs alone."""
    images = np.asarray(images).reshape(len(images), -1).astype(np.int64)
    rows = np.column_stack([images, np.asarray(labels, np.int64)])
    return rows[np.lexsort(rows.T)]

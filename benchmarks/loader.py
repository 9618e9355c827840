"""How fast batches are read: images a second of one core, by record and by threads.

    python benchmarks/loader.py [--train_images_per_second=9]

Records are crops of scikit-learn's two photographs, written once as `dig_jax.prepare`
stores them (pixels) and once as TFDS does (PNG), and read again each time. A core's
second is one of processor time over all threads, so that other work on the machine
disturbs it little; the wall's is given beside it. The last column divides a core's rate
by that of training CIFAR-10's configuration on the same machine.
"""

import argparse
import itertools
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from common import describe_machine
from PIL import Image
from sklearn.datasets import load_sample_images

from dig_jax.data.loader import load_batches
from dig_jax.data.preparation import prepare
from dig_jax.data.raw.splits import ArraySplit, RawDataset
from dig_jax.data.shards import ImageRule
from dig_jax.data.tfds_source import TFDSSource

NUM_RECORDS, BATCH_SIZE, SECONDS = 8192, 128, 3.0
THREADS = (0, 1, 2, 4, 8)


def main() -> None:
    """Print a table of sizes, stored forms and numbers of threads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--train_images_per_second", type=float, default=9.0)
    trained = parser.parse_args().train_images_per_second
    print(describe_machine())
    print("| record | threads | images/s of a core | images/s | core / training |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for size in (32, 64):
            images = crop_photographs(size)
            for form, write in (("pixels", write_pixels), ("PNG", write_png)):
                path = write(Path(folder) / f"a_{form.lower()}{size}" / "1.0.0", images)
                builder = tfds.builder_from_directory(path)
                source = TFDSSource("a", builder, split="train", max_kept_bytes=0)
                for threads in THREADS:
                    core, wall = measure(source, threads)
                    print(
                        f"| {form}, {size}x{size} | {threads} | {core:,.0f} | "
                        f"{wall:,.0f} | {core / trained:,.0f} |"
                    )


def measure(source: TFDSSource, num_threads: int) -> tuple[float, float]:
    """Images a second of processor time, and of the wall's."""
    batches = load_batches(
        source, batch_size=BATCH_SIZE, seed=0, num_threads=num_threads
    )
    for _ in itertools.islice(batches, 2 + 2 * num_threads):
        pass
    core, wall, count = time.process_time(), time.perf_counter(), 0
    while time.perf_counter() - wall < SECONDS:
        count += len(next(batches)["id"])
    core, wall = time.process_time() - core, time.perf_counter() - wall
    batches.close()
    return count / core, count / wall


def crop_photographs(size: int) -> np.ndarray:
    """Random crops, uint8 [image, row, col, rgb]."""
    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    crops = []
    for index in range(NUM_RECORDS):
        photograph = photographs[index % 2]
        top = rng.integers(photograph.shape[0] - size)
        left = rng.integers(photograph.shape[1] - size)
        crops.append(photograph[top : top + size, left : left + size])
    return np.stack(crops)


def write_pixels(path: Path, images: np.ndarray) -> Path:
    """As `dig_jax.prepare` does."""
    split = ArraySplit("photographs", images, np.arange(len(images)) % 10)
    names = tuple("0123456789")
    raw = RawDataset({"train": split}, names, encoded=False, source="photographs")
    rule = ImageRule(images.shape[1:], "none", len(names))
    return prepare(raw, path, rule, advance=lambda count: None).path


def write_png(path: Path, images: np.ndarray) -> Path:
    """As TFDS does."""
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=images.shape[1:]),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
    )
    path.mkdir(parents=True)
    name = path.parent.name
    file = path / f"{name}-train.array_record-00000-of-00001"
    writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
    for index, image in enumerate(images):
        content = BytesIO()
        Image.fromarray(image).save(content, format="PNG")
        example = {"image": content.getvalue(), "label": index % 10}
        writer.write(features.serialize_example(example))
    writer.close()
    template = tfds.core.ShardedFileTemplate(
        data_dir=path,
        dataset_name=name,
        split="train",
        filetype_suffix="array_record",
    )
    split = tfds.core.SplitInfo(
        name="train",
        shard_lengths=[len(images)],
        num_bytes=file.stat().st_size,
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=path, features=features, split_infos=[split], check_data=False
    )
    return path


if __name__ == "__main__":
    main()

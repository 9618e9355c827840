"""How fast images are read: shuffled batches by threads, and a whole set once.

    python benchmarks/loader.py [--config=configs/cifar10.py] [--rounds=5]

Records are crops of scikit-learn's two photographs, written once as `dig_jax.prepare`
stores them (pixels) and once as TFDS does (PNG), and read again each time. A core's
second is one of processor time over all threads, so that other work on the machine
disturbs it little; the wall's is given beside it. The last column of the first table
divides a core's rate by that of the configuration's training step, of processor time
too. The second table is `read_once` against one record after another, in turns.
"""

import argparse
import functools
import itertools
import tempfile
import time
from io import BytesIO
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from common import describe_machine
from PIL import Image
from sklearn.datasets import load_sample_images

from dig_jax.config import load_config_file
from dig_jax.data.damage import SoundRecords
from dig_jax.data.loader import load_batches, read_once
from dig_jax.data.tfds_source import TFDSSource
from dig_jax.experiment import create_experiment
from dig_jax.prepare.preparation import prepare
from dig_jax.prepare.shards import ImageRule
from dig_jax.prepare.splits import ArraySplit, RawDataset
from dig_jax.training.optimizer import create_optimizer
from dig_jax.training.step import create_state, make_train_step

NUM_RECORDS, BATCH_SIZE, SECONDS = 20_000, 128, 3.0
TRAIN_BATCH, TRAIN_STEPS = 8, 3
THREADS = (0, 1, 2, 4, 8)


def main() -> None:
    """Print both tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/cifar10.py")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(describe_machine(), flush=True)
    trained = train_images_per_second(options.config)
    print(f"{options.config} trains {trained:.2f} images in a core's second\n")
    print("| record | threads | images/s of a core | images/s | core / training |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        builders = write_all(Path(folder))
        for record, builder in builders.items():
            for threads in THREADS:
                source = TFDSSource("a", builder, split="train", max_kept_bytes=0)
                core, wall = measure(source, threads)
                print(
                    f"| {record} | {threads} | {core:,.0f} | {wall:,.0f} | "
                    f"{core / trained:,.0f} |",
                    flush=True,
                )
        print(
            "\n| record | all once, images/s of a core | images/s | one by one / once |"
        )
        print("|---|---|---|---|")
        for record, builder in builders.items():
            core, wall, ratio = measure_once(builder, options.rounds)
            print(f"| {record} | {core:,.0f} | {wall:,.0f} | {ratio:.2f} |", flush=True)


def train_images_per_second(config_file: str) -> float:
    """Images that a core's second of training takes up, at the configuration's size."""
    experiment = create_experiment(load_config_file(config_file))
    optimizer = create_optimizer(num_steps=1000)
    step = make_train_step(experiment, optimizer, jax.random.key(0), 0.9999)
    state = create_state(experiment, optimizer, jax.random.key(1))
    image = jnp.zeros((TRAIN_BATCH, *experiment.backbone.image_shape), jnp.uint8)
    label = jnp.zeros(TRAIN_BATCH, jnp.int32)
    compiled = jax.jit(step, donate_argnums=0).lower(state, image, label).compile()
    state, _ = jax.block_until_ready(compiled(state, image, label))
    start = time.process_time()
    for _ in range(TRAIN_STEPS):
        state, _ = jax.block_until_ready(compiled(state, image, label))
    return TRAIN_STEPS * TRAIN_BATCH / (time.process_time() - start)


def write_all(folder: Path) -> dict[str, tfds.core.DatasetBuilder]:
    """Every size in every form."""
    builders = {}
    for size in (32, 64):
        images = crop_photographs(size)
        for form, write in (("pixels", write_pixels), ("PNG", write_png)):
            path = write(folder / f"a_{form.lower()}{size}" / "1.0.0", images)
            record = f"{form}, {size}x{size}"
            builders[record] = tfds.builder_from_directory(path)
    return builders


def measure_once(
    builder: tfds.core.DatasetBuilder, rounds: int
) -> tuple[float, float, float]:
    """Images/s of a core and the wall, all once; how much longer one by one takes."""
    times = []
    for round_ in range(rounds + 1):
        sources = (
            TFDSSource("a", builder, split="train", max_kept_bytes=0) for _ in range(2)
        )
        alone, once = (
            seconds(functools.partial(read, source))
            for read, source in zip(
                (read_one_by_one, read_in_batches), sources, strict=True
            )
        )
        if round_:  # the first one warms up
            times.append((*once, alone[1] / once[1]))
    core, wall, ratio = np.median(times, axis=0)
    return NUM_RECORDS / core, NUM_RECORDS / wall, ratio


def read_one_by_one(source: TFDSSource) -> None:
    """All records in this thread."""
    records = SoundRecords(source)
    for index in range(len(source)):
        records.read(index)


def read_in_batches(source: TFDSSource) -> None:
    """All records as evaluation reads them."""
    for _ in read_once(source):
        pass


def seconds(run: functools.partial) -> tuple[float, float]:
    """Processor time over all threads, and the wall's."""
    core, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - core, time.perf_counter() - wall


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

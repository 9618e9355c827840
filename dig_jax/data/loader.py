"""Batches of a data set: for ever and shuffled, or every image once and in order.

The shuffled order is a function of the step alone: global batch s is rows [s B,
(s+1) B) of an endless stream of epochs, each a permutation of all records. So a run
resumes at a step with no saved state and no replay, and sees the same whatever the
number of hosts, threads and worker processes.
"""

import re
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from functools import lru_cache, partial
from typing import TypeAlias

import grain
import numpy as np
from absl import flags, logging
from jaxtyping import Int64

from dig_jax.data.damage import MAX_DAMAGED_SHARE, SoundRecords
from dig_jax.errors import InputError
from dig_jax.interfaces import ImageSource, LabelledImages

Batch: TypeAlias = dict[str, np.ndarray]
"""`image` uint8 [batch, row, col, rgb], `label` int32 [batch], `id` int64 [batch].

`damaged`, int64 [], counts the damaged records that others had to stand in for.
"""
MOST_DEATHS = 3
"""Deaths of worker processes in a row, without a batch in between, that end reading."""


def load_batches(
    source: ImageSource,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 4,
    num_workers: int = 0,
    max_damaged_share: float = MAX_DAMAGED_SHARE,
) -> Generator[Batch, None, None]:
    """This host's part of each global batch, from `start_step` on, without end.

    Threads read whole batches ahead, one each. `close()` on the result stops them, as
    does dropping it.

    Args:
        source: Where records come from; pickled for worker processes.
        batch_size: Images in a global batch; may be larger than the source.
        seed: Of the shuffling.
        start_step: The global batch to begin with.
        process_index: This host; it gets its share of each batch's rows, in order.
        process_count: Number of hosts.
        num_threads: Threads that read, in each process; 0 reads when asked.
        num_workers: Processes that read; 0 reads in this one. They are spawned, so the
            program's main module must be safe to import. When one dies, all are started
            again where they were.
        max_damaged_share: A damaged record is replaced by the next sound one, which is
            what `id` then says; if more than this share of all are, reading stops.

    Raises:
        InputError: The source is empty, an argument is out of its range, or (from the
            result) too many records are damaged, or worker processes keep dying.
    """
    _check_arguments(source, batch_size, process_index, process_count)
    _check_not_negative(
        seed=seed,
        start_step=start_step,
        num_threads=num_threads,
        num_workers=num_workers,
    )
    rows = batch_size // process_count
    records = SoundRecords(source, max_damaged_share)
    read = partial(_read_batch, records, seed, batch_size, process_index * rows, rows)

    def batches_from(step: int) -> grain.IterDataset[Batch]:
        return (
            grain.MapDataset.range(step, sys.maxsize)
            .map(read)
            .to_iter_dataset(grain.ReadOptions(num_threads, num_threads))
        )

    if not num_workers:
        return _iterate(batches_from(start_step))
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's own; outside absl.app nobody does.
    options = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=2)
    return _iterate_again(lambda s: batches_from(s).mp_prefetch(options), start_step)


def read_once(
    source: ImageSource,
    *,
    batch_size: int = 256,
    num_threads: int = 4,
    max_damaged_share: float = MAX_DAMAGED_SHARE,
) -> Generator[Batch, None, None]:
    """Every image of a source exactly once, in its own order.

    The last batch is what is left. Threads read whole batches ahead, as in
    `load_batches`, which says what the arguments and errors are.
    """
    _check_arguments(source, batch_size)
    _check_not_negative(num_threads=num_threads)
    records = SoundRecords(source, max_damaged_share)

    def read(number: int) -> Batch:
        start = number * batch_size
        return _read_records(
            records, range(start, min(start + batch_size, len(source)))
        )

    return _iterate(
        grain.MapDataset.range(-(-len(source) // batch_size))
        .map(read)
        .to_iter_dataset(grain.ReadOptions(num_threads, num_threads))
    )


def read_images(
    source: ImageSource,
    indices: Sequence[int] | None = None,
    *,
    max_damaged_share: float = MAX_DAMAGED_SHARE,
) -> LabelledImages:
    """Images of a source in memory.

    Args:
        source: Of which.
        indices: Which records, in this order; None for all, in the source's own.
        max_damaged_share: A damaged record is replaced by the next sound one, up to
            this share.

    Raises:
        InputError: It is empty, or too many of its records are damaged.
    """
    if indices is None:
        return collect(source, read_once(source, max_damaged_share=max_damaged_share))
    found = SoundRecords(source, max_damaged_share).read_many(indices)
    records = [sound.record for sound in found]
    return LabelledImages(
        np.stack([record["image"] for record in records]),
        np.array([record["label"] for record in records], np.int32),
    )


def collect(source: ImageSource, batches: Iterable[Batch]) -> LabelledImages:
    """The batches of `read_once`, joined in memory."""
    images = np.empty((len(source), *source.image_shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    done = 0
    for batch in batches:
        rows = slice(done, done + len(batch["id"]))
        images[rows], labels[rows] = batch["image"], batch["label"]
        done = rows.stop
    return LabelledImages(images, labels)


def record_ids(
    first_row: int, num_rows: int, *, num_records: int, seed: int
) -> Int64[np.ndarray, "row"]:
    """Which records are the rows from first_row on of the shuffled, endless stream."""
    last_row = first_row + num_rows
    parts = []
    for epoch in range(first_row // num_records, -(-last_row // num_records)):
        start = epoch * num_records
        order = _epoch_order(num_records, seed, epoch)
        parts.append(order[max(first_row - start, 0) : last_row - start])
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def _epoch_order(
    num_records: int, seed: int, epoch: int
) -> Int64[np.ndarray, "record"]:
    # Not grain's shuffle: it takes 24 us a record at 1,500 records and 6 ms at 2; this
    # takes 0.1 us. Raw bits and a stable sort, because NumPy keeps both for ever.
    stream = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    order = np.argsort(stream.random_raw(num_records), kind="stable")
    order.setflags(write=False)
    return order


def _read_batch(
    records: SoundRecords,
    seed: int,
    batch_size: int,
    offset: int,
    num_rows: int,
    step: int,
) -> Batch:
    ids = record_ids(
        step * batch_size + offset,
        num_rows,
        num_records=len(records.source),
        seed=seed,
    )
    return _read_records(records, ids.tolist())


def _read_records(records: SoundRecords, indices: Sequence[int]) -> Batch:
    rows = records.read_many(indices)
    return {
        "image": np.stack([row.record["image"] for row in rows]),
        "label": np.array([row.record["label"] for row in rows], np.int32),
        "id": np.array([row.index for row in rows], np.int64),
        "damaged": np.array(sum(row.num_damaged for row in rows), np.int64),
    }


def _iterate(batches: grain.IterDataset[Batch]) -> Generator[Batch, None, None]:
    iterator = iter(batches)
    try:
        yield from iterator
    finally:
        iterator.close()


def _iterate_again(
    batches_from: Callable[[int], grain.IterDataset[Batch]], step: int
) -> Generator[Batch, None, None]:
    """Batches from a step on, whose readers are started again when one dies."""
    deaths = 0
    while True:
        try:
            with closing(_iterate(batches_from(step))) as batches:
                for batch in batches:
                    yield batch
                    step, deaths = step + 1, 0
                return
        except RuntimeError as error:
            found = re.search(r"terminated .*exit code (-?\d+)", str(error))
            if found is None:
                raise
            deaths += 1
            how = f"with exit code {found[1]}"
            if found[1].startswith("-"):
                how = f"of signal {found[1][1:]}"
            if deaths == MOST_DEATHS:
                raise InputError(
                    f"{deaths} times in a row a process that reads data died, the last "
                    f"{how}, at batch {step} or one of the next; maybe for want of "
                    "memory. Use fewer data.num_workers; 0 reads in the program's own "
                    "process."
                ) from error
            logging.warning(
                "A process that reads data died %s; all of them are started again at "
                "batch %d.",
                how,
                step,
            )


def _check_arguments(
    source: ImageSource,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> None:
    if len(source) == 0:
        raise InputError(f"Split {source.split!r} of {source.name!r} has no images.")
    if process_count < 1 or not 0 <= process_index < process_count:
        raise InputError(
            "process_index must be at least 0 and below process_count, got "
            f"process_index={process_index}, process_count={process_count}."
        )
    if batch_size < 1 or batch_size % process_count:
        raise InputError(
            "batch_size must be a positive multiple of the number of processes "
            f"({process_count}), got {batch_size}."
        )


def _check_not_negative(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 0:
            raise InputError(f"{name} must not be negative, got {number}.")

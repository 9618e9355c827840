"""From raw data to a prepared data set: a folder that appears when it is complete.

Everything happens in `1.0.0.incomplete`, which no reader looks at. There, `plan.json`
says what is being made and `shards.jsonl` which shards are finished; the same command
goes on where an earlier one stopped. At the end the folder is renamed.
"""

import contextlib
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from dig_jax.errors import InputError
from dig_jax.files.lock import Purpose, locked
from dig_jax.files.paths import naming_file
from dig_jax.prepare.shards import (
    Advance,
    ImageRule,
    ShardRecord,
    hash_file,
    make_features,
    write_shard,
)
from dig_jax.prepare.splits import RawDataset
from dig_jax.prepare.workers import write_in_processes
from dig_jax.reporting.progress import Progress

SHARD_BYTES = 128 * 2**20
_PLAN, _JOURNAL = "plan.json", "shards.jsonl"
_PREPARE = Purpose("lock", "is being prepared by another process", "Wait for it.")
_FREE_BYTES = 64 * 2**20


class Shard(NamedTuple):
    """A shard to be written: its file's name, and which images of which split."""

    file: str
    split: str
    start: int
    stop: int


class PreparedFolder(NamedTuple):
    """A finished data set: where it is, and what is known of each shard by split."""

    path: Path
    shards: dict[str, list[ShardRecord]]


def prepare_shown(
    raw: RawDataset, path: Path, rule: ImageRule, doing: str, *, num_workers: int = 0
) -> PreparedFolder:
    """`prepare`, with its progress shown under a word for what is being done."""
    done, total = 0, sum(len(split) for split in raw.splits.values())
    with Progress(total, description=doing, unit="image") as progress:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress.update(done)

        advance(0)
        return prepare(raw, path, rule, advance=advance, num_workers=num_workers)


def prepare(
    raw: RawDataset,
    path: Path,
    rule: ImageRule,
    *,
    advance: Advance,
    num_workers: int = 0,
    shard_bytes: int = SHARD_BYTES,
) -> PreparedFolder:
    """Write a data set to `path`, a version folder such as `.../dig_cifar10/1.0.0`.

    If it is there already, made from the same, its files are checked and that is all.

    Args:
        raw: What to write.
        path: Complete when it exists.
        rule: What every image becomes.
        advance: Told of each image that is done, shards of an earlier call included.
        num_workers: Processes that decode; 0 decodes here. Of no effect on images in
            memory.
        shard_bytes: Size of a shard's pixels, about.

    Raises:
        InputError: Another data set is there, or the same but damaged; another process
            is at it; or an image cannot be used.
        OSError, InputError: The disk is full; the message has the path.
    """
    shards = plan_shards(path.parent.name, raw, rule, shard_bytes)
    plan = _describe_plan(raw, rule, shards)
    if path.exists():
        _check_finished(path, plan)
        advance(sum(len(split) for split in raw.splits.values()))
        return _gather(path, shards)
    folder = path.with_name(path.name + ".incomplete")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--data_dir needs a folder that can be written; {folder} cannot be made: "
            f"{error}."
        ) from error
    with naming_file(folder), locked(folder, _PREPARE, patience_seconds=0.0):
        finished = _resume(folder, plan)
        missing = [shard for shard in shards if shard.file not in finished]
        _check_disk(folder, missing, rule)
        advance(sum(s.stop - s.start for s in shards if s.file in finished))
        workers = num_workers if raw.encoded else 0
        with (folder / _JOURNAL).open("a", encoding="utf-8") as journal:
            for record in _write_all(folder, raw, rule, missing, workers, advance):
                if not record.num_records:
                    raise InputError(f"No image of {record.file} can be used.")
                journal.write(json.dumps(asdict(record)) + "\n")
                journal.flush()
        made = _gather(folder, shards)
        _write_journal(folder, [r for records in made.shards.values() for r in records])
        _write_metadata(raw, rule, made)
        (folder / _PREPARE.file).unlink()
        folder.rename(path)
    return _gather(path, shards)


def plan_shards(
    name: str, raw: RawDataset, rule: ImageRule, shard_bytes: int
) -> list[Shard]:
    """Shards of about equal size, with TFDS's names for them."""
    rows, cols, channels = rule.shape
    most = max(1, shard_bytes // (rows * cols * channels))
    shards = []
    for split, images in raw.splits.items():
        count = -(-len(images) // most)
        edges = [round(len(images) * i / count) for i in range(count + 1)]
        for i in range(count):
            file = f"{name}-{split}.array_record-{i:05d}-of-{count:05d}"
            shards.append(Shard(file, split, edges[i], edges[i + 1]))
    return shards


def count_labels(records: Iterable[ShardRecord], num_classes: int) -> list[int]:
    """How many images of some shards each class has."""
    counts = Counter()
    for record in records:
        counts.update(record.labels)
    return [counts[str(label)] for label in range(num_classes)]


def _describe_plan(
    raw: RawDataset, rule: ImageRule, shards: list[Shard]
) -> dict[str, Any]:
    return {
        "source": raw.source,
        "splits": {name: split.identity for name, split in raw.splits.items()},
        "class_names": list(raw.class_names),
        "shape": list(rule.shape),
        "transform": rule.transform,
        "upright": rule.upright,
        "shards": [list(shard) for shard in shards],
    }


def _resume(folder: Path, plan: dict[str, Any]) -> set[str]:
    """The sound shards of an earlier call with the same plan; all else is deleted."""
    finished = []
    if _read_json(folder / _PLAN) == plan:
        finished = [r for r in _read_journal(folder) if _is_sound(folder, r)]
    names = {record.file for record in finished}
    for file in folder.iterdir():
        if file.name not in names and file.name != _PREPARE.file:
            file.unlink()
    (folder / _PLAN).write_text(json.dumps(plan), encoding="utf-8")
    _write_journal(folder, finished)
    return names


def _check_finished(path: Path, plan: dict[str, Any]) -> None:
    there = _read_json(path / _PLAN)
    if there != plan:
        source = there["source"] if isinstance(there, dict) else "something else"
        raise InputError(
            f"{path} is already there, made from {source} in another way or of other "
            f"files. Delete it, or choose another --data_dir."
        )
    for record in _read_journal(path):
        if not _is_sound(path, record):
            raise InputError(
                f"{path / record.file} is damaged. Delete {path} and prepare it again."
            )


def _gather(folder: Path, shards: list[Shard]) -> PreparedFolder:
    records = {record.file: record for record in _read_journal(folder)}
    by_split: dict[str, list[ShardRecord]] = {shard.split: [] for shard in shards}
    for shard in shards:
        by_split[shard.split].append(records[shard.file])
    return PreparedFolder(folder, by_split)


def _write_journal(folder: Path, records: list[ShardRecord]) -> None:
    lines = [json.dumps(asdict(record)) + "\n" for record in records]
    (folder / _JOURNAL).write_text("".join(lines), encoding="utf-8")


def _read_journal(folder: Path) -> list[ShardRecord]:
    records = []
    if (folder / _JOURNAL).exists():
        for line in (folder / _JOURNAL).read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, TypeError):  # its last line, cut off
                records.append(ShardRecord(**json.loads(line)))
    return records


def _is_sound(folder: Path, record: ShardRecord) -> bool:
    path = folder / record.file
    return path.is_file() and hash_file(path) == record.sha256


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _check_disk(folder: Path, shards: list[Shard], rule: ImageRule) -> None:
    rows, cols, channels = rule.shape
    images = sum(shard.stop - shard.start for shard in shards)
    needed = images * rows * cols * channels + _FREE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder} needs up to {needed / 1e9:.1f} GB, and its disk has "
            f"{free / 1e9:.1f} GB free."
        )


def _write_all(
    folder: Path,
    raw: RawDataset,
    rule: ImageRule,
    shards: list[Shard],
    num_workers: int,
    advance: Advance,
) -> Iterator[ShardRecord]:
    jobs = (
        (folder / shard.file, raw.splits[shard.split].part(shard.start, shard.stop))
        for shard in shards
    )
    if num_workers:
        yield from write_in_processes(jobs, rule, num_workers, advance)
    else:
        for path, images in jobs:
            yield write_shard(path, images, rule, advance)


def _write_metadata(raw: RawDataset, rule: ImageRule, made: PreparedFolder) -> None:
    """TFDS's description of the data set, ours, and a list for `sha256sum -c`."""
    import tensorflow_datasets as tfds

    folder, by_split = made
    features = make_features(rule.shape, rule.num_classes)
    if rule.num_classes:
        features["label"].names = list(raw.class_names)
    name = folder.parent.name
    records = [record for records in by_split.values() for record in records]
    notes = Counter()
    for record in records:
        notes.update(record.notes)
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        version=folder.name.removesuffix(".incomplete"),
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[record.num_records for record in parts],
                num_bytes=sum(record.num_bytes for record in parts),
                filename_template=tfds.core.ShardedFileTemplate(
                    data_dir=folder,
                    dataset_name=name,
                    split=split,
                    filetype_suffix="array_record",
                ),
            )
            for split, parts in by_split.items()
        ],
        check_data=False,
        description=f"{raw.source}; transform {rule.transform}",
        metadata=tfds.core.MetadataDict(
            **({"name": raw.name} if raw.name else {}),
            **({"test_share": raw.test_share} if raw.test_share else {}),
            transform=rule.transform,
            source=raw.source,
            content={
                split: _hash_lines(record.content for record in parts)
                for split, parts in by_split.items()
            },
            label_counts={
                split: count_labels(parts, rule.num_classes)
                for split, parts in by_split.items()
            },
            converted=dict(notes),
            skipped=[line for record in records for line in record.skipped],
            **raw.metadata,
        ),
    )
    sums = "".join(f"{record.sha256}  {record.file}\n" for record in records)
    (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")


def _hash_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

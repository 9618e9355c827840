"""Every kind of file that is read, with flipped bits and cut off, by a seeded chance.

What is damaged is refused in a line or makes no difference; nothing is read wrongly,
and no library's error comes through.
"""

import json
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save
from tiny_runs import tiny_config

from dig_jax.comparison.points import read_points, write_points
from dig_jax.config import load_run_config, save_run_config
from dig_jax.data.digits import prepare_digits
from dig_jax.data.npz import create_npz
from dig_jax.data.tfds_source import TFDSSource, open_prepared
from dig_jax.errors import InputError
from dig_jax.evaluation.records import SCHEMA, append_record, read_records
from dig_jax.files.checked_json import sha256_of
from dig_jax.interop.files import read_state_dict
from dig_jax.metrics.extraction import FeatureSpace
from dig_jax.metrics.feature_scores import FeatureSummary
from dig_jax.metrics.moments import moments_of
from dig_jax.metrics.networks.graph_def import read_graph
from dig_jax.metrics.reference import ReferenceSet, read_reference, write_reference
from dig_jax.sampling.samples import read_samples, save_samples
from dig_jax.storage.export_folder import (
    CONFIG,
    MANIFEST,
    PARAMETERS,
    read_manifest,
    write_manifest,
)
from dig_jax.storage.run_config import find_saved_config

SPACE = FeatureSpace("inception", "0123456789abcdef", "tf1", 6)
ARRAYS = {"b": np.arange(12, dtype=np.float32).reshape(3, 4), "a": np.ones(5, np.int8)}
IMAGES = (np.arange(4 * 8 * 8) % 256).astype(np.uint8).reshape(4, 8, 8, 1)


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        write: Writes one, or several, into a folder.
        read: What a reader makes of the folder, as plain values; None if it tells that
            nothing can be read.
        files: Which of them are damaged, as a pattern.
        parts: Whether fewer of a list's entries than were written are a refusal.
        checked: Whether a checksum is in the file. Other projects have files without.
    """

    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    files: str
    parts: bool = False
    checked: bool = True


def plain(arrays):
    return {k: (str(x.dtype), x.shape, x.tobytes()) for k, x in sorted(arrays.items())}


def write_statistics(folder):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 6)).astype(np.float32)
    summary = FeatureSummary(SPACE, moments_of(features), None, features)
    images = ReferenceSet("cifar10", "train", "none", "abc")
    write_reference(folder / "kept.npz", summary, images)


def read_statistics(folder):
    found = read_reference(folder / "kept.npz", SPACE)
    if found.images == ReferenceSet():  # as where they are kept
        return None
    moments = found.summary.moments
    arrays = {"mu": moments.mean, "sigma": moments.cov, "held": found.summary.held}
    return plain(arrays), moments.count, found.images, found.summary.space


def write_checkpoint(folder):
    step = folder / "checkpoints" / "4"
    (step / "meta").mkdir(parents=True)
    record = {"step": 4, "config": tiny_config("nowhere").to_dict()}
    record = json.loads(json.dumps(record))
    saved = {"sha256": sha256_of(record), "record": record}
    (step / "meta" / "metadata").write_text(json.dumps(saved))
    (step / "commit_success.txt").touch()


def read_checkpoint(folder):
    found = find_saved_config(folder)
    return None if found is None else (found.step, found.config.to_dict())


def write_export(folder):
    (folder / PARAMETERS).write_bytes(save(ARRAYS))
    save_run_config(tiny_config("nowhere"), folder)
    record = {"step": 3, "sigma_rel": None, "num_classes": 10}
    write_manifest(folder, [PARAMETERS, CONFIG], record)


def read_samples_of(folder):
    drawn, provenance = read_samples(folder / "samples.npz")
    return plain({"images": drawn.images, "labels": drawn.labels}), provenance


def read_npz_data(folder):
    source = create_npz(data_dir=str(folder / "data.npz"))
    records = [source[i] for i in range(len(source))]
    return [(r["image"].tobytes(), int(r["label"])) for r in records]


def read_prepared(folder):
    source = TFDSSource("folder", open_prepared(folder), split="train")
    first = source[0]
    shape = source.image_shape, len(source), source.num_classes
    return shape, first["image"].tobytes(), int(first["label"])


def write_graph(folder):
    from tensorboardX.proto.graph_pb2 import GraphDef

    graph = GraphDef()
    for name in ("a", "b"):
        node = graph.node.add(name=name, op="Const")
        node.attr["value"].tensor.dtype = 1
        node.attr["value"].tensor.tensor_shape.dim.add(size=3)
        node.attr["value"].tensor.tensor_content = np.ones(3, np.float32).tobytes()
    (folder / "graph.pb").write_bytes(graph.SerializeToString())


def read_graph_of(folder):
    nodes = read_graph((folder / "graph.pb").read_bytes())
    return {name: str(node) for name, node in nodes.items()}


def samples_of_run(folder):
    provenance = {"seed": 0, "solver": "ddim"}
    save_samples(folder / "samples.npz", IMAGES, np.arange(4), provenance)


def record_scores(folder):
    for seed in range(4):
        append_record(folder, {"schema": SCHEMA, "seed": seed, "scores": {"fid": 0.25}})


KINDS = {
    "config.json": Kind(
        lambda folder: save_run_config(tiny_config("nowhere"), folder),
        lambda folder: load_run_config(folder).to_dict(),
        "config.json",
    ),
    "lines": Kind(record_scores, read_records, "eval/scores.jsonl", parts=True),
    "points.json": Kind(
        lambda folder: write_points(folder, {"2": {"fid": 0.5}, "4": {"fid": 0.25}}),
        lambda folder: read_points(folder) or None,
        "points.json",
    ),
    "checkpoint's meta": Kind(write_checkpoint, read_checkpoint, "**/metadata"),
    "statistics": Kind(write_statistics, read_statistics, "kept.npz"),
    "samples.npz": Kind(samples_of_run, read_samples_of, "samples.npz"),
    "npz of images": Kind(
        lambda folder: np.savez(folder / "data.npz", arr_0=IMAGES, arr_1=np.arange(4)),
        read_npz_data,
        "data.npz",
    ),
    "export": Kind(write_export, read_manifest, "*"),
    "manifest": Kind(write_export, read_manifest, MANIFEST),
    "safetensors": Kind(
        lambda folder: (folder / "w.safetensors").write_bytes(save(ARRAYS)),
        lambda folder: plain(read_state_dict(folder / "w.safetensors")),
        "w.safetensors",
        checked=False,
    ),
    "GraphDef": Kind(write_graph, read_graph_of, "graph.pb", checked=False),
    "data set's JSON": Kind(
        lambda folder: None, read_prepared, "*.json", checked=False
    ),
}


def damage(data: bytes, chance: random.Random) -> bytes:
    """With a flipped bit, or in a quarter of the cases cut off."""
    place = chance.randrange(len(data))
    if chance.random() < 0.25:
        return data[:place]
    changed = bytearray(data)
    changed[place] ^= 1 << chance.randrange(8)
    return bytes(changed)


def outcome(kind: Kind, folder: Path, expected: Any) -> str:
    try:
        found = kind.read(folder)
    except InputError:
        return "refused"
    if found == expected:
        return "harmless"
    if found is None:
        return "refused"
    if kind.parts and len(found) < len(expected):
        return "refused" if all(entry in expected for entry in found) else "wrong"
    return "wrong"


def fuzz(kind: Kind, folder: Path, number: int, seed: int) -> dict[str, int]:
    """How many damaged copies were refused, made no difference, or were wrong."""
    kind.write(folder)
    expected, chance = kind.read(folder), random.Random(seed)
    files = sorted(path for path in folder.glob(kind.files) if path.is_file())
    assert files
    assert expected is not None
    counts: dict[str, int] = {"refused": 0, "harmless": 0, "wrong": 0}
    for _ in range(number):
        path = chance.choice(files)
        good = path.read_bytes()
        path.write_bytes(damage(good, chance))
        counts[outcome(kind, folder, expected)] += 1
        path.write_bytes(good)
    return counts


@pytest.fixture(scope="module")
def digits(data_dir):
    return Path(prepare_digits(str(data_dir)).data_path)


def kind_of(name: str, digits: Path) -> Kind:
    if name != "data set's JSON":
        return KINDS[name]
    copy = partial(shutil.copytree, digits, dirs_exist_ok=True)
    return KINDS[name]._replace(write=copy)


@pytest.mark.parametrize("name", KINDS)
def test_a_dozen_damaged_files_of_each_kind(name, tmp_path, digits):
    kind = kind_of(name, digits)
    counts = fuzz(kind, tmp_path, 12, seed=0)
    assert counts["refused"]
    assert not (kind.checked and counts["wrong"])


@pytest.mark.reliability
@pytest.mark.parametrize("name", KINDS)
def test_hundreds_of_damaged_files_of_each_kind(name, tmp_path, digits, figure):
    kind = kind_of(name, digits)
    number = 300
    counts = fuzz(kind, tmp_path, number, seed=1)
    told = ", ".join(f"{n} {what}" for what, n in counts.items())
    without = "" if kind.checked else " (a file without a checksum)"
    figure("R35", f"{name}{without}: {number} damaged: {told}")
    assert not (kind.checked and counts["wrong"])

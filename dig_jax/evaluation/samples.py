"""Score drawn images against real ones, and record where they come from."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax
import numpy as np
from jaxtyping import Int

from dig_jax.config import call_with_section, config_to_json
from dig_jax.data.loader import read_all
from dig_jax.errors import InputError
from dig_jax.experiment import Experiment, open_dataset
from dig_jax.generation import Guide, SampleOptions
from dig_jax.interfaces import LabelledImages, UInt8Images
from dig_jax.metrics import METRICS, score


@dataclass(frozen=True)
class EvaluationOptions:
    """Attributes: metrics: Entries of METRICS."""

    metrics: tuple[str, ...] = tuple(sorted(METRICS))


def create_evaluation_options(experiment: Experiment) -> EvaluationOptions:
    """The evaluation section, checked.

    Raises:
        InputError: Unknown metric.
    """
    section = experiment.config.evaluation.to_dict()
    options = call_with_section("evaluation", EvaluationOptions, section)
    for name in options.metrics:
        if name not in METRICS:
            raise InputError(
                f"Unknown metric {name!r} in config.evaluation.metrics. Available: "
                f"{', '.join(sorted(METRICS))}."
            )
    return options


def describe_samples(
    experiment: Experiment,
    options: SampleOptions,
    step: int,
    guide: Guide | None = None,
) -> dict[str, Any]:
    """Where images come from: all that they depend on, as a JSON object."""
    config = experiment.config
    solver = options.create_solver(experiment.sde)
    record = {
        "checkpoint_step": step,
        "parameters": (
            f"ema {config.training.ema_decay}"
            if options.sigma_rel is None
            else f"post-hoc ema {options.sigma_rel}"
        ),
        "function_evaluations": sum(solver.evaluations),
        "dtype": config.backbone.get("dtype", "float32"),
        "platform": jax.default_backend(),
        "config": hashlib.sha256(config_to_json(config).encode()).hexdigest()[:16],
        **{k: v for k, v in asdict(options).items() if k != "batch_size"},
        "guide_step": guide.step if guide is not None else None,
    }
    return json.loads(json.dumps(record))  # tuples become lists


def save_samples(
    path: Path,
    images: UInt8Images,
    labels: Int[np.ndarray, "batch"] | None,
    provenance: dict[str, Any],
) -> None:
    """Write samples.npz: `images`, `labels` (0 where there are none), `provenance`."""
    if labels is None:
        labels = np.zeros(len(images), np.int32)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.stem + ".tmp.npz")
    np.savez_compressed(
        unfinished,
        images=images,
        labels=labels,
        provenance=np.array(json.dumps(provenance)),
    )
    unfinished.replace(path)


def read_samples(path: Path) -> tuple[LabelledImages, dict[str, Any]]:
    """Read what `save_samples` wrote.

    Raises:
        InputError: The file is not such an npz.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images = LabelledImages(arrays["images"], arrays["labels"])
            return images, json.loads(str(arrays["provenance"]))
    except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(
            f"{path} is no samples.npz with images, labels and provenance: {error}."
        ) from error


def score_samples(
    experiment: Experiment, generated: LabelledImages, provenance: dict[str, Any]
) -> dict[str, Any]:
    """A record of all scores of generated images, with their provenance."""
    start = time.perf_counter()
    options = create_evaluation_options(experiment)
    names = [
        name
        for name in options.metrics
        if experiment.backbone.num_classes or name != "label_accuracy"
    ]
    train = open_dataset(experiment, "train")
    test = open_dataset(experiment, "test")
    allowed = experiment.data.max_damaged_share
    real = [read_all(source, max_damaged_share=allowed) for source in (train, test)]
    scores = score(names, generated, *real)
    return {
        **scores,
        "num_train": len(train),
        "num_test": len(test),
        "dataset": train.name,
        "dataset_fingerprint": train.fingerprint,
        "transform": train.transform,
        "seconds": round(time.perf_counter() - start, 2),
        **provenance,
    }


def append_scores(workdir: Path, record: dict[str, Any]) -> Path:
    """Add a record to eval/scores.jsonl, one JSON object a line."""
    path = workdir / "eval" / "scores.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    return path


def format_scores(record: dict[str, Any]) -> str:
    """The scores of a record as text, each beside what real test images reach."""
    lines = [
        f"{record['num_images']} images of step {record['checkpoint_step']} "
        f"({record['solver']}, {record['num_steps']} steps) against "
        f"{record['num_train']} training images of {record['dataset']}",
        f"  {'':<18}{'drawn':>9}{'real test images':>19}",
    ]
    for name, value in record.items():
        if f"{name}_test" in record:
            lines.append(f"  {name:<18}{value:>9.4f}{record[f'{name}_test']:>19.4f}")
    return "\n".join(lines)

"""Score images against a data set, into a record of all that the scores depend on."""

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from dig_jax.errors import InputError
from dig_jax.evaluation.features import FeatureScorer, OnProgress, reference_set
from dig_jax.evaluation.options import pixel_metrics
from dig_jax.evaluation.real_images import RealImages
from dig_jax.evaluation.records import SCHEMA
from dig_jax.experiment import Experiment
from dig_jax.interfaces import LabelledImages
from dig_jax.metrics import COMPARE_AT_EQUAL_NUMBERS, score
from dig_jax.metrics.scores import Score
from dig_jax.options import EvaluationOptions
from dig_jax.sampling.samples import NO_LABELS
from dig_jax.versions import package_versions


class Evaluation(NamedTuple):
    """Scores of images.

    Attributes:
        scores: Each with all that it is of.
        record: The same as a JSON object, with all that they depend on.
    """

    scores: tuple[Score, ...]
    record: dict[str, Any]


class Evaluator:
    """Scores images against a configuration's data set, which is read once.

    Args:
        experiment: The configuration's; names the data set.
        options: What is scored.
        mesh: Devices that features are computed on.
        on_progress: Told of long work.
    """

    def __init__(
        self,
        experiment: Experiment,
        options: EvaluationOptions,
        mesh: Mesh,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._experiment, self._options = experiment, options
        self.real = RealImages(experiment, options.cache_dir)
        self._floors: dict[tuple[str, int], dict[str, float]] = {}
        self._mesh = mesh
        self._on_progress = on_progress or (lambda what, done, total: None)
        self._scorer: FeatureScorer | None = None

    @property
    def features(self) -> FeatureScorer | None:
        """What scores features; None where none are to be scored."""
        num_classes = self.real.source("train").num_classes
        if self._options.choose_network(num_classes) is None:
            return None
        if self._scorer is None:
            self._scorer = FeatureScorer(
                self._options, self.real, self._mesh, self._on_progress
            )
        return self._scorer

    def check(self, num_images: int) -> None:
        """Make what scores need and is missing: statistics, the classifier.

        Raises:
            InputError: So many images cannot be scored, or something is missing.
        """
        if self.features is not None:
            self.features.check(num_images)

    def score(
        self, drawn: LabelledImages, samples: dict[str, Any], *, draws: bool = True
    ) -> dict[str, Any]:
        """A record of all scores of images; see `evaluate`."""
        return self.evaluate(drawn, samples, draws=draws).record

    def evaluate(
        self, drawn: LabelledImages, samples: dict[str, Any], *, draws: bool = True
    ) -> Evaluation:
        """All scores of images, and the record of them.

        Args:
            drawn: The images.
            samples: Where they come from, as `describe_samples` says.
            draws: Whether to score fewer of them too where there are fewer test images.

        Raises:
            InputError: The images cannot be scored, or not against these real ones.
            NonFiniteError: A network's features are not finite.
        """
        start = time.perf_counter()
        drawn = self._as_the_real_ones(drawn)
        labelled = self._labelled(samples)
        scores = self._pixel_scores(drawn, labelled)
        if self.features is not None:
            scores += self.features.score(drawn, labelled=labelled, draws=draws)
        source = self.real.source(self._options.reference_split)
        record = {
            "schema": SCHEMA,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "num_images": len(drawn.images),
            "scores": {score.name: score.to_json() for score in scores},
            "samples": samples,
            "real": {
                **asdict(reference_set(source)),
                "num_images": len(source),
                "num_damaged": sum(self.real.num_damaged.values()),
            }
            | self._reference_in_file(),
            "features": None if self.features is None else self.features.describe(),
            "notes": self._notes(len(drawn.images)),
            "versions": package_versions(),
            "seconds": round(time.perf_counter() - start, 2),
        }
        return Evaluation(tuple(scores), record)

    def _as_the_real_ones(self, drawn: LabelledImages) -> LabelledImages:
        """Images of the data set's shape; RGB of equal channels becomes grey for it.

        Raises:
            InputError: They are of another shape.
        """
        images, shape = drawn.images, self.real.source("train").image_shape
        if images.shape[1:] == (*shape[:2], 3) and shape[2] == 1:
            grey = images[..., :1]
            if (images == grey).all():
                return drawn._replace(images=grey)
        if images.shape[1:] != shape:
            raise InputError(
                f"Images to be scored must be {shape} (row, col, rgb), as those of "
                f"{self.real.source('train').name!r}, got {images.shape[1:]}."
            )
        return drawn

    def _labelled(self, samples: dict[str, Any]) -> bool:
        """Whether images were drawn for their labels."""
        has_labels = self.real.source("train").num_classes > 1
        conditional = self._experiment.backbone.num_classes > 0
        return has_labels and conditional and samples.get("labels") != NO_LABELS

    def _pixel_scores(self, drawn: LabelledImages, labelled: bool) -> list[Score]:
        names = [
            name
            for name in pixel_metrics(self._options)
            if labelled or name != "label_accuracy"
        ]
        if not names:
            return []
        train = self.real.all("train")
        count, scores = len(drawn.images), []
        for name in names:
            values = score([name], drawn, train)
            real, num_real = self._pixel_floor(name, count, train)
            scores += [
                Score(
                    family,
                    value,
                    count,
                    of="pixels",
                    real=real.get(family),
                    num_real=num_real,
                )
                for family, value in values.items()
            ]
        return scores

    def _pixel_floor(
        self, name: str, count: int, train: LabelledImages
    ) -> tuple[dict[str, float], int | None]:
        """What test images score, and how many: where that matters, as many as drawn.

        Of fewer test images than drawn ones all are taken.
        """
        if not self.real.has_test:
            return {}, None
        test = self.real.all("test")
        size = len(test.images)
        if name in COMPARE_AT_EQUAL_NUMBERS:
            size = min(size, count)
        if (name, size) not in self._floors:
            some = test if size == len(test.images) else _some_of(test, size)
            self._floors[name, size] = score([name], some, train)
        return self._floors[name, size], size

    def _reference_in_file(self) -> dict[str, Any]:
        """Of which images the statistics are that a file has; what it leaves unsaid."""
        if self.features is None or not self._options.reference:
            return {}
        reference = self.features.reference
        return {
            **asdict(reference.images),
            "num_images": reference.summary.moments.count,
            "pixels_of": self.real.source("train").name,
        }

    def _notes(self, num_images: int) -> list[str]:
        """What a reader of the scores must know."""
        notes = [] if self.real.has_test else ["no test images: no noise floor"]
        if self.features is not None:
            notes += [f"statistics of {line}" for line in self.features.differences]
            if num_images <= (dim := self.features.extractor.space.dim):
                notes.append(
                    f"{num_images} images for {dim} features: distances are biased "
                    "upwards by much"
                )
        return notes


def _some_of(images: LabelledImages, count: int) -> LabelledImages:
    """So many of them, chosen at random, always the same ones, in their order."""
    chosen = np.random.default_rng(0).permutation(len(images.images))[:count]
    chosen.sort()
    return LabelledImages(images.images[chosen], images.labels[chosen])

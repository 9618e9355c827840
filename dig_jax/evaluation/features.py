"""Scores from features: the network, and the statistics of real images.

Statistics and the classifier are made once for each data set and kept beside it, under
names that say what they depend on.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from dig_jax.errors import InputError
from dig_jax.evaluation.options import reference_file, weights_file
from dig_jax.evaluation.real_images import BATCH_SIZE, RealImages
from dig_jax.files.paths import AnyPath
from dig_jax.interfaces import ImageSource, LabelledImages, UInt8Images
from dig_jax.metrics import FEATURE_METRICS
from dig_jax.metrics.extraction import FeatureExtractor
from dig_jax.metrics.feature_scores import (
    FeatureOptions,
    FeatureSummary,
    scores_from_features,
    scores_of_draws,
    summarize_images,
)
from dig_jax.metrics.networks.inception import create_inception_extractor
from dig_jax.metrics.networks.small_classifier import (
    ClassifierOptions,
    load_or_train_classifier,
)
from dig_jax.metrics.reference import (
    ReferenceSet,
    ReferenceStatistics,
    check_reference,
    read_reference,
    read_reference_file,
    write_reference,
)
from dig_jax.metrics.scores import Score
from dig_jax.options import EvaluationOptions

MAX_LABELLED = 60_000
"""The classifier trains on no more images, and reads no more labels of real ones: those
of the MNIST family are read once for it and for all that compares pixels."""

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""`(what is done, how much of it, of how much)`."""


class FeatureScorer:
    """Scores images by features against real ones, whose statistics it has or makes.

    Args:
        options: Network, statistics, and what is allowed.
        real: The data set.
        mesh: Devices that images are spread over.
        on_progress: Told of long work.
    """

    def __init__(
        self,
        options: EvaluationOptions,
        real: RealImages,
        mesh: Mesh,
        on_progress: OnProgress,
    ) -> None:
        self._options, self._real, self._mesh = options, real, mesh
        self._feature_options = FeatureOptions(num_held=options.num_held)
        self._on_progress = on_progress
        self._floors: dict[int, tuple[Score, ...]] = {}

    @cached_property
    def extractor(self) -> FeatureExtractor:
        """The network.

        Raises:
            InputError: Its weights are missing, or it cannot be trained.
        """
        options, source = self._options, self._real.source("train")
        if options.choose_network(source.num_classes) == "inception":
            path = weights_file(options)
            assert path is not None  # by `check_evaluation_options`
            return create_inception_extractor(weights=path, resize=options.resize)
        classifier, count = ClassifierOptions(), min(len(source), MAX_LABELLED)
        num_steps = classifier.count_steps(count)
        return load_or_train_classifier(
            self.classifier_file,
            lambda: self._real.some("train", MAX_LABELLED),
            num_images=count,
            dataset=source.name,
            fingerprint=source.fingerprint,
            options=classifier,
            on_progress=lambda done: self._on_progress("classifier", done, num_steps),
        )

    @property
    def classifier_file(self) -> AnyPath:
        """Where the data set's own classifier is kept."""
        source = self._real.source("train")
        name = f"classifier_{source.name}_{source.fingerprint}.safetensors"
        return self._real.cache_folder / name

    @cached_property
    def reference(self) -> ReferenceStatistics:
        """Statistics of the real images that scores compare with.

        Raises:
            InputError: Those named cannot be read.
        """
        path = reference_file(self._options)
        if path is None:
            return self.statistics(self._options.reference_split)
        images = read_reference_file(path, self.extractor.space)
        if isinstance(images, ReferenceStatistics):
            return images
        digest = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
        summary = self._summarize(images, "reference features")
        network = self.extractor.space.name
        return ReferenceStatistics(summary, ReferenceSet(), digest, ("arr_0",), network)

    @cached_property
    def differences(self) -> list[str]:
        """What the reference differs in from this data set, where that is allowed.

        Raises:
            InputError: It differs, and may not.
        """
        return check_reference(
            self.reference,
            self.extractor.space,
            reference_set(self._real.source(self._options.reference_split)),
            force=self._options.allow_other_reference,
        )

    def check(self, num_images: int) -> None:
        """Make what is missing, so that nothing fails once images have been drawn.

        Raises:
            InputError: A score of so many images cannot be had.
        """
        if not self._options.allow_few_images:
            check_enough_images(num_images, self.extractor.space.dim)
        _ = self.differences

    def statistics(
        self, split: str, path: AnyPath | None = None
    ) -> ReferenceStatistics:
        """Statistics of a part of the data set: read where they are kept, else made.

        Args:
            split: Which part: each of its images once, not mirrored.
            path: Make them anew, into this file.

        Raises:
            InputError: The images cannot be read, or the file not be written.
        """
        space, source = self.extractor.space, self._real.source(split)
        if path is None:
            path = self.kept_file(split)
            if (found := self._read_kept(split)) is not None:
                return found
        summary = self._summarize_split(split)
        try:
            write_reference(path, summary, reference_set(source))
        except OSError as error:
            raise InputError(
                f"Statistics need a place to be kept in, and {path} cannot be written: "
                f"{error}. Name another: --config.evaluation.cache_dir=DIR."
            ) from error
        return read_reference(path, space)

    def score(
        self, drawn: LabelledImages, *, labelled: bool, draws: bool
    ) -> list[Score]:
        """All scores of images, and real test images' beside them.

        Args:
            drawn: The images.
            labelled: Whether they were drawn for their labels.
            draws: Whether to score fewer of them too, where there are fewer test
                images: distances compare at equal numbers alone.
        """
        labels = drawn.labels if labelled else None
        summary = self._summarize(drawn.images, "features", labels)
        scores = list(
            scores_from_features(
                summary,
                self.reference.summary,
                options=self._feature_options,
                force=self._options.allow_few_images,
            )
        )
        test = self._test
        if test is None or test.held is None or summary.held is None:
            return scores
        fewer = min(len(summary.held), len(test.held))
        if draws and fewer < len(drawn.images):
            known = {score.key for score in scores}
            of_fewer = self._of_draws(summary, fewer)
            scores += [score for score in of_fewer if score.key not in known]
        return self._beside_test(scores, fewer)

    def describe(self) -> dict[str, Any]:
        """Network and statistics, for a record."""
        space, reference = self.extractor.space, self.reference
        return {
            "network": f"{space.name} of {space.domain}"
            if space.domain
            else space.name,
            "weights": space.weights,
            "resize": space.resize,
            "statistics": reference.sha256,
            "statistics_keys": list(reference.keys),
            "statistics_network": reference.network,
            "statistics_of": asdict(reference.images),
            "statistics_file": self._options.reference,
            "statistics_images": reference.summary.moments.count,
        }

    @cached_property
    def _test(self) -> FeatureSummary | None:
        if self._real.has_test and self._options.num_held:
            return self.statistics("test").summary
        return None

    def _floor(self, num_images: int) -> tuple[Score, ...]:
        """Scores of at most so many test images."""
        assert self._test is not None
        if num_images not in self._floors:
            self._floors[num_images] = self._of_draws(self._test, num_images)
        return self._floors[num_images]

    def _of_draws(self, images: FeatureSummary, num_images: int) -> tuple[Score, ...]:
        return scores_of_draws(
            images,
            self.reference.summary,
            num_images=num_images,
            options=self._feature_options,
            force=True,
        )

    def _beside_test(self, scores: list[Score], num_images: int) -> list[Score]:
        """Scores with what at most so many real test images reach."""
        floor = {score.key: score for score in self._floor(num_images)}
        whole = {score.kind: score for score in self._of_all_test_images}
        beside = []
        for score in scores:
            if (real := whole.get(score.kind)) is not None:
                count = len(self._real.source("test"))
                score = replace(score, real=real.value, num_real=count)
            elif (real := floor.get(score.key)) is not None:
                score = replace(
                    score, real=real.value, real_std=real.std, num_real=num_images
                )
            beside.append(score)
        return beside

    @cached_property
    def _of_all_test_images(self) -> tuple[Score, ...]:
        """Scores that need more than the features that are held."""
        assert self._test is not None
        return scores_from_features(
            self._test,
            self.reference.summary,
            options=self._feature_options,
            force=True,
            metrics=[m for m in FEATURE_METRICS.values() if m.needs == "all"],
        )

    def _summarize(
        self,
        images: UInt8Images,
        what: str,
        labels: Int[np.ndarray, "image"] | None = None,
    ) -> FeatureSummary:
        """One pass over images in memory; labels where the network reads them."""
        count = len(images)
        batches = (images[i : i + BATCH_SIZE] for i in range(0, count, BATCH_SIZE))
        return summarize_images(
            self.extractor,
            batches,
            count,
            self._mesh,
            labels=labels if self.extractor.space.domain else None,
            options=self._feature_options,
            on_progress=lambda done: self._on_progress(what, done, count),
        )

    def _summarize_split(self, split: str) -> FeatureSummary:
        """One pass over a part of the data set."""
        count, what = len(self._real.source(split)), f"{split} features"
        if self.extractor.space.domain and count <= MAX_LABELLED:
            images = self._real.all(split)
            return self._summarize(images.images, what, images.labels)
        return summarize_images(
            self.extractor,
            self._real.batches(split),
            count,
            self._mesh,
            options=self._feature_options,
            on_progress=lambda done: self._on_progress(what, done, count),
        )

    def kept_file(self, split: str) -> AnyPath:
        """Where the statistics of a part of the data set are kept."""
        space, source = self.extractor.space, self._real.source(split)
        parts = (
            *(source.name, source.split.replace("+", "-"), source.fingerprint),
            *(space.name, space.weights, space.resize, f"held{self._options.num_held}"),
        )
        return self._real.cache_folder / f"{'_'.join(parts)}.npz"

    def _read_kept(self, split: str) -> ReferenceStatistics | None:
        """The statistics that are kept; None if there are none, or damaged ones."""
        space, path = self.extractor.space, self.kept_file(split)
        if not path.is_file():
            return None
        try:
            found = read_reference(path, space)
            check_reference(found, space, reference_set(self._real.source(split)))
        except InputError:
            return None
        # A file of another project would say nothing of its images.
        return None if found.images == ReferenceSet() else found


def check_enough_images(num_images: int, dim: int) -> None:
    """Raise InputError unless there are more images than features."""
    if num_images <= dim:
        raise InputError(
            f"A Frechet distance of {dim} features needs more images than features, "
            f"got {num_images}. Draw more (--config.sample.num_images={2 * dim}), or "
            "take it all the same, biased upwards "
            "(--config.evaluation.allow_few_images=true)."
        )


def reference_set(source: ImageSource) -> ReferenceSet:
    """Which images statistics of a source are of."""
    return ReferenceSet(source.name, source.split, source.transform, source.fingerprint)

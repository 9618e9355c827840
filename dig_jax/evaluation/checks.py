"""Which scores a configuration and its data give, known before any image is drawn."""

import contextlib
from dataclasses import replace

from dig_jax.errors import Findings, InputError
from dig_jax.evaluation import features
from dig_jax.evaluation.options import pixel_metrics, reference_file
from dig_jax.interfaces import ImageSource
from dig_jax.metrics import FEATURE_METRICS, GREATER_IS_BETTER
from dig_jax.metrics.feature_summary import FeatureMetric
from dig_jax.metrics.networks.inception_weights import NUM_FEATURES
from dig_jax.metrics.reference import arrays_to_score_by, check_reference_file
from dig_jax.metrics.scores import Score
from dig_jax.options import EvaluationOptions, Network

# The scores of entries of METRICS whose name is another.
_NAMES = {"copies": "copied_share"}
_OF_LABELS = "label_accuracy"


def score_families(
    options: EvaluationOptions, source: ImageSource, *, conditional: bool = True
) -> list[str]:
    """Scores that one may choose by, without their number of images.

    Args:
        options: What is scored.
        source: The data set.
        conditional: Whether images are drawn for labels.
    """
    labelled = conditional and source.num_classes > 1
    pixels = _pixel_scores(options, labelled)
    chosen = [score.kind for score, _ in _feature_scores(options, source, labelled, 1)]
    return [name for name in pixels if name in GREATER_IS_BETTER] + chosen


def score_names(
    options: EvaluationOptions,
    source: ImageSource,
    *,
    num_images: int,
    num_test: int,
    conditional: bool = True,
) -> list[str]:
    """The names of all scores of drawn images, with their numbers of images.

    Args:
        options: What is scored.
        source: The training images.
        num_images: How many are drawn.
        num_test: Test images: scores of features are taken of so few, too.
        conditional: Whether they are drawn for labels.
    """
    labelled = conditional and source.num_classes > 1
    most = min(num_images, options.num_held)
    names = _pixel_scores(options, labelled)
    for score, metric in _feature_scores(options, source, labelled, num_images):
        names.append(score.name if metric.needs != "held" else _of(score, most))
    fewer = min(num_test, most)
    if 0 < fewer < num_images:
        for score, metric in _feature_scores(options, source, labelled, fewer):
            names += [score.name] if metric.needs != "all" else []
    return list(dict.fromkeys(names))


def check_scores(options: EvaluationOptions, source: ImageSource) -> None:
    """Raise InputError for what this data set's images cannot be scored by.

    Args:
        options: What is scored.
        source: The training images.
    """
    findings = Findings()
    network = options.choose_network(source.num_classes)
    with findings.noting():
        if network == "classifier" and source.num_classes < 2:
            raise InputError(
                f"config.evaluation.features='classifier' needs images with two labels "
                f"or more, and {source.name!r} has {source.num_classes or 'none'}. Use "
                f"'auto' or 'none', or 'inception' with its weights."
            )
    with findings.noting():
        if _OF_LABELS in (options.metrics or ()) and source.num_classes < 2:
            raise InputError(
                f"config.evaluation.metrics has {_OF_LABELS!r}, which needs images "
                f"with two labels or more, and {source.name!r} has "
                f"{source.num_classes or 'none'}. Leave it out."
            )
    path = reference_file(options)
    if network is not None and path is not None and not findings.any:
        with findings.noting():
            check_reference_file(
                path,
                dim=num_features(network),
                of_classifier=network == "classifier",
                force=options.allow_other_reference,
            )
    findings.raise_all()


def check_num_images(
    options: EvaluationOptions, source: ImageSource, num_images: int
) -> None:
    """Raise InputError where so few images have no Frechet distance of features."""
    network = options.choose_network(source.num_classes)
    if network is not None and not options.allow_few_images:
        features.check_enough_images(num_images, num_features(network))


def say_what_reference_lacks(options: EvaluationOptions, source: ImageSource) -> str:
    """A sentence for those who ask for a score that a reference file is too small for.

    Args:
        options: What is scored.
        source: The training images.

    Returns:
        "" where no file is named, or it has all that scores need; else a sentence that
        begins with a space.
    """
    network = options.choose_network(source.num_classes)
    arrays = _arrays_in_reference(options)
    if network is None or arrays is None:
        return ""
    missing = [
        family
        for metric in FEATURE_METRICS.values()
        if metric.reference and metric.reference not in arrays
        for family in (
            metric.classifier if network == "classifier" else metric.inception
        )
    ]
    if not missing:
        return ""
    return (
        f" The statistics in {options.reference} have no arrays for "
        f"{', '.join(missing)}: name a file of --mode=stats, or of images (arr_0)."
    )


def num_features(network: Network) -> int:
    """How many features a network gives."""
    if network == "inception":
        return NUM_FEATURES
    return features.ClassifierOptions().num_features


def _pixel_scores(options: EvaluationOptions, labelled: bool) -> list[str]:
    return [
        _NAMES.get(name, name)
        for name in pixel_metrics(options)
        if labelled or name != _OF_LABELS
    ]


def _feature_scores(
    options: EvaluationOptions, source: ImageSource, labelled: bool, num_images: int
) -> list[tuple[Score, FeatureMetric]]:
    """The scores of so many images, without values, and what gives each."""
    network = options.choose_network(source.num_classes)
    if network is None or (network == "classifier" and source.num_classes < 2):
        return []
    found, arrays = [], _arrays_in_reference(options)
    for metric in FEATURE_METRICS.values():
        if metric.needs == "held" and not options.num_held:
            continue
        if arrays is not None and metric.reference and metric.reference not in arrays:
            continue
        own = network == "classifier"
        for family in metric.classifier if own else metric.inception:
            if labelled or family != _OF_LABELS:
                domain = source.name if own else ""
                score = Score(family, 0.0, num_images, domain=domain)
                found.append((score, metric))
    return found


def _arrays_in_reference(options: EvaluationOptions) -> frozenset[str] | None:
    """What the file of statistics has; None where it is made of the data set itself.

    None, too, for one that cannot be read: `check_scores` says what is wrong with it.
    """
    with contextlib.suppress(InputError):
        path = reference_file(options)
        if path is not None and path.is_file():
            return arrays_to_score_by(path)
    return None


def _of(score: Score, num_images: int) -> str:
    """Its name as that of another number of images."""
    return replace(score, num_images=num_images).name

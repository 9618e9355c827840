"""The evaluation section of a configuration."""

from dataclasses import dataclass
from typing import Literal

from pydantic import NonNegativeInt

from dig_jax.config import call_with_section
from dig_jax.errors import InputError
from dig_jax.experiment import Experiment
from dig_jax.files.paths import open_path
from dig_jax.interfaces import ImageSource
from dig_jax.metrics import METRICS
from dig_jax.metrics.feature_scores import FeatureOptions
from dig_jax.metrics.networks.inception import Resize
from dig_jax.metrics.networks.inception_weights import HOW_TO_GET_WEIGHTS

Network = Literal["inception", "classifier"]


@dataclass(frozen=True)
class EvaluationOptions:
    """What images are scored by.

    Attributes:
        metrics: Entries of METRICS: scores from pixels.
        features: Network whose features are compared: "inception", "classifier" (a
            small one, trained on the data set itself), "none", or "auto": Inception
            where its weights are named, else the classifier where images have labels.
        inception_weights: File of Inception's weights.
        resize: How images become Inception's input: "tf1" as the published scores, or
            "torch".
        reference: File of reference statistics, of this program, pytorch-fid or the ADM
            evaluator; "" for those of the data set itself, made when they are missing.
        reference_split: Of which part of the data set.
        num_held: Images whose features are kept, for KID, precision and recall.
        allow_few_images: Score sets with fewer images than features; Frechet distances
            are then biased upwards by much.
        allow_other_reference: Use statistics of other images, weights or resizing.
        cache_dir: Where statistics and the classifier are kept; "" for a folder beside
            the data set.
    """

    metrics: tuple[str, ...] = tuple(sorted(METRICS))
    features: Literal["auto", "inception", "classifier", "none"] = "auto"
    inception_weights: str = ""
    resize: Resize = "tf1"
    reference: str = ""
    reference_split: str = "train"
    num_held: NonNegativeInt = 10_000
    allow_few_images: bool = False
    allow_other_reference: bool = False
    cache_dir: str = ""

    @property
    def feature_options(self) -> FeatureOptions:
        """How features are scored."""
        return FeatureOptions(num_held=self.num_held)

    def choose_network(self, num_classes: int) -> Network | None:
        """The network that features come from; None for none.

        Args:
            num_classes: Labels of the data set.
        """
        if self.features == "auto":
            if self.inception_weights:
                return "inception"
            return "classifier" if num_classes > 1 else None
        return None if self.features == "none" else self.features


def score_families(options: EvaluationOptions, source: ImageSource) -> list[str]:
    """Scores that one may choose by, without their number of images.

    Args:
        options: What is scored.
        source: The data set.
    """
    families = [m for m in options.metrics if m in ("frechet_pixels", "label_accuracy")]
    network = options.choose_network(source.num_classes)
    if network == "inception":
        families += ["fid", "sfid", "inception_score"]
    elif network == "classifier":
        families += [f"fd_{source.name}", f"label_accuracy_{source.name}"]
    if network is not None and options.num_held:
        suffix = f"_{source.name}" if network == "classifier" else ""
        families += [f"{name}{suffix}" for name in ("kid", "precision", "recall")]
    return families


def create_evaluation_options(experiment: Experiment) -> EvaluationOptions:
    """The evaluation section, checked.

    Raises:
        InputError: Unknown metric, Inception without its weights, or a file that is
            named and not there.
    """
    section = experiment.config.evaluation.to_dict()
    options = call_with_section("evaluation", EvaluationOptions, section)
    for name in options.metrics:
        if name not in METRICS:
            raise InputError(
                f"Unknown metric {name!r} in config.evaluation.metrics. Available: "
                f"{', '.join(sorted(METRICS))}. Features are chosen by "
                f"config.evaluation.features."
            )
    if options.features == "inception" and not options.inception_weights:
        raise InputError(
            "config.evaluation.features='inception' needs the network's weights, and "
            f"config.evaluation.inception_weights names none. {HOW_TO_GET_WEIGHTS}"
        )
    for key, how in (
        ("inception_weights", HOW_TO_GET_WEIGHTS),
        ("reference", "Make some with --mode=stats, or leave it empty."),
    ):
        path = getattr(options, key)
        if path and not open_path(path).is_file():
            raise InputError(
                f"config.evaluation.{key} must name a file, and there is no {path}. "
                f"{how}"
            )
    return options

"""What the evaluation section of a configuration asks for, and whether it works."""

from dig_jax.errors import InputError
from dig_jax.files.paths import AnyPath, open_path
from dig_jax.metrics import METRICS
from dig_jax.metrics.networks.inception_weights import HOW_TO_GET_WEIGHTS
from dig_jax.options import EvaluationOptions

HOW_TO_GET_STATISTICS = "Make some with --mode=stats, or leave it empty."


def weights_file(options: EvaluationOptions) -> AnyPath | None:
    """The file of Inception's weights; None where none is named."""
    return open_path(options.inception_weights) if options.inception_weights else None


def reference_file(options: EvaluationOptions) -> AnyPath | None:
    """The file of the reference's statistics; None where they are to be made."""
    return open_path(options.reference) if options.reference else None


def pixel_metrics(options: EvaluationOptions) -> tuple[str, ...]:
    """The entries of METRICS that are scored."""
    return tuple(sorted(METRICS)) if options.metrics is None else options.metrics


def check_evaluation_options(options: EvaluationOptions) -> EvaluationOptions:
    """The options, if images can be scored so.

    Raises:
        InputError: Unknown metric, Inception without its weights, or a file that is
            named and not there.
    """
    for name in pixel_metrics(options):
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
    for key, path, how in (
        ("inception_weights", weights_file(options), HOW_TO_GET_WEIGHTS),
        ("reference", reference_file(options), HOW_TO_GET_STATISTICS),
    ):
        if path is not None and not path.is_file():
            raise InputError(
                f"config.evaluation.{key} must name a file, and there is no "
                f"{getattr(options, key)}. {how}"
            )
    return options

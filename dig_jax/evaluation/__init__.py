"""Scores of drawn images that can be believed: what they are of is kept with them."""

from dig_jax.evaluation.checks import (
    check_num_images,
    check_scores,
    say_what_reference_lacks,
    score_families,
    score_names,
)
from dig_jax.evaluation.evaluator import Evaluation, Evaluator
from dig_jax.evaluation.options import check_evaluation_options
from dig_jax.evaluation.records import (
    append_record,
    flat_scores,
    format_record,
    is_better,
    mean_record,
    read_records,
    read_scores,
    real_of,
)
from dig_jax.metrics.scores import Score
from dig_jax.options import EvaluationOptions
from dig_jax.sampling.samples import (
    describe_samples,
    read_samples,
    save_adm_batch,
    save_samples,
)
from dig_jax.sampling.store import SampleStore, draw_into

__all__ = [
    "Evaluation",
    "EvaluationOptions",
    "Evaluator",
    "SampleStore",
    "Score",
    "append_record",
    "check_evaluation_options",
    "check_num_images",
    "check_scores",
    "describe_samples",
    "draw_into",
    "flat_scores",
    "format_record",
    "is_better",
    "mean_record",
    "read_records",
    "read_samples",
    "read_scores",
    "real_of",
    "save_adm_batch",
    "save_samples",
    "say_what_reference_lacks",
    "score_families",
    "score_names",
]

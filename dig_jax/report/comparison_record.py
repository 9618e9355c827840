"""What a comparison's record holds: values by seed, their order, their differences."""

from typing import Any

import numpy as np

from dig_jax.comparison.noise_levels import has_reference_sde
from dig_jax.comparison.points import scores_at_end
from dig_jax.comparison.verdict import HELD_OUT_LOSS, by_seed, value_of
from dig_jax.evaluation.records import direction
from dig_jax.metrics.scores import Score

Record = dict[str, Any]


def quality_score(record: Record) -> Score | None:
    """The score that is compared, as the first run has it."""
    return next((s for s in scores_at_end(record) if s.name == record["quality"]), None)


def way(record: Record) -> str | None:
    """Which way the compared score is better, "up" or "down"; None if unknown."""
    score = quality_score(record)
    return None if score is None else direction(score)


def ends(variant: Record, name: str) -> dict[int, float]:
    """A score at the end of each run, by seed."""
    return {
        run["seed"]: run["points"][-1][name]
        for run in variant["runs"]
        if name in run["points"][-1]
    }


def ranked(record: Record) -> list[Record]:
    """The variants that have been run, the best first."""
    run = [variant for variant in record["variants"] if variant["runs"]]
    order = record.get("ranking")
    if isinstance(order, list) and {v["name"] for v in run} == set(order):
        return sorted(run, key=lambda variant: order.index(variant["name"]))
    quality = record["quality"]
    return sorted(
        run,
        key=lambda variant: float(np.mean(list(ends(variant, quality).values()))),
        reverse=way(record) == "up",
    )


def losses(variant: Record) -> dict[int, float]:
    """The held-out loss (eps) at the end of each run, by seed."""
    return by_seed(variant, value_of(HELD_OUT_LOSS))


def is_ranked_by_loss(record: Record) -> bool:
    """Whether the ranking is by held-out loss: of one noise, in newer records."""
    variants = ranked(record)
    if not all(map(has_reference_sde, variants)):
        return False
    by_loss = sorted(variants, key=lambda one: np.mean(list(losses(one).values())))
    return record.get("ranking") == [one["name"] for one in by_loss]


def judges_of(record: Record, variants: list[Record]) -> list[str]:
    """What variants are shown by: the held-out loss, where it was measured, first."""
    first = [HELD_OUT_LOSS] if having(variants, HELD_OUT_LOSS) else []
    return [*first, record["quality"]]


def having(variants: list[Record], score: str) -> list[Record]:
    """The variants that have a judge's value at the end, of one that compares."""
    if score != HELD_OUT_LOSS:
        return variants
    return [
        variant
        for variant in variants
        if has_reference_sde(variant)
        and all("noise_levels" in run["points"][-1] for run in variant["runs"])
    ]


def has_course(variants: list[Record], score: str) -> bool:
    """Whether a judge's value was measured along training, of each that has it."""
    return score != HELD_OUT_LOSS or all(
        "noise_levels" in point
        for variant in having(variants, score)
        for run in variant["runs"]
        for point in run["points"]
    )


def paired(record: Record, variant: Record) -> str:
    """Mean difference from the reference with the same seed, ± standard error."""
    found = list(differences_of(record, variant, record["quality"]).values())
    if not found:
        return ""
    if len(found) == 1:
        return f"{found[0]:+.4f}"
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    return f"{np.mean(found):+.4f} ± {error:.4f}"


def differences_of(record: Record, variant: Record, score: str) -> dict[int, float]:
    """A judge's value less the reference's with the same seed, by seed."""
    reference = next(v for v in record["variants"] if v["name"] == record["reference"])
    base, mine = (by_seed(v, value_of(score)) for v in (reference, variant))
    return {seed: mine[seed] - base[seed] for seed in mine if seed in base}

"""What a comparison's record holds: values by seed, their order, their differences."""

from typing import Any

import numpy as np

from dig_jax.comparison.noise_levels import has_reference_sde
from dig_jax.comparison.verdict import HELD_OUT_LOSS, by_seed, value_of
from dig_jax.evaluation.records import direction, read_scores
from dig_jax.metrics.scores import Score

Record = dict[str, Any]


def quality_score(record: Record) -> Score | None:
    """The score that is compared, as the first run has it."""
    for variant in record["variants"]:
        for run in variant["runs"]:
            found = run["points"][-1].get("record")
            for score in read_scores(found) if found else ():
                if score.name == record["quality"]:
                    return score
    return None


def way(record: Record) -> str | None:
    """Which way the compared score is better, "up" or "down"; None if unknown."""
    score = quality_score(record)
    return None if score is None else direction(score)


def ends(variant: Record, name: str) -> dict[int, float]:
    """A score at the end of each run, by seed."""
    return {run["seed"]: run["points"][-1][name] for run in variant["runs"]}


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


def spread(values: list[float]) -> str:
    """Mean and standard deviation (over n - 1)."""
    deviation = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{deviation}"


def paired(record: Record, variant: Record) -> str:
    """Mean difference from the reference with the same seed, ± standard error."""
    found = list(differences_of(record, variant).values())
    if not found:
        return ""
    if len(found) == 1:
        return f"{found[0]:+.4f}"
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    return f"{np.mean(found):+.4f} ± {error:.4f}"


def differences_of(record: Record, variant: Record) -> dict[int, float]:
    """The score less the reference's with the same seed, by seed."""
    reference = next(v for v in record["variants"] if v["name"] == record["reference"])
    base, mine = (ends(v, record["quality"]) for v in (reference, variant))
    return {seed: mine[seed] - base[seed] for seed in mine if seed in base}

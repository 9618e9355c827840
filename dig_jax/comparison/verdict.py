"""Who is ahead, by how much, and how sure: a rule over pairs of runs of one seed."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from scipy.special import stdtr

from dig_jax.comparison.noise_levels import has_reference_sde

HELD_OUT_LOSS = "held_out_loss"
"""The first judge: the error of the noise on test images, over all noise levels."""
ERRORS = 2.0
"""Standard errors that a mean difference must exceed to be more than a tie."""

Says: TypeAlias = Literal["ahead", "tie", "behind"]


class Verdict(NamedTuple):
    """One variant against another by one score.

    Attributes:
        variant: Which one.
        against: The other one.
        score: What judges: "held_out_loss", or a score of drawn images.
        difference: Mean of the variant's value less the other's with the same seed.
        standard_error: Its own, from the deviation of the differences over seeds.
        num_seeds: Number of pairs.
        says: "ahead" or "behind" where the difference exceeds `ERRORS` of its standard
            errors, else "tie".
        chance: Probability of a mean difference of so many standard errors or more, in
            either direction, where there is none (Student's t).
    """

    variant: str
    against: str
    score: str
    difference: float
    standard_error: float
    num_seeds: int
    says: Says
    chance: float


def judge_pairs(
    values: Mapping[int, float],
    others: Mapping[int, float],
    *,
    greater_is_better: bool = False,
) -> tuple[float, float, int, Says, float] | None:
    """Difference, standard error, number of pairs, verdict and chance (see `Verdict`).

    Args:
        values: A variant's by seed.
        others: The other one's.
        greater_is_better: Which way is better.

    Returns:
        None of fewer than two seeds in both: one difference has no error.
    """
    seeds = sorted(values.keys() & others.keys())
    if len(seeds) < 2:
        return None
    differences = np.array([values[seed] - others[seed] for seed in seeds])
    mean = float(differences.mean())
    error = float(differences.std(ddof=1) / np.sqrt(len(seeds)))
    says: Says = "tie"
    if abs(mean) > ERRORS * error:
        says = "ahead" if (mean > 0) == greater_is_better else "behind"
    return mean, error, len(seeds), says, chance_of(mean, error, len(seeds))


def chance_of(mean: float, error: float, num_pairs: int) -> float:
    """Two-sided p of Student's t, num_pairs - 1 degrees of freedom; 1 of no mean."""
    if mean == 0:
        return 1.0
    if error == 0:
        return 0.0
    return float(2 * stdtr(num_pairs - 1, -abs(mean) / error))


def false_alarms(num_pairs: int) -> float:
    """How often two that are alike would not tie, of so many pairs."""
    return chance_of(ERRORS, 1.0, num_pairs)


def find_verdicts(record: dict[str, Any]) -> list[Verdict]:
    """Every variant against the reference, the controls and the best, by each judge.

    Best is the least or greatest mean; where that is of one seed, the best of those
    with several, too. A variant without two seeds in common with the other one has no
    verdict, nor one by held-out loss whose noise is another.
    """
    found = []
    for score in judges(record):
        ranked = rank(record, score)
        values = {v["name"]: by_seed(v, value_of(score)) for v in ranked}
        greater = direction_of(record, score) == "up"
        several = [name for name, of_seed in values.items() if len(of_seed) > 1]
        best = (*list(values)[:1], *several[:1])
        asked = (record["reference"], *record.get("controls", ()), *best)
        for against in dict.fromkeys(asked):
            for name in values:
                if name == against or against not in values:
                    continue
                said = judge_pairs(
                    values[name], values[against], greater_is_better=greater
                )
                if said is not None:
                    found.append(Verdict(name, against, score, *said))
    return found


class First(NamedTuple):
    """Who is first by a score, and how the others stand to it.

    Attributes:
        variant: The one with the best mean over seeds.
        mean: That mean.
        behind: Variants that are behind it by the rule.
        tied: Those that are not told apart from it.
        not_judged: Those without two seeds in common with it.
    """

    variant: str
    mean: float
    behind: list[str]
    tied: list[str]
    not_judged: list[str]


def find_first(record: dict[str, Any], score: str) -> First | None:
    """Who is first by a judge; None of fewer than two variants that have it."""
    ranked = rank(record, score)
    if len(ranked) < 2 or direction_of(record, score) is None:
        return None
    first, *others = (variant["name"] for variant in ranked)
    said = {
        v["variant"]: v["says"]
        for v in record["verdict"]
        if v["score"] == score and v["against"] == first
    }
    behind, tied, unknown = (
        [name for name in others if said.get(name) in which]
        for which in (("behind",), ("tie", "ahead"), (None,))
    )
    mean = float(np.mean(list(by_seed(ranked[0], value_of(score)).values())))
    return First(first, mean, behind, tied, unknown)


TIE_RULE = (
    "ahead or behind where the difference exceeds two of its standard errors, else a "
    "tie: these runs do not tell the two apart"
)


def tell_alarms(verdicts: Iterable[Mapping[str, Any]]) -> str:
    """How many pairs are judged at once, and how many of them err by chance."""
    pairs = {
        (frozenset((one["variant"], one["against"])), one["score"]): one["num_seeds"]
        for one in verdicts
    }
    count = len(pairs)
    shares = ", ".join(
        f"{false_alarms(n):.0%} of pairs with {n} seeds"
        for n in sorted(set(pairs.values()))
    )
    said = f"Of networks that are alike the rule takes {shares} for different"
    if count < 2:
        return said
    expected = sum(map(false_alarms, pairs.values()))
    return (
        f"{said}. {count} pairs are judged at once, by all judges together: were all "
        f"alike, about {expected:.1f} would be called ahead or behind by chance"
    )


def tell_diverged(record: Mapping[str, Any]) -> list[str]:
    """A sentence or two for each variant of which runs diverged."""
    told = []
    for variant in record["variants"]:
        if seeds := variant.get("diverged"):
            shown = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
            rest = "its scores are of other seeds alone, and flatter it"
            rest = rest if variant["runs"] else "it has no scores"
            told.append(f"{variant['name']} diverged with {shown}: {rest}.")
    return told


def count_seeds(variant: Mapping[str, Any]) -> str:
    """How many runs of a variant were scored, and how many diverged."""
    diverged = len(variant.get("diverged", ()))
    scored = str(len(variant["runs"]))
    return f"{scored}, {diverged} diverged" if diverged else scored


def judges(record: dict[str, Any]) -> tuple[str, ...]:
    """The scores that a comparison is judged by, the first one first.

    A score of which neither way is better judges nothing.
    """
    scores = (HELD_OUT_LOSS, record["quality"])
    return tuple(s for s in scores if direction_of(record, s) is not None)


def rank(record: dict[str, Any], score: str | None = None) -> list[dict[str, Any]]:
    """The variants that have been run and have a score, the best mean first.

    Args:
        record: The comparison's.
        score: By what; None for the first judge, which every one of them has.
    """
    run = [variant for variant in record["variants"] if variant["runs"]]
    all_alike = all(map(has_reference_sde, run))
    by = score or (HELD_OUT_LOSS if all_alike else str(record["quality"]))
    if by == HELD_OUT_LOSS:
        run = [variant for variant in run if has_reference_sde(variant)]
    values = value_of(by)
    return sorted(
        run,
        key=lambda variant: np.mean(list(by_seed(variant, values).values())),
        reverse=direction_of(record, by) == "up",
    )


def direction_of(record: dict[str, Any], score: str) -> str | None:
    """Which way a score is better, "up" or "down"; None where that is not known."""
    if score == HELD_OUT_LOSS:
        return "down"
    return record.get("scores", {}).get(score, {}).get("better")


def value_of(score: str) -> Callable[[dict[str, Any]], float]:
    """What reads a judge's value off the end of a run."""
    if score == HELD_OUT_LOSS:
        return lambda end: held_out_loss(end["noise_levels"])
    return lambda end: end[score]


def held_out_loss(levels: Mapping[str, Iterable[float]]) -> float:
    """The mean over noise levels of the squared error of the noise."""
    return float(np.mean(list(levels["eps"])))


def by_seed(
    variant: dict[str, Any], value: Callable[[dict[str, Any]], float]
) -> dict[int, float]:
    """A value at the end of each run of a variant, by seed."""
    return {run["seed"]: float(value(run["points"][-1])) for run in variant["runs"]}

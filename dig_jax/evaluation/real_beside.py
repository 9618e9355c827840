"""Real test images beside drawn ones: how they are named, and what their scores say."""

from collections.abc import Iterable

from dig_jax.metrics.scores import Score

FRECHET = ("fd", "fid", "sfid", "frechet_pixels")
"""Families of scores that are larger of few images, by an excess of about 1/N."""


def name_real(num_real: int | None) -> str:
    """As in "297 real test images"; without a number where it is not known."""
    return f"{num_real:,} real test images" if num_real else "real test images"


def name_real_of(scores: Iterable[Score]) -> str:
    """The same of several scores: with a number where it is that of all."""
    counts = {score.num_real for score in scores if score.real is not None}
    return name_real(counts.pop() if len(counts) == 1 else None)


def explain_real(scores: Iterable[Score]) -> str:
    """What the real images' values are beside the drawn ones'; "" where there are none.

    They are a floor where there are as many of them as drawn images. Of other numbers
    Frechet distances do not compare, which is said with the numbers.
    """
    known = [score for score in scores if score.real is not None]
    if not known:
        return ""
    parts = ["Real test images are scored as if they had been drawn."]
    if len({score.num_real for score in known}) > 1:
        parts.append(f"They are {', '.join(map(_of_how_many, known))}.")
    if any(score.num_real == score.num_images for score in known):
        parts.append(
            "Where they are as many as the drawn ones, what they reach is the noise "
            "floor: images that nobody could tell from real ones would score about "
            "the same."
        )
    parts += [explain_distance(score) for score in known]
    if any(
        score.family == "label_accuracy" and score.num_real != score.num_images
        for score in known
    ):
        parts.append("A label accuracy is on average the same for any number.")
    return " ".join(filter(None, dict.fromkeys(parts)))


def explain_distance(score: Score) -> str:
    """Why a Frechet distance of another number of real images is no bound; else ""."""
    drawn, real = score.num_images, score.num_real
    if score.family not in FRECHET or score.real is None or real == drawn:
        return ""
    grows = "a Fréchet distance of few images is larger, by an excess of about 1/N"
    if not real or not drawn:
        return (
            f"How many real images {score.name} is of was not written down, and "
            f"{grows}: theirs is no lower bound."
        )
    beside = f"{score.name} is of {real:,} real images beside {drawn:,} drawn ones"
    if real < drawn:
        return (
            f"{beside}, and {grows}: drawn images can lie below theirs, which is no "
            "lower bound."
        )
    return f"{beside}, and {grows}: as few real images as drawn ones would lie higher."


def _of_how_many(score: Score) -> str:
    count = f"{score.num_real:,}" if score.num_real else "not counted"
    return f"{count} for {score.name}"

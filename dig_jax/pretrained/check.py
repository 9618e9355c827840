"""Draw and score the models of the package: does this installation compute right?

    python -m dig_jax.pretrained.check [--names=digits,fashion_mnist] [--data_dir=DIR]

Images of one seed are drawn and scored, by the classifier that the recorded scores are
of, and each score is printed beside the recorded one. One that is further from the
recorded mean than three of the deviations that seeds have is named, and the exit code
is 1. DIR is where Fashion-MNIST was prepared; the digits need none.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from dig_jax.config import with_values
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from dig_jax.evaluation import read_records, read_scores
from dig_jax.evaluation.score_run import create_evaluator, score_run
from dig_jax.files.shown import say
from dig_jax.pretrained import CLASSIFIER, PREFIX, shipped_names
from dig_jax.run import load

EXIT_OUTSIDE = 1
MOST_DEVIATIONS = 3
SHARES = ("label_accuracy", "copied_share", "precision", "recall")
"""Scores that count images: one image more or less is no difference."""
NO_SPREAD = 1e-9


class Compared(NamedTuple):
    """A score beside the recorded one.

    Attributes:
        name: As tables call it.
        value: Here.
        recorded: The mean over seeds.
        deviation: The standard deviation that seeds have.
    """

    name: str
    value: float
    recorded: float
    deviation: float

    @property
    def distance(self) -> float:
        """From the recorded mean, in deviations."""
        return abs(self.value - self.recorded) / max(self.deviation, NO_SPREAD)

    @property
    def is_inside(self) -> bool:
        """Whether that is no more than seeds explain; what is not finite never is."""
        return self.distance <= MOST_DEVIATIONS

    def __str__(self) -> str:
        verdict = "" if self.is_inside else "  OUTSIDE"
        return (
            f"{self.value:.4f}  {self.recorded:.4f} ± {self.deviation:.4f}  "
            f"{self.distance:.1f} deviations{verdict}"
        )


def compare_scores(
    recorded: Mapping[str, Any], found: Mapping[str, Any]
) -> list[Compared]:
    """Each recorded score that was measured again.

    Args:
        recorded: Mean and deviation over seeds.
        found: Of one seed.

    Raises:
        InputError: They are of other real images, another classifier or other numbers
            of images, and so do not compare.
    """
    for what, of in (
        ("real images", lambda record: record["real"]["fingerprint"]),
        ("classifier", lambda record: record["features"]["weights"]),
        ("number of images", lambda record: record["num_images"]),
    ):
        there, here = of(recorded), of(found)
        if there != here:
            raise InputError(
                f"Scores compare with the recorded ones at the same {what}: recorded "
                f"{there}, here {here}."
            )
    return [
        Compared(
            score.name,
            found["scores"][score.name]["value"],
            score.value,
            max(score.std or 0.0, 1 / score.num_images)
            if score.family in SHARES
            else score.std or 0.0,
        )
        for score in read_scores(recorded)
        if score.name in found["scores"]
    ]


def check_pretrained(name: str, data_dir: str | None) -> list[Compared]:
    """Draw and score a model's images of its first recorded seed.

    Args:
        name: What comes after `pretrained:`.
        data_dir: Where its data set was prepared; None for where the model says.

    Raises:
        InputError: There is no such model, or its data set is not there or another.
    """
    run = load(PREFIX + name)
    if data_dir is not None:
        config = with_values(run.config, {"data.data_dir": data_dir})
        run = load(PREFIX + name, config=config)
    assert run.workdir is not None
    recorded = read_records(run.workdir)[-1]
    with tempfile.TemporaryDirectory() as cache:
        options = replace(run.experiment.evaluation, cache_dir=cache)
        evaluator = create_evaluator(run.experiment, options)
        source = evaluator.real.source("train")
        if source.fingerprint != recorded["real"]["fingerprint"]:
            raise InputError(
                f"{PREFIX}{name} was scored against other images of {source.name!r} "
                f"(fingerprint {recorded['real']['fingerprint']}) than those that are "
                f"here ({source.fingerprint}): prepare it from the published files."
            )
        assert evaluator.features is not None, "recorded scores are of features"
        shutil.copyfile(run.workdir / CLASSIFIER, evaluator.features.classifier_file)
        (record,) = score_run(
            run.drawing(
                replace(run.experiment.sample, num_images=recorded["num_images"])
            ),
            evaluator,
            None,
            seeds=recorded["samples"]["seed"][:1],
        )
    return compare_scores(recorded, record)


def format_compared(name: str, compared: Sequence[Compared]) -> str:
    """A model's scores as a table."""
    rows = [(one.name, str(one)) for one in compared]
    width = max(len(row[0]) for row in rows)
    lines = [f"  {a:<{width}}  {b}" for a, b in rows]
    return "\n".join([f"{PREFIX}{name}: here, recorded (mean over seeds)", *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dig_jax.pretrained.check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--names", default="", metavar="NAME,...")
    parser.add_argument("--data_dir", metavar="DIR")
    options = parser.parse_args(arguments)
    outside = []
    try:
        for name in options.names.split(",") if options.names else shipped_names():
            start = time.perf_counter()
            compared = check_pretrained(name.strip(), options.data_dir)
            say(format_compared(name, compared))
            say(f"  in {time.perf_counter() - start:.0f} s")
            outside += [f"{name}: {c.name}" for c in compared if not c.is_inside]
    except InputError as error:
        say(f"error: {error}", error=True)
        return EXIT_BAD_INPUT
    if outside:
        say(f"Outside {MOST_DEVIATIONS} deviations: {', '.join(outside)}.")
        return EXIT_OUTSIDE
    say(f"Every score is within {MOST_DEVIATIONS} deviations of the recorded one.")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())

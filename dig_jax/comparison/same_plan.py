"""Whether a workdir holds the comparison that is to go on in it."""

import copy
from collections import defaultdict
from dataclasses import asdict, replace

from ml_collections import ConfigDict

from dig_jax.comparison.plan import fit_comparison
from dig_jax.comparison.search import LEARNING_RATES
from dig_jax.config import config_differences, config_of
from dig_jax.config.comparison import Comparison, read_comparison
from dig_jax.errors import InputError
from dig_jax.experiment import FREE_KEYS, complete_config
from dig_jax.files.checked_json import read_sound
from dig_jax.files.paths import AnyPath

CONFIG = "config.json"
_WHAT = "does not hold the configuration of a comparison"
_TRAINED = ("runs", "search", LEARNING_RATES)
_ADVICE = "Delete it, if you know that the runs beside it are of this comparison."
_PLACES = ("data.", "logging.", "mesh.", "evaluation.cache_dir", "training.watchdog")
MOVING_KEYS = tuple(key for key in FREE_KEYS if key.startswith(_PLACES))
"""What may be another on another machine: it changes no score but in rounding."""
FREE_OPTIONS = ("seeds", "quality", "controls")
"""What else may change of `compare`: the runs that are done stay as they are."""


def check_same_plan(comparison: Comparison, workdir: AnyPath) -> None:
    """Raise InputError where the workdir holds another comparison.

    More seeds, and more variants, may come, other judges and controls be asked, and
    all of it be moved to another machine. A comparison of which nothing has been
    trained may become any other.
    """
    path = workdir / CONFIG
    if not (path.is_file() and any((workdir / p).exists() for p in _TRAINED)):
        return
    before = read_comparison(config_of(read_sound(path, _WHAT, _ADVICE)))
    left_out = before.runs.keys() - comparison.runs.keys()
    if left_out:
        raise InputError(
            f"{workdir} holds a comparison of {', '.join(sorted(left_out))} too, "
            f"which this one leaves out. Compare them too, or use another --workdir."
        )
    now = {name: comparison.runs[name] for name in before.runs}
    moved = {name: _moved(run, now[name]) for name, run in before.runs.items()}
    differ = _differing_options(before, comparison) + _differing_runs(
        fit_comparison(before._replace(runs=moved)),
        fit_comparison(comparison._replace(runs=now)),
    )
    if differ:
        raise InputError(
            f"{workdir} holds another comparison. These keys differ (there -> here): "
            f"{'; '.join(differ)}. Use another --workdir, or the same values."
        )


def has_more(comparison: Comparison, workdir: AnyPath) -> bool:
    """Whether more seeds or variants have been asked for in the workdir since."""
    path = workdir / CONFIG
    try:
        there = read_comparison(config_of(read_sound(path, _WHAT)))
    except InputError:
        return False
    more_seeds = set(there.options.seeds) > set(comparison.options.seeds)
    return more_seeds or there.runs.keys() > comparison.runs.keys()


def _moved(run: ConfigDict, to: ConfigDict) -> ConfigDict:
    """A run's configuration with the other one's values of MOVING_KEYS."""
    moved, there = copy.deepcopy(run), complete_config(to)
    with moved.unlocked(), moved.ignore_type():
        for section, name in (key.split(".") for key in MOVING_KEYS):
            if name in there[section]:
                if section not in moved:
                    moved[section] = ConfigDict()
                moved[section][name] = there[section][name]
    return moved


def _differing_options(before: Comparison, now: Comparison) -> list[str]:
    """A line for each key of `compare` that another comparison has."""
    free = {name: getattr(now.options, name) for name in FREE_OPTIONS}
    old, new = asdict(replace(before.options, **free)), asdict(now.options)
    return [
        f"compare.{name}: {old[name]!r} -> {value!r}"
        for name, value in new.items()
        if old[name] != value
    ]


def _differing_runs(before: Comparison, now: Comparison) -> list[str]:
    """A line for each key of the variants, with those that it differs in."""
    names = defaultdict(list)
    for name, run in before.runs.items():
        here = complete_config(now.runs[name])
        for key, (old, new) in config_differences(complete_config(run), here).items():
            names[f"{key}: {old!r} -> {new!r}"].append(name)
    return [
        line if len(found) == len(before.runs) else f"{line} ({', '.join(found)})"
        for line, found in names.items()
    ]

"""Runs of equal seconds: how many steps each variant gets, decided once.

A schedule of learning rates needs the number of steps before the first one, so that it
follows from measured speeds. It is kept in `num_steps.json`: speeds that are measured
again, by another jax or on another machine, do not change runs that have begun.
"""

from dig_jax.comparison.measure import Speed
from dig_jax.comparison.plan import Plan, Variant, with_num_steps
from dig_jax.files.checked_json import read_sound, write_checked
from dig_jax.files.paths import AnyPath
from dig_jax.files.reading import readable

NUM_STEPS = "num_steps.json"
_WHAT = "does not hold numbers of steps"
_ADVICE = "Delete it and the folders runs and search, or use another --workdir."


def in_equal_seconds(plan: Plan, speeds: dict[str, Speed], workdir: AnyPath) -> Plan:
    """Every variant trains for `minutes`, or for as long as the reference's steps take.

    Variants whose number of steps is known keep it, where anything has been trained;
    the others' is written down. Called by one process at a time.

    Raises:
        InputError: The file of known numbers is damaged.
    """
    begun = any((workdir / name).exists() for name in ("runs", "search"))
    known = _read(workdir / NUM_STEPS) if begun else {}
    for variant in plan.variants:
        if variant.name not in known:
            known[variant.name] = _num_steps(variant, plan, speeds)
    write_checked(workdir / NUM_STEPS, known, sort_keys=True)
    points = plan.options.num_points
    variants = [with_num_steps(v, known[v.name], points) for v in plan.variants]
    return plan._replace(variants=tuple(variants))


def _num_steps(variant: Variant, plan: Plan, speeds: dict[str, Speed]) -> int:
    rate, options = speeds[variant.name].images_per_second, plan.options
    if options.minutes:
        batch_size = variant.experiment.training.batch_size
        steps = 60 * options.minutes * rate / batch_size
    else:
        reference = plan.reference
        share = rate / speeds[reference.name].images_per_second
        steps = reference.experiment.training.num_steps * share
    return max(round(steps), options.num_points)


def _read(path: AnyPath) -> dict[str, int]:
    if not path.is_file():
        return {}
    saved = read_sound(path, _WHAT, _ADVICE)
    with readable(path, _WHAT, _ADVICE):
        return {name: int(steps) for name, steps in saved.items()}

"""The learning rate of each variant: the given ones tried alike, on a seed of its own.

Each is an ordinary run in `search/VARIANT-RATE/`, shorter than those that are compared;
what it came to is in `learning_rates.json`, so that a search goes on where it stopped,
and several processes at once share it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from dig_jax.comparison.held_out import HeldOutLosses
from dig_jax.comparison.plan import Plan, Variant, with_num_steps
from dig_jax.comparison.together import Task, in_turn, work_off
from dig_jax.comparison.training import train_to_end
from dig_jax.comparison.verdict import held_out_loss
from dig_jax.errors import InputError, NonFiniteError
from dig_jax.files.checked_json import read_sound, write_checked
from dig_jax.files.paths import AnyPath
from dig_jax.files.reading import readable
from dig_jax.files.shown import printable, say
from dig_jax.run import load

LEARNING_RATES = "learning_rates.json"


class Tried(NamedTuple):
    """What a run with one learning rate came to.

    Attributes:
        variant: Of which network.
        learning_rate: Which one.
        held_out_loss: At its end, in eps, mean over noise levels; None if it diverged.
        num_steps: Its steps.
        seed: Its seed.
    """

    variant: str
    learning_rate: float
    held_out_loss: float | None
    num_steps: int
    seed: int


class Search:
    """The search of one comparison.

    Args:
        plan: What is compared, each for as many steps as it will be.
        workdir: The comparison's.
        say: Told of damage.
    """

    def __init__(
        self, plan: Plan, workdir: AnyPath, say: Callable[[str], None]
    ) -> None:
        self._plan, self._workdir, self._say = plan, workdir, say
        self._rates = plan.options.learning_rates
        self._tried: dict[tuple[str, float], Tried] = {}
        if self._rates:
            self._read(say)

    def run(self, losses: Mapping[str, HeldOutLosses]) -> int | None:
        """Try what was not tried; the exit code of a run that was stopped before.

        Returns when all is tried: where other processes have a part of it, that too.

        Raises:
            InputError: Runs that end within the warm-up, or of which each diverged.
        """
        pending = [(v, rate) for v in self._plan.variants for rate in self._rates]
        shorter = self.shortened()  # all are checked before any is trained
        tasks = []
        for index, (variant, rate) in enumerate(pending):
            if (variant.name, rate) in self._tried:
                continue
            name = f"{variant.name}, learning rate {rate:g}"
            told = f"{index + 1}/{len(pending)}  {name}"
            short, loss = shorter[variant.name], losses[variant.name]
            work = partial(self._try, short, rate, loss, told)
            tasks.append(Task(name, self._folder(short, rate), work))
        left = work_off(tasks, wait=True)
        if left.code is not None:
            return left.code
        for variant in self._plan.variants if self._rates else ():
            self._check_any(variant)
        return None

    def shortened(self) -> dict[str, Variant]:
        """Each variant for as many steps as the search has; {} without a search.

        Raises:
            InputError: They end within the warm-up.
        """
        if not self._rates:
            return {}
        return {v.name: self._shortened(v) for v in self._plan.variants}

    def chosen(self) -> Plan:
        """The plan, with the best rate of each variant, where there was a search."""
        if not self._rates:
            return self._plan
        variants = []
        for variant in self._plan.variants:
            rate = self._best(variant.name)
            experiment = variant.experiment.changed({"optimizer.learning_rate": rate})
            variants.append(variant._replace(experiment=experiment))
        return self._plan._replace(variants=tuple(variants))

    def records(self) -> list[dict[str, Any]]:
        """What was tried and is in the plan, with whether it was `chosen`."""
        return [
            {**row._asdict(), "chosen": rate == self._best(variant.name)}
            for variant in self._plan.variants
            for rate in self._rates
            if (row := self._tried.get((variant.name, rate))) is not None
        ]

    def _best(self, name: str) -> float | None:
        """The rate of the least loss; of equal ones the smaller; None of none."""
        rows = [self._tried.get((name, rate)) for rate in sorted(self._rates)]
        ended = [
            row for row in rows if row is not None and row.held_out_loss is not None
        ]
        best = min(ended, key=lambda row: row.held_out_loss or 0.0, default=None)
        return None if best is None else best.learning_rate

    def _check_any(self, variant: Variant) -> None:
        if self._best(variant.name) is None:
            raise InputError(
                f"Variant {variant.name!r} diverges with each of "
                f"compare.learning_rates={self._rates}. Give smaller ones, with "
                f"another --workdir."
            )

    def _try(
        self, variant: Variant, rate: float, losses: HeldOutLosses, told: str
    ) -> int | None:
        """Train and measure one, unless another process did.

        Returns:
            Its exit code if it was stopped before its end.
        """
        self._read()
        if (variant.name, rate) in self._tried:
            return None
        seed = self._plan.options.search_seed
        experiment = variant.seeded(seed).changed({"optimizer.learning_rate": rate})
        folder, loss = self._folder(variant, rate), None
        try:
            code = train_to_end(experiment, folder, told)
            if code is not None:
                return code
            num_steps = experiment.training.num_steps
            run = load(folder, step=num_steps, config=experiment.config)
            loss = held_out_loss(losses(run.params))
        except NonFiniteError as error:
            self._say(f"{told}: {printable(error)}")
        num_steps = experiment.training.num_steps
        row = Tried(variant.name, rate, loss, num_steps, seed)
        with in_turn(self._workdir):
            self._read()
            self._tried[variant.name, rate] = row
            rows = [row._asdict() for row in self._tried.values()]
            write_checked(self._workdir / LEARNING_RATES, {"tried": rows})
        shown = "diverged" if loss is None else f"held-out loss {loss:.4f}"
        say(f"{told}: {shown}")
        return None

    def _folder(self, variant: Variant, rate: float) -> AnyPath:
        return self._workdir / "search" / f"{variant.name}-{rate!r}"

    def _shortened(self, variant: Variant) -> Variant:
        """The variant for a share of its steps, with one checkpoint at the end."""
        share = self._plan.options.search_share
        num_steps = max(round(share * variant.experiment.training.num_steps), 1)
        warmup_steps = variant.experiment.optimizer.warmup_steps
        if num_steps <= warmup_steps:
            raise InputError(
                f"compare.search_share={share:g} tries learning rates of "
                f"{variant.name!r} for {num_steps} steps, which must be more than "
                f"optimizer.warmup_steps={warmup_steps}: none would be reached."
            )
        return with_num_steps(variant, num_steps, 1)

    def _read(self, say: Callable[[str], None] = lambda text: None) -> None:
        """Take over what the file has; nothing of a damaged one, which is told."""
        path = self._workdir / LEARNING_RATES
        if not path.is_file():
            return
        what, advice = "does not hold learning rates", "They are measured again."
        try:
            saved = read_sound(path, what, advice)
            with readable(path, what, advice):
                rows = [Tried(**row) for row in saved["tried"]]
        except InputError as error:
            say(printable(error))
            return
        self._tried |= {(row.variant, row.learning_rate): row for row in rows}

"""The training step, compiled ahead of time."""

import contextlib
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from dig_jax.errors import InputError
from dig_jax.experiment import Experiment
from dig_jax.training.programs import create_programs


class DoesNotFitError(InputError):
    """A program that needs more memory than its devices have."""


class Memory(NamedTuple):
    """Bytes that a program holds on each device.

    Attributes:
        arguments: What it is given; results that take an argument's place are in it.
        results: The other results.
        temporaries: What it needs in between.
    """

    arguments: int
    results: int
    temporaries: int

    @property
    def peak(self) -> int:
        """All together."""
        return self.arguments + self.results + self.temporaries


def compile_train_step(
    experiment: Experiment, mesh: Mesh, *, batch_size: int | None = None
) -> jax.stages.Compiled:
    """The trainer's step for the devices of a mesh, which need not be there.

    For another platform than this machine's, make the experiment, too, inside
    `compiling_for(platform)`.

    Args:
        experiment: What is trained.
        mesh: Devices, the batch and the state spread over them as in training.
        batch_size: Images in a step; None for the configuration's.

    Raises:
        InputError: A batch that does not work.
        DoesNotFitError: The devices have too little memory.
    """
    programs = create_programs(experiment, mesh, batch_size=batch_size)
    return compile_lowered(programs.lower_step())


def compile_lowered(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compile, and say in one line how much memory is missing.

    Nothing is added to jax's cache of compiled programs: those for chips that are not
    there cannot be read back, which jax would tell with a warning each time.

    Raises:
        DoesNotFitError: The devices have too little memory.
    """
    try:
        with _no_program_kept():
            return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        found = re.search(
            r"Used (\S+) of (\S+) hbm|\((\S+)\) exceeds available HBM \((\S+)\)",
            str(error),
        )
        needed, there = [g for g in found.groups() if g] if found else ("more", "less")
        raise DoesNotFitError(
            f"The program needs {needed} of memory on each device, which has {there}. "
            "A smaller batch, remat or more devices need less."
        ) from error


@contextlib.contextmanager
def _no_program_kept() -> Iterator[None]:
    """Programs that are compiled here take too short a time for jax's cache."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, math.inf)
    try:
        yield
    finally:
        jax.config.update(name, before)


def memory_of(compiled: jax.stages.Compiled) -> Memory:
    """What a program holds, by its compiler's account."""
    found = find_memory(compiled)
    assert found is not None
    return found


def find_memory(compiled: jax.stages.Compiled) -> Memory | None:
    """`memory_of`, or None where the platform gives no account."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    return Memory(
        found.argument_size_in_bytes,
        found.output_size_in_bytes - found.alias_size_in_bytes,
        found.temp_size_in_bytes,
    )

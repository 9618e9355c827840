"""The training step, compiled ahead of time."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dig_jax.config import call_with_section
from dig_jax.errors import InputError
from dig_jax.experiment import Experiment
from dig_jax.sharding import batch_sharded, check_divides, replicated
from dig_jax.training.optimizer import create_optimizer
from dig_jax.training.options import create_training_options
from dig_jax.training.step import create_state, make_train_step


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
    experiment: Experiment,
    mesh: Mesh,
    *,
    batch_size: int | None = None,
    place_state: Callable[[Mesh, Any], Any] = lambda mesh, _: replicated(mesh),
) -> jax.stages.Compiled:
    """The trainer's step for the devices of a mesh, which need not be there.

    For another platform than this machine's, make the experiment, too, inside
    `compiling_for(platform)`.

    Args:
        experiment: What is trained.
        mesh: Devices, the batch spread over them.
        batch_size: Images in a step; None for the configuration's.
        place_state: `(mesh, state's shapes) -> shardings`, one or a tree of them.

    Raises:
        InputError: A training or optimizer section, or a batch, that does not work.
        DoesNotFitError: The devices have too little memory.
    """
    options = create_training_options(experiment.config)
    batch_size = batch_size or options.batch_size
    check_divides(mesh, batch_size, "training.batch_size")
    optimizer = call_with_section(
        "optimizer",
        create_optimizer,
        experiment.config.optimizer.to_dict(),
        num_steps=options.num_steps,
    )
    _, run_key = jax.random.split(jax.random.key(experiment.config.seed))
    shapes = jax.eval_shape(
        lambda key: create_state(
            experiment, optimizer, key, posthoc_ema=options.posthoc_ema
        ),
        run_key,
    )
    places = place_state(mesh, shapes)
    if isinstance(places, jax.sharding.Sharding):
        place = places
        places = jax.tree.map(lambda _: place, shapes)
    state = jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, places
    )
    spread = batch_sharded(mesh)
    shape = (batch_size, *experiment.backbone.image_shape)
    image = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=spread)
    label = jax.ShapeDtypeStruct((batch_size,), jnp.int32, sharding=spread)
    step = make_train_step(experiment, optimizer, run_key, options.ema_decay)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(places, replicated(mesh)))
    return compile_lowered(jitted.lower(state, image, label))


def compile_lowered(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compile, and say in one line how much memory is missing.

    Raises:
        DoesNotFitError: The devices have too little memory.
    """
    try:
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


def memory_of(compiled: jax.stages.Compiled) -> Memory:
    """What a program holds, by its compiler's account."""
    found = compiled.memory_analysis()
    assert found is not None
    return Memory(
        found.argument_size_in_bytes,
        found.output_size_in_bytes - found.alias_size_in_bytes,
        found.temp_size_in_bytes,
    )

"""What a training run compiles, for devices that are here or elsewhere."""

from dataclasses import dataclass, replace
from functools import cached_property

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from dig_jax.devices.sharding import (
    batch_sharded,
    check_divides,
    divisors,
    fully_sharded,
    listed,
    replicated,
)
from dig_jax.errors import InputError
from dig_jax.experiment import Experiment
from dig_jax.interfaces import Params
from dig_jax.options import TrainingOptions
from dig_jax.storage.state import TrainState
from dig_jax.training.optimizer import create_optimizer
from dig_jax.training.step import (
    create_state,
    make_measure_diversity,
    make_train_step,
    start_from,
)

DIVERSITY_IMAGES = 16


@dataclass(frozen=True)
class TrainingPrograms:
    """The programs of a run: its first state, its step, its feature diversity.

    Attributes:
        experiment: The configuration's.
        options: Batch size, and how a step is computed.
        optimizer: Of the parameters.
        mesh: The devices to compile for; only `create_state` needs them to be there.
        init_key: Draws the first parameters.
        run_key: Draws the noise of all steps.
    """

    experiment: Experiment
    options: TrainingOptions
    optimizer: optax.GradientTransformation
    mesh: Mesh
    init_key: PRNGKeyArray
    run_key: PRNGKeyArray

    @cached_property
    def abstract_state(self) -> TrainState:
        """Shape, type and place of each leaf of the state."""
        shapes = jax.eval_shape(self._first_state, self.init_key)
        return jax.tree.map(
            lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
            shapes,
            fully_sharded(self.mesh, shapes),
        )

    @cached_property
    def abstract_batch(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        """The same of a batch: its images and their labels."""
        size, spread = self.options.batch_size, batch_sharded(self.mesh)
        shape = (size, *self.experiment.data.stored_shape)
        return (
            jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=spread),
            jax.ShapeDtypeStruct((size,), jnp.int32, sharding=spread),
        )

    def create_state(self, params: Params | None = None) -> TrainState:
        """The state before the first step: parameters leaf by leaf, then the rest.

        Args:
            params: Those to begin with, placed as in `abstract_state`; None for new
                ones.
        """
        places = jax.tree.map(lambda a: a.sharding, self.abstract_state)
        if params is None:
            params = self.experiment.backbone.init(self.init_key, places.params)

        def rest(params: Params) -> TrainState:
            state = start_from(
                params, self.optimizer, posthoc_ema=self.options.posthoc_ema
            )
            return state._replace(params=())

        out = places._replace(params=())
        return jax.jit(rest, out_shardings=out)(params)._replace(params=params)

    def _first_state(self, key: PRNGKeyArray) -> TrainState:
        return create_state(
            self.experiment, self.optimizer, key, posthoc_ema=self.options.posthoc_ema
        )

    def lower_step(self) -> jax.stages.Lowered:
        """The training step, which takes the state's memory for the next one."""
        options = self.options
        step = make_train_step(
            self.experiment,
            self.optimizer,
            self.run_key,
            options.ema_decay,
            mesh=self.mesh,
            num_parts=options.batch_size // (options.microbatch or options.batch_size),
            gradient_dtype=options.gradient_dtype,
        )
        places = jax.tree.map(lambda a: a.sharding, self.abstract_state)
        jitted = jax.jit(
            step, donate_argnums=0, out_shardings=(places, replicated(self.mesh))
        )
        return jitted.lower(self.abstract_state, *self.abstract_batch)

    def lower_diversity(self) -> jax.stages.Lowered:
        """The feature diversity of a batch's first images, the same on each device."""
        measure = make_measure_diversity(self.experiment, self.run_key)
        everywhere = replicated(self.mesh)

        def measure_first(
            state: TrainState, image: jax.Array, label: jax.Array
        ) -> jax.Array:
            shown = slice(DIVERSITY_IMAGES)
            needed = state.params, image[shown], label[shown]
            params, *first = jax.lax.with_sharding_constraint(needed, everywhere)
            return measure(state._replace(params=params), *first)

        jitted = jax.jit(measure_first, out_shardings=everywhere)
        return jitted.lower(self.abstract_state, *self.abstract_batch)


def create_programs(
    experiment: Experiment, mesh: Mesh, *, batch_size: int | None = None
) -> TrainingPrograms:
    """The programs of an experiment on a mesh.

    Args:
        experiment: What is trained.
        mesh: Devices.
        batch_size: Images in a step; None for the configuration's.

    Raises:
        InputError: A batch that does not spread over the mesh.
    """
    options = experiment.training
    if batch_size is not None:
        options = replace(options, batch_size=batch_size)
    check_divides(mesh, options.batch_size, "training.batch_size")
    _check_microbatch(mesh, options)
    optimizer = create_optimizer(experiment.optimizer, num_steps=options.num_steps)
    # Parameters, noise: the run's. The order of records follows the seed by itself.
    init_key, run_key = jax.random.split(jax.random.key(experiment.seed))
    return TrainingPrograms(experiment, options, optimizer, mesh, init_key, run_key)


def _check_microbatch(mesh: Mesh, options: TrainingOptions) -> None:
    """Raise InputError unless a batch has whole parts that spread over the mesh."""
    size, part = options.batch_size, options.microbatch
    if part and (size % part or part % mesh.size):
        fitting = [n * mesh.size for n in divisors(size // mesh.size)]
        raise InputError(
            f"training.microbatch must divide training.batch_size={size} and be a "
            f"multiple of the {mesh.size} devices, got {part}. Choices: "
            f"{listed(fitting)}, or 0 for the whole batch at once."
        )

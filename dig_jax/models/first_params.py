"""The first parameters of a network, made leaf by leaf.

Flax draws all of them in one program, which has the random numbers of each leaf in it:
50,000 lines of HLO for twelve blocks, most of a minute of compiling on a GPU. Here the
network is traced for its leaves' shapes, initializers and keys alone, and each leaf is
drawn by a program of its own, which leaves that are alike share. Zeros and ones need
none.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from flax import struct
from flax.core.scope import LazyRng, Scope
from jax.sharding import Sharding
from jaxtyping import Array, Float, Key, PRNGKeyArray

from dig_jax.interfaces import InitFn, Params

_CONSTANTS = {nn.initializers.zeros: 0, nn.initializers.ones: 1}


@struct.dataclass
class Recipe(nn.meta.AxisMetadata):
    """What makes a leaf, in its place among the parameters.

    Flax takes it for a parameter with metadata: the network's modules see `unbox`.

    Attributes:
        key: What Flax derives its key from: stacked as the leaf is, one for each block
            of a stack.
        path: What it folds into that: the names of modules, and the leaf's number.
        draw: `(key, *arguments) -> leaf`, of one block.
        arguments: Its shape, and what else the initializer takes.
    """

    key: Key[Array, "*stack"]
    path: tuple[str | int, ...] = struct.field(pytree_node=False)
    draw: Callable[..., Array] = struct.field(pytree_node=False)
    arguments: tuple = struct.field(pytree_node=False)

    def unbox(self) -> Array:
        """Zeros of the leaf's shape; what a network makes of them is thrown away."""
        leaf = jax.eval_shape(lambda key: self.draw(key, *self.arguments), self.key)
        return jnp.zeros(leaf.shape, leaf.dtype)

    def replace_boxed(self, val: Any) -> "Recipe":
        """The same with other keys."""
        return self.replace(key=val)  # type: ignore[attr-defined]

    def add_axis(self, index: int, params: dict[Any, Any]) -> "Recipe":
        """Itself: the keys are stacked, on the leading axis as the leaves will be."""
        assert index == 0
        return self

    def remove_axis(self, index: int, params: dict[Any, Any]) -> "Recipe":
        """Itself, as `add_axis`."""
        assert index == 0
        return self


def make_init(network: nn.Module, make_inputs: Callable[[], tuple]) -> InitFn:
    """`(key, places) -> parameters`, with the numbers that `network.init` draws.

    Args:
        network: A Flax module whose parameters' stacks are on leading axes.
        make_inputs: What its `init` takes after the key.
    """

    # Not functions defined here: tests decorate each anew, for every network made.
    return partial(_init, jax.jit(partial(_recipes, network, make_inputs)))


def _recipes(
    network: nn.Module, make_inputs: Callable[[], tuple], key: PRNGKeyArray
) -> Params:
    with nn.intercept_methods(_keep_recipes):
        return network.init(key, *make_inputs())["params"]


def _init(
    recipes: Callable[[PRNGKeyArray], Params], key: PRNGKeyArray, places: Any = None
) -> Params:
    known = recipes(key)
    if places is None:
        places = jax.tree.map(lambda _: None, known, is_leaf=_is_recipe)
    leaves = jax.tree.map(_leaf, known, places, is_leaf=_is_recipe)
    if isinstance(key, jax.core.Tracer):
        return jax.tree.map(lambda leaf: _draw(*leaf), leaves, is_leaf=_is_leaf)
    _compile(leaves)
    return jax.tree.map(_make_leaf, leaves, is_leaf=_is_leaf)


def _is_recipe(node: Any) -> bool:
    return isinstance(node, Recipe)


def _keep_recipes(
    call: Callable[..., Any],
    args: tuple,
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> Any:
    """Call a module's method; parameters that it makes become recipes."""
    module = context.module
    if "param" not in vars(module):
        param, scope = module.param, module.scope
        assert scope is not None  # it is being initialized

        def keep(name: str, draw: Callable[..., Array], *arguments: Any) -> Any:
            return param(name, partial(_recipe, scope, draw), *arguments)

        # A module is frozen, and a copy of its own in each trace.
        object.__setattr__(module, "param", keep)
    return call(*args, **kwargs)


def _recipe(
    scope: Scope, draw: Callable[..., Array], _: PRNGKeyArray, *arguments: Any
) -> Recipe:
    """What `draw(key, *arguments)` makes, for the key that the scope has just given.

    That key is left alone: the programs that fold paths into keys would be most of what
    is compiled.
    """
    rng = LazyRng.create(scope.rngs["params"], scope.rng_counters["params"])
    # Flax's own norms give their shapes as lists, which name no program.
    frozen = (tuple(a) if isinstance(a, list) else a for a in arguments)
    return Recipe(rng.rng, rng.suffix, draw, tuple(frozen))


class _Leaf(NamedTuple):
    """The arguments of `_draw` for a leaf."""

    key: Key[Array, "*stack"]
    draw: Callable[..., Array]
    arguments: tuple
    place: Sharding | None


def _is_leaf(node: Any) -> bool:
    return isinstance(node, _Leaf)


def _leaf(recipe: Recipe, place: Sharding | None) -> _Leaf:
    def fold(key: PRNGKeyArray) -> PRNGKeyArray:
        return LazyRng(key, recipe.path).as_jax_rng()

    key = _over_stack(fold, recipe.key.ndim)(recipe.key)
    return _Leaf(key, recipe.draw, recipe.arguments, place)


def _make_leaf(leaf: _Leaf) -> Array:
    """Drawn, or written where it is to be if it is constant."""
    if leaf.draw not in _CONSTANTS:
        return _draw(*leaf)
    one, *rest = leaf.arguments
    dtype = rest[0] if rest else float
    shape = (*leaf.key.shape, *one)
    part = np.full(
        leaf.place.shard_shape(shape) if leaf.place else shape,
        _CONSTANTS[leaf.draw],
        jax.dtypes.canonicalize_dtype(dtype),
    )
    if leaf.place is None:
        return jnp.asarray(part)
    return jax.make_array_from_callback(shape, leaf.place, lambda _: part)


def _compile(leaves: Any) -> None:
    """Compile what draws the leaves, side by side: each program keeps one core busy."""
    found = jax.tree.leaves(leaves, is_leaf=_is_leaf)
    found = [leaf for leaf in found if leaf.draw not in _CONSTANTS]
    alike = {(leaf.key.shape, *leaf[1:]): leaf for leaf in found}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda leaf: _draw.lower(*leaf).compile(), alike.values()))


@partial(jax.jit, static_argnames=("draw", "arguments", "place"))
def _draw(
    key: Key[Array, "*stack"],
    draw: Callable[..., Array],
    arguments: tuple,
    place: Sharding | None,
) -> Float[Array, "..."]:
    """One leaf, spread as `place` says from the first: no device makes all of it."""

    def one(key: PRNGKeyArray) -> Array:
        return draw(key, *arguments)

    leaf = _over_stack(one, key.ndim)(key)
    return leaf if place is None else jax.lax.with_sharding_constraint(leaf, place)


def _over_stack(function: Callable[..., Any], num_axes: int) -> Callable[..., Any]:
    """A function of one block's key as one of those of all blocks."""
    for _ in range(num_axes):
        function = jax.vmap(function)
    return function

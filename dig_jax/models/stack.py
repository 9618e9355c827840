"""Equal blocks one after the other, over parameters stacked on a leading axis."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dig_jax.ops.linear_call import linear_call

Outputs = Any
"""What each block puts out besides the carry: stacked, or a list of them."""


def stack_blocks(
    module: nn.Module,
    block: type[nn.Module],
    arguments: tuple,
    *,
    name: str,
    length: int,
    unroll: int,
    remat: bool,
    reverse: bool = False,
    broadcast: bool = False,
) -> Callable[[Any, Any], tuple[Any, Outputs]]:
    """`(carry, inputs) -> (carry, outputs)` through all blocks.

    A `lax.scan` whatever `unroll` and `remat` say, as far as parameters go: a
    checkpoint does not depend on them.

    Args:
        module: Whose parameters they are, under `name`.
        block: `(carry, input) -> (carry, output)`.
        arguments: To make one.
        name: Of the stack.
        length: Number of blocks.
        unroll: Blocks in each turn of the loop; 0 for all (no loop).
        remat: Recompute each block's activations in the backward pass.
        reverse: From the last block to the first.
        broadcast: All blocks take the same input; else each its own.
    """
    if unroll or not remat or module.is_initializing():
        # A loop's body is not merged with another, so CSE needs no guard there.
        once = nn.remat(block, prevent_cse=unroll != 1) if remat else block
        scanned = nn.scan(
            once,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast if broadcast else 0,  # type: ignore[arg-type]
            length=length,
            reverse=reverse,
            # Parameters are made by one body, whatever length the loop has.
            unroll=1 if module.is_initializing() else unroll or length,
        )
        return scanned(*arguments, name=name)

    unbound = block(*arguments, parent=None, name=name)
    params = module.variables["params"][name]
    order = range(length)[::-1] if reverse else range(length)

    @jax.checkpoint
    def apply(params: PyTree, carry: Any, given: Any) -> tuple[Any, Any]:
        return unbound.apply({"params": params}, carry, given)  # type: ignore

    def unrolled(carry: Any, inputs: Any) -> tuple[Any, Outputs]:
        of_block = unstack(params, order)
        outputs: list = [None] * length
        for i in order:
            given = inputs if broadcast or inputs is None else inputs[i]
            carry, outputs[i] = apply(of_block[i], carry, given)
        return carry, outputs

    return unrolled


def stacked(outputs: Outputs) -> Array:
    """Outputs of all blocks as one array."""
    return jnp.stack(outputs) if isinstance(outputs, list) else outputs


def unstack(params: PyTree[Array], order: Sequence[int]) -> list[PyTree[Array]]:
    """The parameters of each block, which are asked for in that order.

    Their gradients come to be in the opposite order, and are put into the stack so.
    What JAX derives is a concatenation from the first to the last, which XLA for TPUs
    writes in that order too: the first block's gradients, the last to be known, then
    hold up all others, and what those are made of is kept until the end.
    """
    leaves, tree = jax.tree.flatten(params)
    split = partial(_split, length=len(order))
    join = partial(_join, order=order[::-1])
    of_leaf = [linear_call(split, join, (), leaf) for leaf in leaves]
    return [tree.unflatten(parts) for parts in zip(*of_leaf, strict=True)]


def _split(stack: Float[Array, "block ..."], length: int) -> list[Float[Array, "..."]]:
    return [stack[i] for i in range(length)]


def _join(
    parts: list[Float[Array, "..."]], order: Sequence[int]
) -> Float[Array, "block ..."]:
    stack = jnp.zeros((len(parts), *parts[0].shape), parts[0].dtype)
    for i in order:
        stack = jax.lax.dynamic_update_index_in_dim(stack, parts[i], i, 0)
    return stack

"""Linear functions whose transpose is written by hand.

Reverse mode runs the transpose of what forward mode runs. The one that JAX derives is
right, but for products and stencils the CPU's compiler makes several times slower code
of it than of one that is written out ("What the CPU's compiler makes of it" in
docs/notes/benchmarks.md).
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, PyTree


def linear_call(
    fun: Callable[..., Any],
    transpose: Callable[..., Any],
    residuals: Sequence[Array],
    x: PyTree[Array],
) -> Any:
    """`fun(*residuals, x)`, linear in x, with a transpose of its own.

    As `jax.custom_derivatives.linear_call`, which can be neither mapped (`jax.vmap`)
    nor differentiated in its residuals; this can.

    Args:
        fun: Residuals and x to the result, an array or a tree of them.
        transpose: Residuals and a cotangent of the result to a cotangent of x.
        residuals: What else both depend on.
        x: The linear argument, an array or a tree of them.
    """
    out = jax.eval_shape(fun, *residuals, x)
    call = Call(fun, transpose, len(residuals), _describe(x), _describe(out))
    leaves = _linear_call.bind(*residuals, *jax.tree.leaves(x), call=call)
    return jax.tree.unflatten(jax.tree.structure(out), leaves)


class Tree(NamedTuple):
    """The structure of a tree of arrays, and their types."""

    structure: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]


class Call(NamedTuple):
    """A linear function: see `linear_call`."""

    fun: Callable[..., Any]
    transpose: Callable[..., Any]
    num_residuals: int
    x: Tree
    out: Tree

    def __call__(self, *args: Array) -> list[Array]:
        """Residuals and the leaves of x to those of the result."""
        residuals, leaves = self.split(args)
        x = jax.tree.unflatten(self.x.structure, leaves)
        return jax.tree.leaves(self.fun(*residuals, x))

    def split(self, args: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Residuals, and what belongs to x."""
        return list(args[: self.num_residuals]), list(args[self.num_residuals :])

    @property
    def transposed(self) -> "Call":
        """The function from cotangents of the result to those of x."""
        return Call(self.transpose, self.fun, self.num_residuals, self.out, self.x)

    def mapped(self, size: int, residual_axes: Sequence[int | None]) -> "Call":
        """The function of `size` times as much, along a first axis."""
        axes = (*residual_axes, 0)
        return Call(
            jax.vmap(self.fun, axes),
            jax.vmap(self.transpose, axes),
            self.num_residuals,
            _repeated(self.x, size),
            _repeated(self.out, size),
        )


def _describe(tree: PyTree) -> Tree:
    leaves, structure = jax.tree.flatten(tree)
    return Tree(
        structure,
        tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves),
    )


def _repeated(tree: Tree, size: int) -> Tree:
    return Tree(
        tree.structure,
        tuple(
            jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype)
            for leaf in tree.leaves
        ),
    )


_linear_call = Primitive("linear_call")
_linear_call.multiple_results = True


def _run(*args: Array, call: Call) -> list[Array]:
    return call(*args)


def _jvp(
    primals: tuple, tangents: tuple, *, call: Call
) -> tuple[list[Array], list[Array]]:
    residuals, x = call.split(primals)
    residual_tangents, x_tangents = call.split(tangents)
    parts = []  # never empty: the rule is asked where there is a tangent
    if not _all_zero(x_tangents):
        moved = map(ad.instantiate_zeros, x_tangents)
        parts.append(_linear_call.bind(*residuals, *moved, call=call))
    if not _all_zero(residual_tangents):
        _, moved = jax.jvp(
            lambda *r: call(*r, *x),
            tuple(residuals),
            tuple(map(ad.instantiate_zeros, residual_tangents)),
        )
        parts.append(moved)
    total = [reduce(jnp.add, leaves) for leaves in zip(*parts, strict=True)]
    return _linear_call.bind(*primals, call=call), total


def _transpose(cotangents: Sequence[Any], *args: Any, call: Call) -> list:
    if _all_zero(cotangents):
        return [None] * len(args)
    residuals, _ = call.split(args)
    given = map(ad.instantiate_zeros, cotangents)
    of_x = _linear_call.bind(*residuals, *given, call=call.transposed)
    return [None] * len(residuals) + of_x


def _all_zero(tangents: Sequence[Any]) -> bool:
    return all(isinstance(tangent, ad.Zero) for tangent in tangents)


def _batch(args: tuple, axes: tuple, *, call: Call) -> tuple[list[Array], list[int]]:
    (size,) = {
        arg.shape[axis]
        for arg, axis in zip(args, axes, strict=True)
        if axis is not None
    }
    moved = [
        arg if axis is None else jnp.moveaxis(arg, axis, 0)
        for arg, axis in zip(args, axes, strict=True)
    ]
    residual_axes, x_axes = call.split([None if axis is None else 0 for axis in axes])
    residuals, x = call.split(moved)
    # All of x has the batch, so that its cotangents have it, too.
    x = [
        jnp.broadcast_to(leaf, (size, *leaf.shape)) if axis is None else leaf
        for leaf, axis in zip(x, x_axes, strict=True)
    ]
    out = _linear_call.bind(*residuals, *x, call=call.mapped(size, residual_axes))
    return out, [0] * len(out)


def _abstract(*_: Any, call: Call) -> list[ShapedArray]:
    return [ShapedArray(leaf.shape, leaf.dtype) for leaf in call.out.leaves]


_linear_call.def_impl(_run)
_linear_call.def_abstract_eval(_abstract)
ad.primitive_jvps[_linear_call] = _jvp
ad.primitive_transposes[_linear_call] = _transpose
batching.primitive_batchers[_linear_call] = _batch
mlir.register_lowering(_linear_call, mlir.lower_fun(_run, multiple_results=True))

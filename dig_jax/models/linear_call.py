"""Linear functions whose transpose is written by hand.

Reverse mode runs the transpose of what forward mode runs. The one that JAX derives is
right, but for products and stencils the CPU's compiler makes several times slower code
of it than of one that is written out (docs/benchmarks.md, "What the CPU's compiler
makes of it").
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array


def linear_call(
    fun: Callable[..., Array],
    transpose: Callable[..., Array],
    residuals: Sequence[Array],
    x: Array,
) -> Array:
    """`fun(*residuals, x)`, linear in x, with a transpose of its own.

    As `jax.custom_derivatives.linear_call`, which can be neither mapped (`jax.vmap`)
    nor differentiated in its residuals; this can.

    Args:
        fun: Residuals and x to the result.
        transpose: Residuals and a cotangent of the result to a cotangent of x.
        residuals: What else both depend on.
        x: The linear argument.
    """
    out = jax.eval_shape(fun, *residuals, x)
    return _linear_call.bind(*residuals, x, fun=fun, transpose=transpose, out=out)


_linear_call = Primitive("linear_call")


def _call(*args: Array, fun: Callable[..., Array], **_: Any) -> Array:
    return fun(*args)


def _jvp(primals: tuple, tangents: tuple, **params: Any) -> tuple[Array, Array]:
    *residuals, x = primals
    *residual_tangents, dx = tangents
    parts = []  # never empty: the rule is asked where there is a tangent
    if not isinstance(dx, ad.Zero):
        parts.append(_linear_call.bind(*residuals, dx, **params))
    if not all(isinstance(dr, ad.Zero) for dr in residual_tangents):
        _, moved = jax.jvp(
            lambda *r: params["fun"](*r, x),
            tuple(residuals),
            tuple(ad.instantiate_zeros(dr) for dr in residual_tangents),
        )
        parts.append(moved)
    return _linear_call.bind(*primals, **params), sum(parts[1:], parts[0])


def _transpose(
    cotangent: Any, *args: Any, fun: Callable, transpose: Callable, out: Any
) -> list:
    *residuals, x = args
    like_x = jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype)
    if isinstance(cotangent, ad.Zero):
        return [None] * len(args)
    of_x = _linear_call.bind(
        *residuals, cotangent, fun=transpose, transpose=fun, out=like_x
    )
    return [None] * len(residuals) + [of_x]


def _batch(
    args: tuple, axes: tuple, *, fun: Callable, transpose: Callable, out: Any
) -> tuple[Array, int]:
    in_axes = [None if axis is None else 0 for axis in axes]
    moved = [
        arg if axis is None else jnp.moveaxis(arg, axis, 0)
        for arg, axis in zip(args, axes, strict=True)
    ]
    (size,) = {len(arg) for arg, axis in zip(moved, in_axes, strict=True) if axis == 0}
    if in_axes[-1] is None:  # so that the cotangent of x has the batch, too
        moved[-1] = jnp.broadcast_to(moved[-1], (size, *moved[-1].shape))
        in_axes[-1] = 0
    result = _linear_call.bind(
        *moved,
        fun=jax.vmap(fun, in_axes),
        transpose=jax.vmap(transpose, in_axes),
        out=jax.ShapeDtypeStruct((size, *out.shape), out.dtype),
    )
    return result, 0


def _abstract(*_: Any, out: Any, **__: Any) -> Any:
    return ShapedArray(out.shape, out.dtype)


_linear_call.def_impl(_call)
_linear_call.def_abstract_eval(_abstract)
ad.primitive_jvps[_linear_call] = _jvp
ad.primitive_transposes[_linear_call] = _transpose
batching.primitive_batchers[_linear_call] = _batch
mlir.register_lowering(_linear_call, mlir.lower_fun(_call, multiple_results=False))

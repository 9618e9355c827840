"""The matrix product of the package: every linear layer goes through here."""

import math
from functools import partial
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from dig_jax.devices.target import target_platform
from dig_jax.ops.linear_call import linear_call

DType: TypeAlias = Literal["float32", "mixed", "bfloat16"]
"""What is computed in what; parameters, norms and reductions are float32 in each.

float32: everything. mixed: products of bfloat16 operands summed and kept in float32,
those of the backward pass too. bfloat16: as mixed, and activations are kept in bfloat16
between layers.
"""

Matrices: TypeAlias = Float[Array, "... _ _"]


def activation_dtype(dtype: DType) -> jnp.dtype:
    """What activations are kept in between layers."""
    return jnp.dtype(jnp.bfloat16 if dtype == "bfloat16" else jnp.float32)


def matmul(
    x: Float[Array, "*batch k"], kernel: Float[Array, "k n"], dtype: DType
) -> Float[Array, "*batch n"]:
    """x times a kernel.

    On a TPU in the shape of x, so that what its elements are made of keeps that shape
    (`dig_jax.ops.keep_shape`). Elsewhere as a product of matrices, whose gradients are
    such products, too.
    """
    if x.ndim > 2 and target_platform() != "tpu":
        rows = x.reshape(-1, x.shape[-1])  # [*batch, k] to [rows, k] and back
        return matmul(rows, kernel, dtype).reshape(*x.shape[:-1], -1)
    if dtype == "float32":
        return _dot(x, kernel, 0, jnp.float32, jax.lax.Precision.HIGHEST)
    return _bfloat16_product(x, kernel).astype(activation_dtype(dtype))


def batched_matmul(
    a: Matrices, b: Matrices, dtype: DType, *, transpose_b: bool = False
) -> Matrices:
    """a b, or a b^T, of each pair of matrices, in float32."""
    if dtype == "float32":
        return _dot(a, b, int(transpose_b), jnp.float32, jax.lax.Precision.HIGHEST)
    return _bfloat16_product(a, b, transpose_b)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _bfloat16_product(a: Matrices, b: Matrices, transpose_b: bool = False) -> Matrices:
    """a b or a b^T of operands rounded to bfloat16, in float32.

    Of each pair of matrices, or of all in a with the one that b is.

    Its derivatives are such products too: cotangents are rounded as they go in, not as
    they come out. What JAX derives of the product of rounded operands is the other way
    round, and multiplies in float32.
    """
    return _dot(a, b, int(transpose_b))


def _product_jvp(
    transpose_b: bool, primals: tuple, tangents: tuple
) -> tuple[Matrices, Matrices]:
    (a, b), (da, db) = primals, tangents
    # What the backward pass keeps is rounded.
    rounded_a, rounded_b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    axis = int(transpose_b)
    out = _dot(rounded_a, rounded_b, axis)
    tangent = jnp.zeros_like(out)
    if not isinstance(da, SymbolicZero):
        tangent = linear_call(
            lambda r, d: _dot(d, r, axis),
            lambda r, g: _dot(g, r, 1 - axis).astype(a.dtype),
            (rounded_b,),
            da,
        )
    if not isinstance(db, SymbolicZero):

        def transpose(r: Matrices, g: Matrices) -> Matrices:
            g = g.astype(jnp.bfloat16)
            x, y = (g, r) if transpose_b else (r, g)
            if b.ndim < x.ndim:  # one for all
                rows = tuple(range(x.ndim - 1))
                return jax.lax.dot_general(
                    x, y, ((rows, rows), ((), ())), preferred_element_type=jnp.float32
                ).astype(b.dtype)
            return _product_of_transposed(x, y).astype(b.dtype)

        tangent = tangent + linear_call(
            lambda r, d: _dot(r, d, axis), transpose, (rounded_a,), db
        )
    return out, tangent


_bfloat16_product.defjvp(_product_jvp, symbolic_zeros=True)


def _dot(
    a: Matrices,
    b: Matrices,
    axis: int,
    dtype: DTypeLike = jnp.bfloat16,
    precision: jax.lax.Precision | None = None,
) -> Matrices:
    """Sum over the columns of a and the rows (axis 0) or columns (1) of b."""
    batch = tuple(range(b.ndim - 2))
    axes = (((a.ndim - 1,), (b.ndim - 2 + axis,)), (batch, batch))
    return jax.lax.dot_general(
        a.astype(dtype),
        b.astype(dtype),
        axes,
        precision=precision,
        preferred_element_type=jnp.float32,
    )


def _product_of_transposed(x: Matrices, y: Matrices) -> Matrices:
    """x^T y, in float32."""
    return jax.lax.platform_dependent(
        x,
        y,
        cpu=_product_with_copy,
        default=lambda x, y: _dot(jnp.swapaxes(x, -1, -2), y, 0),
    )


def _product_with_copy(x: Matrices, y: Matrices) -> Matrices:
    """x^T y, or for a kernel (y^T x)^T, where less is to be copied.

    Attention's small matrices are slower that way.
    """
    rows, x_cols, y_cols = *x.shape[-2:], y.shape[-1]
    # In values of two bytes; a result's have four.
    copied, copied_otherwise = rows * x_cols, rows * y_cols + 2 * x_cols * y_cols
    if x.ndim > 2 or copied <= copied_otherwise:
        return _dot(_transposed_copy(x), y, 0)
    return _transposed_copy(_dot(_transposed_copy(y), x, 0))


def _transposed_copy(x: Matrices) -> Matrices:
    """The transpose in a form that XLA:CPU does not see as one.

    It would merge that with the product, and then compute in float32: its bfloat16
    products need the contracted axis last.
    """
    *batch, rows, cols = x.shape
    split = math.gcd(cols, 16)
    # [*batch, rows, cols] to [*batch, rows, part, split]
    parts = x.reshape(*batch, rows, cols // split, split)
    # [*batch, part, split, rows] to [*batch, cols, rows]
    return jnp.moveaxis(parts, -3, -1).reshape(*batch, cols, rows)

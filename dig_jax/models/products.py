"""The matrix product of the package: every linear layer goes through here."""

import math
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from dig_jax.models.linear_call import linear_call

DType: TypeAlias = Literal["float32", "mixed", "bfloat16"]
"""What is computed in what; parameters, norms and reductions are float32 in each.

float32: everything. mixed: products of bfloat16 operands summed and kept in float32,
those of the backward pass too. bfloat16: as mixed, and activations are kept in bfloat16
between layers.
"""

Matrix: TypeAlias = Float[Array, "_ _"]


def activation_dtype(dtype: DType) -> jnp.dtype:
    """What activations are kept in between layers."""
    return jnp.dtype(jnp.bfloat16 if dtype == "bfloat16" else jnp.float32)


def matmul(
    x: Float[Array, "*batch k"], kernel: Float[Array, "k n"], dtype: DType
) -> Float[Array, "*batch n"]:
    """x times a kernel."""
    if dtype == "float32":
        contract_last = (((x.ndim - 1,), (0,)), ((), ()))
        return jax.lax.dot_general(
            x, kernel, contract_last, precision=jax.lax.Precision.HIGHEST
        )
    rows = x.reshape(-1, x.shape[-1])
    out = _bfloat16_product(rows, kernel).astype(activation_dtype(dtype))
    return out.reshape(*x.shape[:-1], -1)


@jax.custom_jvp
def _bfloat16_product(
    x: Float[Array, "m k"], kernel: Float[Array, "k n"]
) -> Float[Array, "m n"]:
    """x W of operands rounded to bfloat16, in float32.

    Its derivatives are such products too: cotangents are rounded as they go in, not as
    they come out. What JAX derives of the product of rounded operands is the other way
    round, and multiplies in float32.
    """
    return _dot(x, kernel)


def _product_jvp(primals: tuple, tangents: tuple) -> tuple[Matrix, Matrix]:
    (x, kernel), (dx, dkernel) = primals, tangents
    # What the backward pass keeps is rounded.
    rounded_x, rounded_kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    out = _dot(rounded_x, rounded_kernel)
    tangent = jnp.zeros_like(out)
    if not isinstance(dx, SymbolicZero):
        tangent = linear_call(
            lambda w, d: _dot(d, w),
            lambda w, g: _dot(g, w, contract=(1, 1)).astype(x.dtype),
            (rounded_kernel,),
            dx,
        )
    if not isinstance(dkernel, SymbolicZero):
        tangent = tangent + linear_call(
            _dot,
            lambda r, g: _dot(_transposed(r), g).astype(kernel.dtype),
            (rounded_x,),
            dkernel,
        )
    return out, tangent


_bfloat16_product.defjvp(_product_jvp, symbolic_zeros=True)


def _dot(a: Matrix, b: Matrix, contract: tuple[int, int] = (1, 0)) -> Matrix:
    axes = (((contract[0],), (contract[1],)), ((), ()))
    return jax.lax.dot_general(
        a.astype(jnp.bfloat16),
        b.astype(jnp.bfloat16),
        axes,
        preferred_element_type=jnp.float32,
    )


def _transposed(x: Matrix) -> Matrix:
    return jax.lax.platform_dependent(x, cpu=_transposed_copy, default=jnp.transpose)


def _transposed_copy(x: Matrix) -> Matrix:
    """The transpose in a form that XLA:CPU does not see as one.

    It would merge that with the product, and then compute in float32: its bfloat16
    products need the contracted axis last.
    """
    rows, cols = x.shape
    split = math.gcd(cols, 16)
    parts = x.reshape(rows, cols // split, split).transpose(1, 2, 0)
    return parts.reshape(cols, rows)

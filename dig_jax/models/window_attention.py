"""Attention in windows with a relative position bias, and with time in it (TMSA).

Features are [batch * row * col, width], for one image after the other, row by row.
"""

import math
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.errors import InputError
from dig_jax.models.layers import Linear, small_normal
from dig_jax.ops.products import DType, activation_dtype, batched_matmul

Rows = Float[Array, "rows width"]
Condition = Float[Array, "batch time_width"]
Windows = Float[Array, "window token features"]


class Grid(NamedTuple):
    """The tokens of an image, cut into windows that do not overlap.

    Attributes:
        rows: Of tokens.
        cols: Of tokens.
        window: (rows, cols) of each window.
    """

    rows: int
    cols: int
    window: tuple[int, int]

    @classmethod
    def create(cls, rows: int, cols: int, side: int | None) -> "Grid":
        """A grid with square windows, or with one window for all of it (None).

        Raises:
            InputError: Windows that do not tile the grid.
        """
        if side is None:
            return cls(rows, cols, (rows, cols))
        if rows % side or cols % side:
            both = math.gcd(rows, cols)
            fit = [n for n in range(1, both + 1) if both % n == 0]
            raise InputError(
                f"Windows of {side}x{side} must tile the grid of {rows}x{cols} tokens. "
                f"Sides that fit: {', '.join(map(str, fit))}."
            )
        return cls(rows, cols, (side, side))

    def to_windows(self, h: Float[Array, "rows features"]) -> Windows:
        """Tokens by window, for one image after the other."""
        high, wide = self.window
        # [batch, window row, row, window col, col, features]
        cut = h.reshape(
            -1, self.rows // high, high, self.cols // wide, wide, h.shape[-1]
        )
        return cut.transpose(0, 1, 3, 2, 4, 5).reshape(-1, high * wide, h.shape[-1])

    def to_rows(self, windows: Windows) -> Float[Array, "rows features"]:
        """Undo `to_windows`."""
        high, wide = self.window
        shape = (self.rows // high, self.cols // wide, high, wide, windows.shape[-1])
        # [batch, window row, window col, row, col, features]
        cut = windows.reshape(-1, *shape).transpose(0, 1, 3, 2, 4, 5)
        return cut.reshape(-1, windows.shape[-1])


class WindowAttention(nn.Module):
    """softmax(Q K^T / sqrt(channels) + B) V within each window, and a linear layer.

    Queries, keys and values are W x + b, in the order (q, k or v; head; channel). B is
    a learned number for each offset of two tokens and each head. What an image's
    condition c does is `time_in`.

    Attributes:
        num_heads: A divisor of the width.
        time_in: qkv: W_t c + b_t is added to queries, keys and values, the same for all
            tokens of an image: DiffiT's TMSA (arXiv:2312.02139, Eq. 3-6). bias: to B
            (Sec. 5.4, F). none.
        position_bias: Whether there is a B.
    """

    grid: Grid
    num_heads: int
    dtype: DType = "float32"
    kernel_init: nn.initializers.Initializer = small_normal
    time_in: Literal["qkv", "bias", "none"] = "qkv"
    position_bias: bool = True

    @nn.compact
    def __call__(self, h: Rows, condition: Condition) -> Rows:
        width, batch = h.shape[-1], len(condition)
        qkv = self._linear(3 * width, "qkv")(h)
        if self.time_in == "qkv":
            moved = self._linear(3 * width, "time_qkv")(condition)
            per_image = qkv.reshape(batch, -1, 3 * width)
            qkv = (per_image + moved[:, None]).reshape(qkv.shape)
        windows = self.grid.to_windows(qkv)
        bias = self._bias(condition, len(windows) // batch)
        out = attend_in_windows(windows, bias, self.num_heads, self.dtype)
        return self._linear(width, "project")(self.grid.to_rows(out))

    def _bias(
        self, condition: Condition, windows_per_image: int
    ) -> Float[Array, "*window head token token"] | None:
        if not self.position_bias:
            return None
        high, wide = self.grid.window
        shape = ((2 * high - 1) * (2 * wide - 1), self.num_heads)
        table = self.param("position_bias", small_normal, shape)
        if self.time_in != "bias":
            return relative_bias(table, self.grid.window)
        moved = self._linear(math.prod(shape), "time_bias")(condition)
        of_image = table + moved.astype(jnp.float32).reshape(-1, *shape)
        bias = jax.vmap(lambda one: relative_bias(one, self.grid.window))(of_image)
        return jnp.repeat(bias, windows_per_image, axis=0)

    def _linear(self, features: int, name: str) -> Linear:
        return Linear(features, self.dtype, kernel_init=self.kernel_init, name=name)


def attend_in_windows(
    qkv: Float[Array, "window token features"],
    bias: Float[Array, "*window head token token"] | None,
    num_heads: int,
    dtype: DType,
) -> Float[Array, "window token width"]:
    """softmax(Q K^T / sqrt(channels) + bias) V; the softmax is in float32.

    Args:
        qkv: Queries, keys and values of all heads, one after the other.
        bias: Added to the logits of every window, or of each; None for nothing.
        num_heads: Number of heads.
        dtype: float32 for products in full precision, else bfloat16 operands.
    """
    windows, tokens, features = qkv.shape
    channels = features // 3 // num_heads
    # [q k v, window, head, token, channel]: a matrix for each window and head
    parts = qkv.reshape(windows, tokens, 3, num_heads, channels).transpose(
        2, 0, 3, 1, 4
    )
    q, k, v = parts.reshape(3, windows * num_heads, tokens, channels)
    logits = batched_matmul(q, k, dtype, transpose_b=True) / math.sqrt(channels)
    if bias is not None:
        by_window = logits.reshape(windows, num_heads, tokens, tokens) + bias
        logits = by_window.reshape(logits.shape)
    weights = jnp.exp(
        logits - jax.lax.stop_gradient(jnp.max(logits, -1, keepdims=True))
    )
    # Divided after the product: fewer channels than tokens, so it is less work.
    out = batched_matmul(weights, v, dtype) / jnp.sum(weights, -1, keepdims=True)
    out = out.reshape(windows, num_heads, tokens, channels).transpose(0, 2, 1, 3)
    return out.reshape(windows, tokens, -1).astype(activation_dtype(dtype))


def relative_bias(
    table: Float[Array, "offset head"], window: tuple[int, int]
) -> Float[Array, "head token token"]:
    """The table's entry for each pair of a window's tokens.

    That of tokens i and j is (row_i - row_j + rows - 1) (2 cols - 1) + col_i - col_j +
    cols - 1. Nothing is indexed: the gradient of an indexing is a scatter, which adds
    in any order on GPUs.
    """
    high, wide = window
    heads = table.shape[1]
    by_offset = table.T.reshape(heads, 2 * high - 1, 2 * wide - 1)
    by_cols = toeplitz(by_offset)  # [head, row offset, col, col]
    both = toeplitz(jnp.moveaxis(by_cols, 1, -1))  # [head, col, col, row, row]
    return both.transpose(0, 3, 1, 4, 2).reshape(heads, high * wide, high * wide)


def toeplitz(v: Float[Array, "*batch offset"]) -> Float[Array, "*batch n n"]:
    """M[i, j] = v[i - j + n - 1], of 2 n - 1 numbers."""
    n = (v.shape[-1] + 1) // 2
    backward = v[..., ::-1]  # backward[n - 1 + j - i] = v[i - j + n - 1]
    unused = jnp.zeros((*v.shape[:-1], 1), v.dtype)
    # One row of a circulant matrix, each next row of which is moved on by one.
    row = jnp.concatenate([backward[..., n - 1 :], unused, backward[..., : n - 1]], -1)
    flat = jnp.tile(row, n)[..., : n * (2 * n - 1)]
    return flat.reshape(*v.shape[:-1], n, 2 * n - 1)[..., :n]

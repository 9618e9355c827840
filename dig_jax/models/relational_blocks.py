"""The blocks of `dig_relational`: messages by relation, attention among coarse patches.

See `dig_jax/models/dig_relational.py` for the equations.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.graphs import GridGraph, RelationalGraph
from dig_jax.models.attention import dot_product_attention
from dig_jax.models.dit import xavier_uniform, zeros
from dig_jax.models.layers import MLP, LayerNorm, Linear, by_image, torch_uniform
from dig_jax.models.relational_options import RelationalOptions
from dig_jax.ops.aggregation import create_aggregate
from dig_jax.ops.gelu import gelu
from dig_jax.ops.relations import create_relational_sum
from dig_jax.ops.stencil import pool_sum, repeat_patches

Rows = Float[Array, "rows width"]
Nodes = Float[Array, "batch node width"]
PerImage = Float[Array, "batch width"]
Condition = Float[Array, "batch told"]
Told = tuple[Rows, Condition]
"""Features, and what an image's time and label come to."""


class Norm(nn.Module):
    """LayerNorm or RMSNorm, modulated for each image or with parameters of its own."""

    kind: str

    @nn.compact
    def __call__(
        self, h: Nodes, shift: PerImage | None = None, scale: PerImage | None = None
    ) -> Nodes:
        width, y = h.shape[-1], h.astype(jnp.float32)
        if self.kind == "layer":
            y = LayerNorm(epsilon=1e-6, affine=False)(y)
        else:
            y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + 1e-6)
        if scale is None or shift is None:
            y = y * self.param("scale", nn.initializers.ones, (width,))
            y = y + self.param("bias", zeros, (width,))
        else:
            y = y * (1 + scale[:, None]) + shift[:, None]
        return y.astype(h.dtype)


class Messages(nn.Module):
    """W2 (gate * gelu(sum_r w_r A_r W1 x)), and attention among coarse patches."""

    graph: GridGraph
    options: RelationalOptions
    attends: bool

    @nn.compact
    def __call__(self, x: Nodes, condition: Condition) -> Nodes:
        options, width = self.options, x.shape[-1]
        linear = partial(Linear, width, options.dtype, kernel_init=xavier_uniform)
        h = gelu(self._pass(linear(name="expand")(x), condition))
        if options.channel_gate:
            patches = h[:, : self.graph.num_patches].astype(jnp.float32)
            gate = linear(name="channel_gate")(jnp.mean(patches, axis=1))
            gate = nn.sigmoid(gate.astype(jnp.float32)).astype(h.dtype)
            h = h * gate[:, None]
        h = linear(name="project")(h)
        if not self.attends:
            return h
        return h + CoarseAttention(self.graph, options, name="attention")(x)

    def _pass(self, h: Nodes, condition: Condition) -> Nodes:
        """What the nodes are sent."""
        options, width = self.options, h.shape[-1]
        if options.relations == "untyped":
            start = nn.initializers.ones
            own = self.param("self_weight", start, (width,))
            other = self.param("mean_weight", start, (width,))
            mean = create_aggregate(options.aggregation, self.graph)
            # [batch, node, width] to [batch * node, width] and back
            heard = mean(h.reshape(-1, width)).reshape(h.shape)
            return h * own.astype(h.dtype) + heard * other.astype(h.dtype)
        relations = RelationalGraph.of_grid(self.graph)
        # By what a patch hears in its scale, as torch starts depthwise convolutions.
        start = torch_uniform(options.neighbors + 1)
        shape = (relations.num_relations, width)
        weights = self.param("relations", start, shape)
        if options.noise_weights:
            scale = Linear(
                relations.num_relations, kernel_init=zeros, name="relation_scale"
            )(nn.silu(condition))
            # [batch, relation] times [relation, width]
            weights = weights * (1 + scale[..., None])
        total = create_relational_sum(options.aggregation, relations, self.graph)
        return total(h, weights)


class CoarseAttention(nn.Module):
    """Attention among means over coarse patches, copied to the finest ones in them."""

    graph: GridGraph
    options: RelationalOptions

    @nn.compact
    def __call__(self, x: Nodes) -> Nodes:
        options, finest = self.options, self.graph.scales[0]
        width, inner = x.shape[-1], options.channels_of_attention
        factor = options.attention_size // finest.patch_size
        grid = finest.as_grid(x).astype(jnp.float32)
        pooled = pool_sum(grid, factor) / factor**2
        linear = partial(Linear, dtype=options.dtype, kernel_init=xavier_uniform)
        qkv = linear(3 * inner, name="qkv")(pooled.astype(x.dtype).reshape(-1, width))
        # [batch, coarse patch, q k v, head, channel]
        qkv = qkv.reshape(len(x), -1, 3, options.num_heads, inner // options.num_heads)
        q, k, v = (qkv[:, :, i] for i in range(3))
        out = dot_product_attention(q, k, v, options.dtype)
        out = linear(width, name="project")(out.reshape(-1, inner))
        copied = repeat_patches(out.reshape(pooled.shape), factor)
        others = self.graph.num_padded_nodes - finest.num_nodes
        patches = copied.reshape(len(x), finest.num_nodes, width)
        return jnp.pad(patches, ((0, 0), (0, others), (0, 0)))


class SwiGLU(nn.Module):
    """W (silu(x U) * x V), two thirds as wide inside (arXiv:2002.05202, Eq. 6)."""

    options: RelationalOptions

    @nn.compact
    def __call__(self, x: Nodes) -> Nodes:
        width, dtype = x.shape[-1], self.options.dtype
        hidden = round(width * self.options.mlp_ratio * 2 / 3)
        linear = partial(Linear, dtype=dtype, kernel_init=xavier_uniform)
        gate = nn.silu(linear(hidden, name="gate")(x))
        return linear(width, name="project")(gate * linear(hidden, name="expand")(x))


class RelationalBlock(nn.Module):
    """Messages and MLP, each a branch of its own or one after the other.

    Given the output of a counterpart, it begins with W [h; skip] + b.

    Attributes:
        attends: Whether coarse patches attend to each other in it.
        returns: Whether its output is kept beside the stream.
    """

    graph: GridGraph
    options: RelationalOptions
    attends: bool
    returns: bool

    @nn.compact
    def __call__(self, told: Told, skip: Rows | None) -> tuple[Told, Rows | None]:
        (h, condition), options = told, self.options
        rows, width = h.shape, h.shape[-1]
        h = by_image(h, len(condition))  # and back
        if skip is not None:
            skip = skip.reshape(h.shape)
            join = partial(Linear, width, options.dtype)
            h = join(use_bias=False, name="join_h")(h) + join(name="join_skip")(skip)
        norm = partial(Norm, options.norm)
        (shift, scale, gate), mlp_part = self._modulation(condition, width)
        messages = Messages(self.graph, options, self.attends, name="messages")
        update = messages(norm(name="norm")(h, shift, scale), condition)
        if options.branches == 1:
            update = self._mlp(norm(name="mlp_norm")(update))
            h = self._add(h, gate, update, "gate")
        else:
            h = self._add(h, gate, update, "gate")
            shift, scale, gate = mlp_part
            update = self._mlp(norm(name="mlp_norm")(h, shift, scale))
            h = self._add(h, gate, update, "mlp_gate")
        h = h.reshape(rows)
        return (h, condition), h if self.returns else None

    def _modulation(self, condition: Condition, width: int) -> tuple:
        """(shift, scale, gate) of each branch; without modulation all None."""
        count = 3 * self.options.branches
        if not self.options.modulated:
            return (None,) * 3, (None,) * 3
        modulation = Linear(
            count * width, self.options.dtype, kernel_init=zeros, name="modulation"
        )(nn.silu(condition)).astype(jnp.float32)
        parts = jnp.split(modulation, count, axis=-1)
        return parts[:3], parts[3:]

    def _add(self, h: Nodes, gate: PerImage | None, update: Nodes, name: str) -> Nodes:
        width, starts_at_zero = h.shape[-1], self.options.zero_gates
        if gate is None:
            start = zeros if starts_at_zero else nn.initializers.ones
            return h + self.param(name, start, (width,)).astype(h.dtype) * update
        gate = gate if starts_at_zero else 1 + gate
        return h + gate.astype(h.dtype)[:, None] * update

    def _mlp(self, x: Nodes) -> Nodes:
        options = self.options
        if options.mlp == "swiglu":
            return SwiGLU(options, name="mlp")(x)
        return MLP(
            options.mlp_ratio,
            options.dtype,
            tanh_gelu=True,
            kernel_init=xavier_uniform,
            name="mlp",
        )(x)

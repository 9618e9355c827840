"""Loss and gradient of a global batch: spread over devices, and in parts that fit.

Each device computes as if it were alone, with whole parameters and its own rows of the
batch, and what devices tell each other is written here, whole: parameters are gathered
once a step, gradients are reduced once, to the devices that keep the parameters. So no
activation crosses a network, whatever the backbone is, and nothing is left for a
compiler to choose.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from dig_jax.devices.sharding import (
    BATCH_AXES,
    DATA_AXIS,
    FSDP_AXIS,
    fully_sharded,
    sharded_axis,
)
from dig_jax.diffusion import PerImage
from dig_jax.interfaces import Params
from dig_jax.options import GradientDType

Rows: TypeAlias = Any
"""A tree of arrays, whose leading axis is the batch's."""
LossFn: TypeAlias = Callable[[Params, Rows], tuple[Float[Array, ""], PerImage]]
LossAndGradient: TypeAlias = tuple[tuple[Float[Array, ""], PerImage], Params]


def loss_and_gradient(
    loss_of: LossFn,
    params: Params,
    rows: Rows,
    *,
    mesh: Mesh | None = None,
    num_parts: int = 1,
    gradient_dtype: GradientDType = "float32",
) -> LossAndGradient:
    """The mean loss of a batch, the loss of each image, and the mean's gradient.

    Args:
        loss_of: `(params, rows) -> (mean loss, loss of each image)`.
        params: Spread over the mesh as `fully_sharded` says, and so is the gradient.
        rows: The batch, spread over the mesh.
        mesh: Devices; None for one.
        num_parts: Computed one after the other, of as many rows of each device; their
            gradients are added up in float32.
        gradient_dtype: What gradients are added up in over the devices.
    """
    compute = partial(_in_parts, loss_of, num_parts=num_parts)
    if mesh is None or mesh.size == 1:
        return compute(params, rows)
    fsdp = mesh.shape[FSDP_AXIS]
    leaves, tree = jax.tree.flatten(params)
    axes = [sharded_axis(leaf.shape, fsdp) for leaf in leaves]

    def on_device(params: Params, rows: Rows) -> LossAndGradient:
        shards = zip(jax.tree.leaves(params), axes, strict=True)
        whole = tree.unflatten([_gather(shard, axis) for shard, axis in shards])
        (loss, each), grads = compute(whole, rows)
        sums = zip(jax.tree.leaves(grads), axes, strict=True)
        dtype = jnp.dtype(gradient_dtype)
        mean = [_add_up(g.astype(dtype), axis, mesh) / mesh.size for g, axis in sums]
        return (jax.lax.pmean(loss, BATCH_AXES), each), tree.unflatten(mean)

    spread = PartitionSpec(BATCH_AXES)
    specs = jax.tree.map(lambda s: s.spec, fully_sharded(mesh, params))
    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(specs, spread),
        out_specs=((PartitionSpec(), spread), specs),
        check_vma=False,  # it would reduce gradients by itself, leaf by leaf
    )(params, rows)


def _gather(shard: Array, axis: int | None) -> Array:
    if axis is None:
        return shard
    return jax.lax.all_gather(shard, FSDP_AXIS, axis=axis, tiled=True)


def _add_up(grad: Array, axis: int | None, mesh: Mesh) -> Float[Array, "..."]:
    """The sum over all devices, of a leaf that is spread along an axis; in float32."""
    along = [name for name in BATCH_AXES if mesh.shape[name] > 1]
    if axis is not None:
        grad = jax.lax.psum_scatter(grad, FSDP_AXIS, scatter_dimension=axis, tiled=True)
        along = [name for name in along if name == DATA_AXIS]
    if along:
        grad = jax.lax.psum(grad, along)
    return grad.astype(jnp.float32)


def _in_parts(
    loss_of: LossFn, params: Params, rows: Rows, *, num_parts: int
) -> LossAndGradient:
    """The same as from all rows at once, with the memory of a part of them."""
    compute = jax.value_and_grad(loss_of, has_aux=True)
    if num_parts == 1:
        return compute(params, rows)

    def add_part(total: tuple, part: Rows) -> tuple[tuple, PerImage]:
        (loss, each), grads = compute(params, part)
        return jax.tree.map(jnp.add, total, (loss, grads)), each

    parts = jax.tree.map(
        lambda a: a.reshape(num_parts, len(a) // num_parts, *a.shape[1:]), rows
    )
    start = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
    (loss, grads), each = jax.lax.scan(add_part, start, parts)
    each = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), each)
    return (loss / num_parts, each), jax.tree.map(lambda g: g / num_parts, grads)

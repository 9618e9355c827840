"""Between a state dict of another project and our parameters, tensor by tensor.

A table of `Tensor` says where each of the other project's tensors lies in our tree.
Every one is accounted for: what is missing, left over or of another shape is named.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from dig_jax.errors import InputError
from dig_jax.interfaces import Params
from dig_jax.storage.checkpoint_record import unflatten
from dig_jax.storage.fingerprint import named_leaves

StateDict: TypeAlias = Mapping[str, np.ndarray]
Change: TypeAlias = Callable[[np.ndarray], np.ndarray]

LISTED = 4
"""Names that a message lists of each kind."""
FIXED_TOLERANCE = 1e-5
"""By how much a table that can be computed may differ: float32's sines of 1000."""


class Layout(NamedTuple):
    """How an array is laid out there and here."""

    to_ours: Change
    to_theirs: Change


SAME = Layout(lambda x: x, lambda x: x)
LINEAR = Layout(lambda x: x.T, lambda x: x.T)
"""[out, in] there, [in, out] here."""
LINEAR_1X1 = Layout(lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None])
"""A linear layer that is a convolution of 1x1 there."""
CONV = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
"""[out, in, row, col] there, [row, col, in, out] here."""
DEPTHWISE = Layout(
    lambda x: x[:, 0].transpose(1, 2, 0), lambda x: x.transpose(2, 0, 1)[:, None]
)
"""[channel, 1, row, col] there, [row, col, channel] here."""
ONE_BATCH = Layout(lambda x: x[0], lambda x: x[None])
"""With a leading axis of one there."""


def patches(size: int) -> Layout:
    """[out, in, row, col] there, [row * col * in, out] here, of size x size pixels."""

    def to_ours(x: np.ndarray) -> np.ndarray:
        return x.transpose(2, 3, 1, 0).reshape(-1, len(x))

    def to_theirs(x: np.ndarray) -> np.ndarray:
        return x.reshape(size, size, -1, x.shape[-1]).transpose(3, 2, 0, 1)

    return Layout(to_ours, to_theirs)


class Tensor(NamedTuple):
    """Where one tensor of a state dict, or a part of it, lies among our parameters.

    Attributes:
        name: Its name there.
        path: The name of our leaf.
        layout: How it is laid out.
        layer: Which of the layers of our leaf, if they are stacked.
        part: Which of how many equal parts of its second axis, the inputs.
        default: Its value where it is missing; such a value is not written either.
    """

    name: str
    path: str
    layout: Layout = SAME
    layer: int | None = None
    part: tuple[int, int] = (0, 1)
    default: np.ndarray | None = None


class Fixed(NamedTuple):
    """A tensor that is there though it can be computed: checked, and written back."""

    name: str
    value: np.ndarray


def to_params(
    state: StateDict,
    tensors: Sequence[Tensor],
    fixed: Sequence[Fixed],
    abstract: Params,
    origin: str,
) -> Params:
    """Our parameters from a state dict, in float32.

    Args:
        state: What the file holds.
        tensors: Where each tensor lies; together they are all of our parameters.
        fixed: Tensors that are computed here.
        abstract: Our tree of shapes.
        origin: What the tensors are from, for messages.

    Raises:
        InputError: Tensors that are missing, left over, of another shape or not finite.
    """
    leaves = named_leaves(abstract)
    optional = {tensor.name for tensor in tensors if tensor.default is not None}
    wanted = expected_shapes(tensors, leaves)
    wanted |= {one.name: one.value.shape for one in fixed}
    _check_shapes(state, wanted, optional, origin)
    _check_values(state, fixed, origin)
    ours = {name: np.empty(leaf.shape, np.float32) for name, leaf in leaves.items()}
    filled: dict[str, int] = defaultdict(int)
    for tensor in tensors:
        array = state.get(tensor.name, tensor.default)
        assert array is not None  # by `_check_shapes`
        index, count = tensor.part
        if count > 1:
            array = np.split(array, count, axis=1)[index]
        place = ours[tensor.path]
        place = place if tensor.layer is None else place[tensor.layer]
        place[...] = tensor.layout.to_ours(array)
        filled[tensor.path] += place.size
    unfilled = [name for name, leaf in ours.items() if filled[name] != leaf.size]
    assert not unfilled, unfilled
    return unflatten(ours, abstract)


def to_state_dict(
    params: Params, tensors: Sequence[Tensor], fixed: Sequence[Fixed]
) -> dict[str, np.ndarray]:
    """Undo `to_params`."""
    leaves = named_leaves(params)
    parts: dict[str, dict[int, np.ndarray]] = defaultdict(dict)
    for tensor in tensors:
        array = np.asarray(leaves[tensor.path], np.float32)
        array = array if tensor.layer is None else array[tensor.layer]
        parts[tensor.name][tensor.part[0]] = tensor.layout.to_theirs(array)
    state = {
        name: np.concatenate([of[i] for i in range(len(of))], axis=1)
        if len(of) > 1
        else of[0]
        for name, of in parts.items()
    }
    defaults = {t.name: t.default for t in tensors if t.default is not None}
    if all(np.array_equal(state[name], value) for name, value in defaults.items()):
        state = {name: x for name, x in state.items() if name not in defaults}
    state |= {one.name: one.value for one in fixed}
    return {name: np.ascontiguousarray(x) for name, x in state.items()}


def expected_shapes(
    tensors: Iterable[Tensor], leaves: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor there, from those of our leaves."""
    shapes = {}
    for tensor in tensors:
        shape = leaves[tensor.path].shape
        shape = shape if tensor.layer is None else shape[1:]
        # Nothing is stored: one number stands for all.
        whole = tensor.layout.to_theirs(np.broadcast_to(np.float32(0), shape)).shape
        if tensor.part[1] > 1:
            whole = (whole[0], whole[1] * tensor.part[1], *whole[2:])
        shapes[tensor.name] = whole
    return shapes


def _check_shapes(
    state: StateDict,
    wanted: Mapping[str, tuple[int, ...]],
    optional: set[str],
    origin: str,
) -> None:
    if not any(name in state for name in optional):  # all of them, or none
        wanted = {name: shape for name, shape in wanted.items() if name not in optional}
    missing = [name for name in wanted if name not in state]
    left_over = [name for name in state if name not in wanted]
    wrong = [
        f"{name} must be {list(shape)}, got {list(state[name].shape)}"
        for name, shape in wanted.items()
        if name in state and state[name].shape != shape
    ]
    problems = [
        f"{what} {len(names)}: {', '.join(names[:LISTED])}"
        + (" ..." if len(names) > LISTED else "")
        for what, names in (
            ("missing", missing),
            ("left over", left_over),
            ("of another shape", wrong),
        )
        if names
    ]
    if problems:
        raise InputError(
            f"{origin} does not hold the tensors of this configuration. Of "
            f"{len(wanted)} tensors and {len(state)} found: {'; '.join(problems)}."
        )


def _check_values(state: StateDict, fixed: Sequence[Fixed], origin: str) -> None:
    for name, array in state.items():
        if not np.all(np.isfinite(array)):
            raise InputError(f"{origin} is damaged: {name} has values not finite.")
    for name, value in fixed:
        error = float(np.max(np.abs(state[name] - value), initial=0.0))
        if error > FIXED_TOLERANCE:
            raise InputError(
                f"{origin} has another {name} than the network computes, by up to "
                f"{error:.2g}: it is of another model."
            )

"""Constants of a frozen TensorFlow graph, without TensorFlow.

A GraphDef is a list of nodes with a name, an operation and attributes. Of that, this
reads what weights need; nothing in the file is executed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from google.protobuf.message import DecodeError
from tensorboardX.proto.graph_pb2 import GraphDef
from tensorboardX.proto.types_pb2 import DT_FLOAT

from dig_jax.errors import InputError

MAX_VALUES = 2**22
"""Of one constant: float_val declares a shape and fills it with a single value."""

Value: TypeAlias = np.ndarray | float | bool


@dataclass(frozen=True)
class Node:
    """One operation: its `value`, numbers and flags by attribute; others left out."""

    name: str
    op: str
    attributes: dict[str, Value] = field(default_factory=dict)


def read_graph(data: bytes) -> dict[str, Node]:
    """Nodes of a serialized GraphDef by name; constants that are not float32 are empty.

    Raises:
        InputError: The bytes are not a GraphDef, or a constant's size is not its
            shape's.
    """
    try:
        graph: Any = GraphDef.FromString(data)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"This is no TensorFlow GraphDef: {error}.") from error
    return {
        node.name: Node(node.name, node.op, _read_attributes(node.attr))
        for node in graph.node
    }


def _read_attributes(attributes: Mapping[str, Any]) -> dict[str, Value]:
    values = {name: _read_attribute(value) for name, value in attributes.items()}
    return {name: value for name, value in values.items() if value is not None}


def _read_attribute(attribute: Any) -> Value | None:
    match attribute.WhichOneof("value"):
        case "tensor":
            return _read_tensor(attribute.tensor)
        case "f":
            return attribute.f
        case "b":
            return attribute.b
    return None


def _read_tensor(tensor: Any) -> np.ndarray | None:
    """A float32 TensorProto; None for other types."""
    if tensor.dtype != DT_FLOAT:
        return None
    shape = tuple(dimension.size for dimension in tensor.tensor_shape.dim)
    size = math.prod(shape)  # Python's, because a forged shape may overflow NumPy's
    content = tensor.tensor_content
    if content:
        values = np.frombuffer(content, "<f4", count=len(content) // 4)
    else:
        values = np.asarray(tensor.float_val, np.float32)
        if 0 < len(values) < size <= MAX_VALUES:
            values = np.pad(values, (0, size - len(values)), "edge")
    if len(values) != size or min(shape, default=0) < 0:
        raise InputError(
            f"A constant of the graph needs {size} float32 values for its shape "
            f"{shape}, got {len(values)}."
        )
    return values.reshape(shape).astype(np.float32)

"""Constants of a frozen TensorFlow graph, read from its protocol buffer alone.

A GraphDef is a list of nodes with a name, an operation and attributes. Of that, this
reads what weights need; nothing in the file is executed.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from dig_jax.errors import InputError

MAX_VALUES = 2**22
"""Of one constant: float_val declares a shape and fills it with a single value."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DT_FLOAT = 1

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
        nodes = [
            _read_node(value)
            for number, value in _fields(memoryview(data))
            if number == 1 and isinstance(value, memoryview)
        ]
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise InputError(f"This is no TensorFlow GraphDef: {error}.") from error
    return {node.name: node for node in nodes}


def _read_node(data: memoryview) -> Node:
    name, op, attributes = "", "", {}
    for number, value in _fields(data):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            name = bytes(value).decode()
        elif number == 2:
            op = bytes(value).decode()
        elif number == 5:
            entry = dict(_fields(value))
            key, attribute = entry.get(1), entry.get(2)
            if isinstance(key, memoryview) and isinstance(attribute, memoryview):
                attributes[bytes(key).decode()] = _read_attribute(attribute)
    return Node(name, op, {k: v for k, v in attributes.items() if v is not None})


def _read_attribute(data: memoryview) -> Value | None:
    for number, value in _fields(data):
        if number == 8 and isinstance(value, memoryview):
            return _read_tensor(value)
        if number == 4 and isinstance(value, memoryview):
            return struct.unpack("<f", value)[0]
        if number == 5 and isinstance(value, int):
            return bool(value)
    return None


def _read_tensor(data: memoryview) -> np.ndarray | None:
    """A float32 TensorProto; None for other types."""
    dtype, shape = 0, ()
    content, floats = memoryview(b""), b""
    for number, value in _fields(data):
        if number == 1 and isinstance(value, int):
            dtype = value
        elif number == 2 and isinstance(value, memoryview):
            shape = tuple(_dimensions(value))
        elif number == 4 and isinstance(value, memoryview):
            content = value
        elif number == 5 and isinstance(value, memoryview):
            floats += value
    if dtype != _DT_FLOAT:
        return None
    packed = content or floats
    values = np.frombuffer(packed, "<f4", count=len(packed) // 4)
    size = math.prod(shape)  # Python's, because a forged shape may overflow NumPy's
    if not content and 0 < len(values) < size <= MAX_VALUES:
        values = np.pad(values, (0, size - len(values)), "edge")
    if len(values) != size:
        raise InputError(
            f"A constant of the graph needs {size} float32 values for its shape "
            f"{shape}, got {len(values)}."
        )
    return values.reshape(shape).astype(np.float32)


def _dimensions(data: memoryview) -> Iterator[int]:
    for number, value in _fields(data):
        if number == 2 and isinstance(value, memoryview):
            size = dict(_fields(value)).get(1, 0)
            if isinstance(size, int):
                yield size


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values of a message: integers, or bytes of all other types."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        if kind == _BYTES:
            length, place = _varint(data, place)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise struct.error(f"field {number} has unknown type {kind}")
        if place + length > len(data):
            raise struct.error(f"field {number} ends after its message")
        yield number, data[place : place + length]
        place += length


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """An integer of seven bits a byte, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise struct.error("a number has more than ten bytes")

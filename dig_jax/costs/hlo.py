"""Optimized HLO as text (`compiled.as_text()`), read into instructions.

Only what costs depend on is kept: shapes, operands, the computations that an
instruction calls and how often.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

ITEM_BITS = {"pred": 8, "token": 0, "opaque": 0, "s4": 4, "u4": 4, "bf16": 16}


class Shape(NamedTuple):
    """An array's type and where it lies.

    Attributes:
        dtype: As HLO names it.
        dims: Sizes.
        num_bytes: With the padding of its tiles.
        memory_space: 0 is the device's main memory; others lie on the chip itself.
    """

    dtype: str
    dims: tuple[int, ...]
    num_bytes: int
    memory_space: int

    @property
    def num_elements(self) -> int:
        """Without padding."""
        return math.prod(self.dims)

    @property
    def payload(self) -> int:
        """Bytes without padding."""
        return _bits(self.dtype) * self.num_elements // 8

    @property
    def main_memory(self) -> int:
        """Bytes in the device's main memory."""
        return 0 if self.memory_space else self.num_bytes


@dataclass(frozen=True)
class Instruction:
    """A line of a computation.

    Attributes:
        name: Unique in the module.
        opcode: As HLO names it.
        shapes: Of the result; several of a tuple, nested ones flattened.
        operands: Names of instructions of the same computation.
        attributes: The rest of the line; a parameter's number, a constant's value.
        is_root: Whether it is the computation's result.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @cached_property
    def called(self) -> tuple[str, ...]:
        """Computations that it runs; not those that it reduces by."""
        text = self.attributes
        if self.opcode == "conditional":
            listed = re.search(r"branch_computations=\{([^}]*)\}", text)
            if listed:
                return tuple(re.findall(r"%([\w.\-]+)", listed[1]))
        key = {
            "while": "(?:body|condition)",
            "conditional": "(?:true|false)_computation",
            "call": "to_apply",
        }.get(self.opcode, "calls")
        return tuple(re.findall(key + r"=%([\w.\-]+)", text))

    @property
    def estimated_cycles(self) -> int:
        """The TPU compiler's estimate; 0 where it makes none."""
        match = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(match[1]) if match else 0

    @property
    def source(self) -> str:
        """Name of the operation in the traced program."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match[1] if match else ""

    def number(self, key: str) -> int:
        """An attribute such as `index=1`."""
        match = re.search(key + r"=(\d+)", self.attributes)
        assert match is not None
        return int(match[1])

    def numbers(self, key: str) -> tuple[int, ...]:
        """An attribute such as `lhs_contracting_dims={1,2}`."""
        match = re.search(key + r"=\{([\d,]*)\}", self.attributes)
        return tuple(map(int, match[1].split(","))) if match and match[1] else ()


class Computation(dict[str, Instruction]):
    """Instructions by name, in order."""

    @property
    def root(self) -> Instruction:
        """Its result."""
        return next(i for i in self.values() if i.is_root)

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Who reads each instruction."""
        users: dict[str, list[Instruction]] = {name: [] for name in self}
        for instruction in self.values():
            for operand in set(instruction.operands):
                users[operand].append(instruction)
        return users

    def parameters(self) -> list[Instruction]:
        """In the order of their numbers."""
        found = [i for i in self.values() if i.opcode == "parameter"]
        return sorted(found, key=lambda i: int(i.attributes))


class Module(NamedTuple):
    """A program: its computations, of which one is run first."""

    computations: dict[str, Computation]
    entry: str

    def runs(self) -> Iterator[tuple[Computation, float, bool]]:
        """Each computation that runs: how often, and whether inside a fusion.

        Once for each place that it is called from.
        """

        def visit(
            name: str, times: float, fused: bool
        ) -> Iterator[tuple[Computation, float, bool]]:
            computation = self.computations[name]
            yield computation, times, fused
            for instruction in computation.values():
                inside = fused or instruction.opcode == "fusion"
                turns = 1
                if instruction.opcode == "while":
                    turns = self.turns(instruction, computation) or 1
                for callee in instruction.called:
                    yield from visit(callee, times * turns, inside)

        yield from visit(self.entry, 1.0, False)

    def turns(self, loop: Instruction, computation: Computation) -> int | None:
        """How often a loop's body runs; None where that is not known.

        By the compiler's word, or of a loop that counts up by one from a constant to
        another, as those of `lax.scan` do (TPU's compiler leaves its word out).
        """
        said = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if said:
            return int(said[1])
        condition = self._attribute(loop, "condition")
        less = condition.root
        if less.opcode != "compare" or "direction=LT" not in less.attributes:
            return None
        counter, bound = (condition[name] for name in less.operands)
        if counter.opcode != "get-tuple-element" or bound.opcode != "constant":
            return None
        place = counter.number("index")
        first = computation[computation[loop.operands[0]].operands[place]]
        while first.opcode == "copy":
            first = computation[first.operands[0]]
        body = self._attribute(loop, "body")
        following = body[body.root.operands[place]]
        steps = [body[name] for name in following.operands]
        steps = [i.attributes for i in steps if i.opcode == "constant"]
        if (first.opcode, following.opcode, steps) != ("constant", "add", ["1"]):
            return None
        return int(bound.attributes) - int(first.attributes)

    def _attribute(self, loop: Instruction, key: str) -> Computation:
        match = re.search(key + r"=%([\w.\-]+)", loop.attributes)
        assert match is not None
        return self.computations[match[1]]


def parse_module(text: str) -> Module:
    """The computations of a module's text."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        header = re.match(r"(ENTRY )?%([\w.\-]+) \(.*\{$", line)
        if header:
            current = computations.setdefault(header[2], Computation())
            entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and " = " in line:
            instruction = _parse_instruction(line)
            current[instruction.name] = instruction
    return Module(computations, entry)


def _parse_instruction(line: str) -> Instruction:
    left, _, right = line.strip().partition(" = ")
    end = _end_of_bracket(right, 0) if right.startswith("(") else right.index(" ")
    opening = right.index("(", end)
    closing = _end_of_bracket(right, opening)
    opcode, operands = right[end:opening].strip(), right[opening + 1 : closing - 1]
    is_value = opcode in ("parameter", "constant")
    return Instruction(
        name=left.removeprefix("ROOT ").lstrip("%"),
        opcode=opcode,
        shapes=tuple(_parse_shapes(right[:end])),
        operands=() if is_value else tuple(re.findall(r"%([\w.\-]+)", operands)),
        attributes=operands if is_value else right[closing:],
        is_root=left.startswith("ROOT "),
    )


def _end_of_bracket(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i + 1
    raise ValueError(f"A bracket is never closed: {text[start : start + 80]!r}")


def _parse_shapes(text: str) -> Iterator[Shape]:
    for match in re.finditer(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?", text):
        dtype, sizes, layout = match[1], match[2].replace("<=", ""), match[3] or ""
        dims = tuple(int(size) for size in sizes.split(",") if size)
        space = re.search(r"S\((\d+)\)", layout)
        padded = math.prod(_padded(dims, layout))
        num_bytes = -(-padded * _bits(dtype) // 8)
        yield Shape(dtype, dims, num_bytes, int(space[1]) if space else 0)


def _padded(dims: tuple[int, ...], layout: str) -> list[int]:
    """Sizes rounded up to whole tiles, the fastest axis last."""
    order, _, tiles = layout.partition(":")
    tile = re.match(r"T\(([\d,]+)\)", tiles)
    axes = [int(axis) for axis in order.split(",") if axis]
    sizes = [dims[axis] for axis in reversed(axes)] if axes else list(dims)
    for i, size in enumerate(reversed(tile[1].split(",") if tile else []), start=1):
        if i <= len(sizes):
            sizes[-i] = -(-sizes[-i] // int(size)) * int(size)
    return sizes


def _bits(dtype: str) -> int:
    if dtype in ITEM_BITS:
        return ITEM_BITS[dtype]
    match = re.match(r"[a-z]+(\d+)", dtype)
    return int(match[1]) if match else 0

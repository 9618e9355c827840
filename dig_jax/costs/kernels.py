"""The kernels of a program compiled for a GPU: how many, of which kind, bytes moved.

What time a kernel takes is not known before it runs; what passes through the device's
memory, and how often a kernel is started, is.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax

from dig_jax.costs.hlo import Instruction, parse_module
from dig_jax.costs.hlo_costs import memory_bytes, moves_nothing

_LIBRARIES = {"cublas": "cuBLAS", "cudnn": "cuDNN"}


class Kernel(NamedTuple):
    """An instruction that a GPU runs by itself.

    Attributes:
        kind: Triton product, Triton, cuBLAS, cuDNN, loop, reduction, rearrangement
            (a transpose or a concatenation), copy, or what HLO calls it.
        times: How often it runs.
        memory_bytes: Read from and written to main memory each time.
        results: Types and shapes, as HLO writes them.
        source: The operation in the traced program that it ends with.
    """

    kind: str
    times: int
    memory_bytes: int
    results: str
    source: str


class Tally(NamedTuple):
    """Kernels of one kind together."""

    launches: int = 0
    memory_bytes: int = 0


def list_kernels(program: jax.stages.Compiled | str) -> list[Kernel]:
    """What a program, or its text (`compiled.as_text()`), starts on a GPU."""
    return list(_kernels(program if isinstance(program, str) else program.as_text()))


def tally_by_kind(kernels: Sequence[Kernel]) -> dict[str, Tally]:
    """Launches and bytes of each kind."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    for kernel in kernels:
        before = tallies[kernel.kind]
        tallies[kernel.kind] = Tally(
            before.launches + kernel.times,
            before.memory_bytes + kernel.times * kernel.memory_bytes,
        )
    return dict(tallies)


def _kernels(text: str | None) -> Iterator[Kernel]:
    assert text is not None
    module = parse_module(text)
    for computation, times, fused in module.runs():
        if fused:
            continue
        for instruction in computation.values():
            if moves_nothing(instruction):
                continue
            inner = [
                i.opcode
                for name in instruction.called
                for i in module.computations[name].values()
            ]
            yield Kernel(
                _kind(instruction, inner),
                int(times),
                memory_bytes(instruction, computation, module),
                ", ".join(
                    f"{shape.dtype}{list(shape.dims)}".replace(" ", "")
                    for shape in instruction.shapes
                ),
                instruction.source,
            )


def _kind(instruction: Instruction, inner: list[str]) -> str:
    attributes = instruction.attributes
    if instruction.opcode == "custom-call":
        target = re.search(r'custom_call_target="([^"]*)"', attributes)
        name = target[1] if target else ""
        for library, kind in _LIBRARIES.items():
            if library in name:
                return kind
        return name or "custom-call"
    if instruction.opcode != "fusion":
        return instruction.opcode.removesuffix("-start")
    if "__triton" in attributes:
        return "Triton product" if "gemm" in attributes else "Triton"
    if "kind=kInput" in attributes:
        return "reduction" if "reduce" in inner else "rearrangement"
    return "loop" if "kind=kLoop" in attributes else "other fusion"

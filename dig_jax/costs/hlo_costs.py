"""What a compiled program costs, counted in its optimized HLO.

Bodies of loops count as often as they run: `Compiled.cost_analysis()` counts them once.
"""

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import jax

from dig_jax.costs.hlo import Computation, Instruction, Module, Shape, parse_module

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
    "send",
)
"""Kinds of communication; what starts one counts, what waits for it does not.

TPUs send between slices through their hosts, also what is reduced over them.
"""

CUDNN_ATTENTION = "__cudnn$fmha"
"""What the custom calls of cuDNN's attention begin with."""

# They move nothing: names for what is there, or for what is counted where it starts.
_FREE = {
    "after-all",
    "bitcast",
    "call",
    "conditional",
    "constant",
    "get-tuple-element",
    "iota",
    "opt-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
    "while",
}
_SLICES = {"dynamic-slice", "slice"}


@dataclass
class Costs:
    """What a program does on each device when it runs once.

    Attributes:
        flops: Of matrix products and convolutions, two for a multiply-add, without the
            places where one meets padding; those inside cuDNN's attention, too.
        memory_bytes: Read from and written to main memory by all that runs by itself,
            with the padding of tiles.
        cycles: The TPU compiler's estimates, added up; 0 on other platforms.
        operations: How many instructions of each opcode there are, fused ones too,
            each once however often it runs.
        collective_bytes: Of each kind of communication: the operands, or the result of
            an all-gather.
        reduced_bytes: Of the reductions among them, by the type that is added in.
        cycles_by_kind: What the cycles are spent on: product (anything fused with one),
            or the opcode that an instruction ends with.
        custom_calls: Runs of each kernel that the compiler sees from outside alone.
        unknown_loops: Loops whose number of turns is unknown; counted as one.
    """

    flops: float = 0.0
    memory_bytes: float = 0.0
    cycles: float = 0.0
    operations: Counter[str] = field(default_factory=Counter)
    collective_bytes: Counter[str] = field(default_factory=Counter)
    reduced_bytes: Counter[str] = field(default_factory=Counter)
    cycles_by_kind: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    custom_calls: Counter[str] = field(default_factory=Counter)
    unknown_loops: int = 0


def count_costs(program: jax.stages.Compiled | str) -> Costs:
    """The costs of a program, or of its text (`compiled.as_text()`)."""
    text = program if isinstance(program, str) else program.as_text()
    assert text is not None
    module = parse_module(text)
    costs = Costs()
    seen: set[int] = set()
    chains: set[str] = set()
    for computation, times, fused in module.runs():
        is_new = id(computation) not in seen
        seen.add(id(computation))
        for instruction in computation.values():
            if is_new:
                costs.operations[instruction.opcode] += 1
                if instruction.opcode == "while":
                    turns = module.turns(instruction, computation)
                    costs.unknown_loops += turns is None
            costs.flops += times * _flops(instruction, computation)
            if _is_first_of_chain(instruction, chains):
                _add_communication(costs, instruction, computation, times)
            if not fused:
                _add_run(costs, instruction, computation, module, times)
    return costs


def _add_run(
    costs: Costs,
    instruction: Instruction,
    computation: Computation,
    module: Module,
    times: float,
) -> None:
    """Add what an instruction does that runs by itself."""
    costs.memory_bytes += times * memory_bytes(instruction, computation, module)
    cycles = times * instruction.estimated_cycles
    if cycles:
        costs.cycles += cycles
        costs.cycles_by_kind[_kind(instruction, module)] += cycles
    if instruction.opcode == "custom-call":
        match = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
        costs.custom_calls[match[1] if match else ""] += int(times)


def _kind(instruction: Instruction, module: Module) -> str:
    """What an instruction is counted as in `cycles_by_kind`."""
    while instruction.opcode == "fusion":
        inner = module.computations[instruction.called[0]]
        nested = [inner]
        for computation in nested:
            nested += [
                module.computations[name]
                for i in computation.values()
                for name in i.called
            ]
        opcodes = {i.opcode for computation in nested for i in computation.values()}
        if opcodes & {"convolution", "dot"}:
            return "product"
        instruction = inner.root
        if instruction.opcode in ("bitcast", "tuple"):
            instruction = inner[instruction.operands[0]]
    is_product = instruction.opcode in ("convolution", "dot")
    return "product" if is_product else instruction.opcode


def moves_nothing(instruction: Instruction) -> bool:
    """Whether it only names what is there, or waits for what was started before."""
    opcode = instruction.opcode
    return opcode in _FREE or opcode.endswith(("-done", "-update"))


def memory_bytes(
    instruction: Instruction, computation: Computation, module: Module
) -> int:
    """Bytes of main memory that an instruction reads and writes."""
    opcode = instruction.opcode
    if moves_nothing(instruction):
        return 0
    operands = [computation[name] for name in instruction.operands]
    if opcode.endswith("-start") and len(instruction.shapes) > len(operands):
        # The result names the operands, too.
        return sum(shape.main_memory for shape in instruction.shapes)
    if opcode == "fusion":
        return _fusion_bytes(instruction, operands, module)
    if opcode in _SLICES or opcode == "gather":
        return 2 * _total(instruction.shapes)
    if opcode == "dynamic-update-slice":
        return 2 * _total(operands[1].shapes)
    return _total(instruction.shapes) + sum(_total(o.shapes) for o in operands)


def _fusion_bytes(
    fusion: Instruction, operands: list[Instruction], module: Module
) -> int:
    """Operands and results, of which only the slices that are touched count."""
    inner = module.computations[fusion.called[0]]
    total = 0
    for parameter, operand in zip(inner.parameters(), operands, strict=True):
        in_memory = _total(operand.shapes)
        if in_memory:
            total += min(in_memory, _touched(parameter, inner, module))
    root = inner.root
    results = (
        [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]
    )
    for shape, result in zip(fusion.shapes, results, strict=False):
        origin = _behind_bitcasts(result, inner)
        if origin.opcode == "dynamic-update-slice" and shape.main_memory:
            total += _stored(inner[origin.operands[1]])
        else:
            total += shape.main_memory
    return total


def _touched(parameter: Instruction, inner: Computation, module: Module) -> int:
    """Bytes of a parameter that a fused computation reads."""
    total = 0
    for user in inner.users[parameter.name]:
        if user.opcode in _SLICES:
            read = _stored(user) if user.is_root else _touched(user, inner, module)
            total += min(read, _stored(user))
        elif user.opcode == "dynamic-update-slice" and (
            user.operands[0] == parameter.name
        ):
            continue  # written in place
        elif user.opcode == "bitcast":
            total += _touched(user, inner, module)
        elif user.opcode == "convert" and not user.is_root:  # value by value
            read = _touched(user, inner, module)
            total += read * _stored(parameter) // max(_stored(user), 1)
        elif user.opcode == "fusion":
            nested = module.computations[user.called[0]]
            for place, name in zip(nested.parameters(), user.operands, strict=True):
                if name == parameter.name:
                    total += _touched(place, nested, module)
        else:
            return _stored(parameter)
    return total


def _behind_bitcasts(instruction: Instruction, inner: Computation) -> Instruction:
    while instruction.opcode == "bitcast":
        instruction = inner[instruction.operands[0]]
    return instruction


def _stored(instruction: Instruction) -> int:
    return sum(shape.num_bytes for shape in instruction.shapes)


def _total(shapes: tuple[Shape, ...]) -> int:
    return sum(shape.main_memory for shape in shapes)


def _is_first_of_chain(instruction: Instruction, chains: set[str]) -> bool:
    """Whether communication is no later part of what was seen before.

    TPU's compiler divides one all-gather among the fusions that compute meanwhile: each
    of them names the whole of it, and its chain.
    """
    match = re.search(r'chain_id="(\d+)"', instruction.attributes)
    if match is None:
        return True
    is_first = match[1] not in chains
    chains.add(match[1])
    return is_first


def _add_communication(
    costs: Costs, instruction: Instruction, computation: Computation, times: float
) -> None:
    kind = instruction.opcode.removesuffix("-start")
    if kind not in COLLECTIVES:
        return
    operands = [s for name in instruction.operands for s in computation[name].shapes]
    shapes = operands
    if kind == "all-gather":  # of what starts one, the result stands after the operands
        is_start = instruction.opcode.endswith("-start")
        shapes = instruction.shapes[len(operands) if is_start else 0 :]
    costs.collective_bytes[kind] += int(times * sum(s.payload for s in shapes))
    reduces = 'transfer_type="ALL_REDUCE"' in instruction.attributes  # that of a send
    if reduces or kind in ("all-reduce", "reduce-scatter"):
        for shape in filter(lambda s: s.payload, shapes):  # not tokens
            costs.reduced_bytes[shape.dtype] += int(times * shape.payload)


def _flops(instruction: Instruction, computation: Computation) -> float:
    """Of a product or a convolution; 0 of anything else."""
    if instruction.opcode == "dot":
        contracted = instruction.numbers("lhs_contracting_dims")
    elif instruction.opcode == "custom-call" and "gemm" in instruction.attributes:
        found = re.search(
            r'"lhs_contracting_dimensions":\[([\d",]*)\]', instruction.attributes
        )
        contracted = tuple(map(int, re.findall(r"\d+", found[1]))) if found else ()
        if not found:
            return 0.0
    elif instruction.opcode == "custom-call" and CUDNN_ATTENTION in (
        instruction.attributes
    ):
        return _attention_flops(instruction, computation)
    elif instruction.opcode == "convolution":
        return _convolution_flops(instruction, computation)
    else:
        return 0.0
    left = computation[instruction.operands[0]].shapes[0]
    length = math.prod(left.dims[axis] for axis in contracted)
    return 2.0 * instruction.shapes[0].num_elements * length


def _attention_flops(instruction: Instruction, computation: Computation) -> float:
    """Two products forward; backward four, and one again for the weights.

    Queries and keys are [batch, token, head, channel].
    """
    products = 5 if 'Backward"' in instruction.attributes else 2
    q, k = (computation[name].shapes[0] for name in instruction.operands[:2])
    return products * 2.0 * q.num_elements * k.dims[1]


def _convolution_flops(instruction: Instruction, computation: Computation) -> float:
    """2 x output features x batch x features of the kernel x places that meet.

    TPU's compiler writes products as convolutions, batch axes of products as space that
    is dilated so far that only one place in a row meets anything.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert labels is not None
    left, kernel = (computation[name].shapes[0].dims for name in instruction.operands)
    out = instruction.shapes[0].dims
    flops = 2.0 * out[labels[3].index("b")] * out[labels[3].index("f")]
    flops *= kernel[labels[2].index("i")]
    window = _window(instruction.attributes)
    for i in range(len(out) - 2):
        axis = str(i)
        flops *= _meeting_places(
            left[labels[1].index(axis)],
            kernel[labels[2].index(axis)],
            out[labels[3].index(axis)],
            {key: values[i] for key, values in window.items()},
        )
    return flops


def _window(attributes: str) -> dict[str, list[str]]:
    match = re.search(r"window=\{([^}]*)\}", attributes)
    pairs = (part.split("=") for part in match[1].split()) if match else ()
    return {key: values.split("x") for key, values in pairs}


def _meeting_places(size: int, kernel: int, out: int, window: dict[str, str]) -> int:
    """Along one axis, pairs of outputs and kernel entries that meet an input."""
    stride = int(window.get("stride", 1))
    low = int(window.get("pad", "0_0").split("_")[0])
    dilation = int(window.get("lhs_dilate", 1))
    kernel_dilation = int(window.get("rhs_dilate", 1))
    count = 0
    for k in range(kernel):
        # Inputs lie at multiples of the dilation, from 0 to the last of them.
        offset = k * kernel_dilation - low
        for o in range(out):
            place = o * stride + offset
            count += place % dilation == 0 and 0 <= place // dilation < size
    return count

"""A table of a backbone's modules: shapes, parameters, multiply-accumulates."""

import math
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from dig_jax.devices.target import compiling_for
from dig_jax.interfaces import Backbone
from dig_jax.ops.conv2d import SHIFTED_SUM
from dig_jax.ops.relations import MESSAGES


class Costs(NamedTuple):
    """What a network has and does for one image.

    Attributes:
        params: Number of parameters.
        macs: Multiply-accumulates of linear layers and convolutions: what papers on
            U-ViT and DiG count, but for norms.
        attention_macs: Those of attention's products, Q K^T and its weights times V:
            papers on DiT count both together.
    """

    params: int
    macs: int
    attention_macs: int


class Row(NamedTuple):
    """One module: its parameters' shapes, and its costs for one image."""

    module: str
    shapes: str
    params: int
    macs: int
    attention_macs: int


def count_costs(backbone: Backbone) -> Costs:
    """Parameters and multiply-accumulates of a whole network."""
    rows = summarize(backbone)
    return Costs(
        params=sum(row.params for row in rows),
        macs=sum(row.macs for row in rows),
        attention_macs=sum(row.attention_macs for row in rows),
    )


def summarize(backbone: Backbone) -> list[Row]:
    """A row for each module that has parameters or multiplies matrices.

    Multiply-accumulates are those of the matrix products and convolutions in the
    network's own computation for one image, loops counted in full. Aggregations that
    are matrix products themselves (`dense`) count as linear layers do; sums (`stencil`,
    `segment`) do not count. Norms, softmax and activations do not count either.
    """
    params = jax.eval_shape(backbone.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, *backbone.image_shape), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.float32)
    label = jax.ShapeDtypeStruct((1,), jnp.int32) if backbone.num_classes else None
    # On other platforms pooling is a product, too, and cuDNN's attention pads tokens:
    # the count shall be one everywhere.
    # JAX keeps what it traced by the function: not by the network's, which others jit.
    with compiling_for("cpu"):
        program = jax.make_jaxpr(partial(backbone.apply))(params, x, t, label)

    macs, attention_macs = defaultdict(int), defaultdict(int)
    for module, linear, attention in _count_macs(program.jaxpr):
        macs[module] += linear
        attention_macs[module] += attention
    shapes, sizes = defaultdict(list), defaultdict(int)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        module = "/".join(str(part.key) for part in path[:-1])
        shapes[module].append(f"{path[-1].key} {_shape(leaf.shape)}")
        sizes[module] += math.prod(leaf.shape)
    in_order_of_use = [*macs, *(name for name in shapes if name not in macs)]
    return [
        Row(
            name or "(top)",
            ", ".join(shapes[name]),
            sizes[name],
            macs[name],
            attention_macs[name],
        )
        for name in in_order_of_use
        if shapes[name] or macs[name] or attention_macs[name]
    ]


def summary_record(name: str, backbone: Backbone) -> dict[str, Any]:
    """Totals, the graph and the table, as one JSON object.

    `macs_per_image` is `Costs.macs`, without attention's products.
    """
    rows = summarize(backbone)
    graph = backbone.graph.summary() if backbone.graph is not None else None
    return {
        "backbone": name,
        "image_shape": list(backbone.image_shape),
        "num_classes": backbone.num_classes,
        "params": sum(row.params for row in rows),
        "macs_per_image": sum(row.macs for row in rows),
        "attention_macs_per_image": sum(row.attention_macs for row in rows),
        "num_nodes": graph["num_nodes"] if graph else None,
        "num_edges": graph["num_edges"] if graph else None,
        "graph": graph,
        "modules": [row._asdict() for row in rows],
    }


def format_summary(record: dict[str, Any]) -> str:
    """The record as text for a terminal."""
    has_attention = record["attention_macs_per_image"] > 0
    columns = {
        "module": "module",
        "shapes": "shapes",
        "params": "parameters",
        "macs": "MACs / image",
        **({"attention_macs": "in attention"} if has_attention else {}),
    }
    head = tuple(columns.values())
    totals = {
        "module": "total",
        "shapes": "",
        "params": record["params"],
        "macs": record["macs_per_image"],
        "attention_macs": record["attention_macs_per_image"],
    }
    *body, total = (
        tuple(
            f"{row[key]:,}" if isinstance(row[key], int) else row[key]
            for key in columns
        )
        for row in (*record["modules"], totals)
    )
    widths = [max(map(len, column)) for column in zip(head, *body, total, strict=True)]

    def line(row: tuple[str, ...]) -> str:
        cells = [
            cell.rjust(width) if column > 1 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    rule = "-" * len(line(head))
    rows, cols, rgb = record["image_shape"]
    lines = [
        f"{record['backbone']} for {rows}x{cols}x{rgb} images, "
        + (
            f"{record['num_classes']} classes"
            if record["num_classes"]
            else "unconditional"
        ),
        "",
        line(head),
        rule,
        *map(line, body),
        rule,
        line(total),
        _format_totals(record),
    ]
    if record["graph"]:
        lines += ["", *_format_graph(record["graph"])]
    return "\n".join(lines)


def _format_totals(record: dict[str, Any]) -> str:
    macs, attention = record["macs_per_image"], record["attention_macs_per_image"]
    text = f"{record['params'] / 1e6:.2f}M parameters, {macs / 1e9:.3f} GMACs an image"
    if not attention:
        return text
    return (
        f"{text} in linear layers and convolutions,\n"
        f"{attention / 1e9:.3f} in attention's products: "
        f"{(macs + attention) / 1e9:.3f} in all"
    )


def _format_graph(graph: dict[str, Any]) -> list[str]:
    padded = graph["num_padded_nodes"]
    padding = f", padded to {padded}" if padded != graph["num_nodes"] else ""
    lines = [
        f"graph: {graph['num_nodes']} nodes{padding}, {graph['num_edges']} edges "
        f"(both directions)"
    ]
    for scale in graph["scales"]:
        lines.append(
            f"  {scale['patch_size']:>3}-pixel patches  {scale['rows']}x{scale['cols']}"
            f" = {scale['num_nodes']} nodes, {scale['num_edges']} grid edges"
        )
    for kind, count in graph["edges"].items():
        if kind.startswith("across"):
            lines.append(
                f"  {kind.removeprefix('across')} pixels across: {count} edges"
            )
    if graph["num_hubs"]:
        lines.append(f"  {graph['num_hubs']} hubs: {graph['edges']['hubs']} edges")
    return lines


def _count_macs(jaxpr: core.Jaxpr, outer: str = "") -> Iterator[tuple[str, int, int]]:
    """(module, MACs, attention's MACs) of every operation, inner programs included."""
    for equation in jaxpr.eqns:
        if equation.params.get("name") == MESSAGES:
            continue
        stack = f"{outer}/{equation.source_info.name_stack}"
        yield _module_name(stack), *_macs_of(equation)
        repeats = equation.params["length"] if equation.primitive.name == "scan" else 1
        for inner in _inner_programs(equation):
            if isinstance(inner, core.ClosedJaxpr):
                inner = inner.jaxpr
            if isinstance(inner, core.Jaxpr):
                for name, linear, attention in _count_macs(inner, stack):
                    yield name, linear * repeats, attention * repeats


def _inner_programs(equation: core.JaxprEqn) -> list[Any]:
    """Programs among an operation's parameters, and other things."""
    if equation.primitive.name == "linear_call":
        arguments = [variable.aval for variable in equation.invars]
        return [jax.make_jaxpr(equation.params["call"])(*arguments)]
    return jax.tree.leaves(
        list(equation.params.values()),
        is_leaf=lambda p: isinstance(p, core.Jaxpr | core.ClosedJaxpr),
    )


def _macs_of(equation: core.JaxprEqn) -> tuple[int, int]:
    """(MACs, attention's MACs) of one operation."""
    name = equation.primitive.name
    if name == "dot_general":
        (contract, _), (batch, _) = equation.params["dimension_numbers"]
        sides = [_shape_of(equation.invars[0])[axis] for axis in contract]
        macs = math.prod(_shape_of(equation.outvars[0])) * math.prod(sides)
        # A linear layer has one matrix for all images and tokens; attention multiplies
        # matrices of each image and head, which are batch dimensions of the product.
        return (0, macs) if batch else (macs, 0)
    if name == "conv_general_dilated":
        # Each output value sums over a kernel's window and input channels.
        kernel = _shape_of(equation.invars[1])
        out_axis = equation.params["dimension_numbers"].rhs_spec[0]
        window = math.prod(kernel) // kernel[out_axis]
        return math.prod(_shape_of(equation.outvars[0])) * window, 0
    if equation.params.get("name") == SHIFTED_SUM:
        # A depthwise convolution that a CPU computes as a sum of shifted images.
        side = _shape_of(equation.invars[1])[0]
        return math.prod(_shape_of(equation.outvars[0])) * side**2, 0
    return 0, 0


def _module_name(stack: str) -> str:
    """Path of a module among the parameters: without the top's name and its methods."""
    parts = [part for part in stack.split("/") if part]
    # Methods have dots; transformations and einsums have parentheses and arrows.
    return "/".join(part for part in parts[1:] if part.isidentifier())


def _shape_of(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) if shape else "scalar"

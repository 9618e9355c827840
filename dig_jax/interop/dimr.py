"""DiMR's state dict (QHL067/DiMR): where each of its tensors lies in ours."""

from collections.abc import Iterator, Mapping
from typing import Any

from dig_jax.interop.tensors import (
    CONV,
    DEPTHWISE,
    LINEAR,
    SAME,
    Layout,
    Tensor,
    patches,
)

IN_TIME = {
    "p0": "param0",
    "p1": "param1",
    "omega": "nodecay_weight",
    "beta": "nodecay_bias",
}
OF_LAYER_NORM = {"scale": "weight", "shift": "bias"}
OF_LINEAR = {"kernel": "weight", "bias": "bias"}
IN_BLOCK = {
    "attention/qkv": "block1.query_key_value",
    "attention/project": "block1.dense",
    "mix": "block1.1",
    "mlp/gate": "block2.w0",
    "mlp/value": "block2.w1",
    "mlp/project": "block2.w2",
}


def tensors_of(leaves: Mapping[str, Any]) -> list[Tensor]:
    """A `Tensor` for each tensor of the network whose leaves these are."""
    num_branches = len({name.split("/")[0] for name in leaves})
    with_shift = any("/mlp_norm/shift/" in name for name in leaves)
    found = []
    for path in leaves:
        branch, _, rest = path.partition("/")
        r = int(branch.removeprefix("branch_"))
        size = 2 ** (num_branches - 1 - r)
        if rest.startswith("blocks/"):
            half = _half(leaves, branch)
            parts = _of_blocks(path, rest.removeprefix("blocks/"), half, with_shift)
        else:
            parts = iter([_around_blocks(path, rest, size)])
        found += [part._replace(name=f"stages.{r}.{part.name}") for part in parts]
    return found


def _half(leaves: Mapping[str, Any], branch: str) -> int:
    """Blocks in the first half of a branch."""
    of_skips = f"{branch}/blocks/out_blocks/fuse_skip/kernel"
    return leaves[of_skips].shape[0] if of_skips in leaves else 0


def _around_blocks(path: str, rest: str, size: int) -> Tensor:
    module, _, leaf = rest.rpartition("/")
    if rest in ("position", "label_embedding"):
        embeddings = {
            "position": "input_layer.3.position_embeddings.weight",
            "label_embedding": "class_embeds.weight",
        }
        return Tensor(embeddings[rest], path)
    if leaf in IN_TIME:
        norm, _, kind = module.rpartition("/")
        norms = {
            "upsample/in_norm": "upsample.0",
            "upsample/out_norm": "upsample.2",
            "norm": "output_layer.0",
        }
        return Tensor(f"{norms[norm]}.{OF_LAYER_NORM[kind]}.{IN_TIME[leaf]}", path)
    modules = {
        "patch": ("input_layer.1", patches(size)),
        "upsample/expand": ("upsample.1.kernel", LINEAR),
        "to_pixels": ("output_layer.2", CONV),
    }
    name, layout = modules[module]
    layout = layout if leaf == "kernel" else SAME
    return Tensor(f"{name}.{OF_LINEAR[leaf]}", path, layout)


def _of_blocks(path: str, rest: str, half: int, with_shift: bool) -> Iterator[Tensor]:
    """The tensors of each layer of one leaf.

    Theirs run in the order of computing; ours of the second half the other way.
    """
    stack, _, rest = rest.partition("/")
    layers = [None] if stack == "middle_block" else list(range(half))
    for layer in layers:
        index = {
            "in_blocks": layer,
            "middle_block": half,
            "out_blocks": 2 * half - (layer or 0),
        }[stack]
        if rest.startswith("fuse_"):
            module, leaf = rest.split("/")
            assert layer is not None
            name = f"skip_denses.{half - 1 - layer}.{OF_LINEAR[leaf]}"
            if leaf == "bias":
                yield Tensor(name, path, SAME, layer)
            else:
                part = (0, 2) if module == "fuse_h" else (1, 2)
                yield Tensor(name, path, LINEAR, layer, part)
            continue
        name, layout = _in_block(rest.removeprefix("block/"), with_shift)
        yield Tensor(f"blocks.{index}.{name}", path, layout, layer)


def _in_block(rest: str, with_shift: bool) -> tuple[str, Layout]:
    module, _, leaf = rest.rpartition("/")
    if module in IN_BLOCK:
        of_kernel = DEPTHWISE if module == "mix" else LINEAR
        layout = of_kernel if leaf == "kernel" else SAME
        return f"{IN_BLOCK[module]}.{OF_LINEAR[leaf]}", layout
    norm, *of_norm = rest.split("/")
    name = {"norm": "block1.norm", "mlp_norm": "block2.norm"}[norm]
    if of_norm == ["scale"]:  # without time
        return f"{name}.scale", SAME
    kind, leaf = of_norm
    kind = OF_LAYER_NORM[kind] if with_shift else kind
    return f"{name}.{kind}.{IN_TIME[leaf]}", SAME

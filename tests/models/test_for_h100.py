"""Every shipped backbone's gradient, made as for an H100.

No GPU takes part, but all of JAX's checks of shapes do: U-ViT's 257 tokens once passed
every test and failed on the first GPU.
"""

import runpy
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from ml_collections import FrozenConfigDict

from dig_jax.config.comparison import vary
from dig_jax.devices.target import Gpu, compiling_for
from dig_jax.experiment import create_experiment
from dig_jax.models import create_backbone

H100 = Gpu(compute_capability=(9, 0), cudnn_version=90800)
CONFIGS = [
    path
    for path in sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
    if not path.stem.endswith("folder")  # complete with their data alone
]


def variants_of(path):
    """(name, configuration) of all that a file describes."""
    found = runpy.run_path(str(path))
    if "VARIANTS" in found:
        return [(name, found["get_config"](name)) for name in found["VARIANTS"]]
    config = found["get_config"]()
    if "base" in config:
        sections = config.variants.items()
        return [(name, vary(config.base, name, s.to_dict())) for name, s in sections]
    return [("", config)] if "backbone" in config else []  # else a table of others


CASES = {
    f"{path.stem}:{name}": config
    for path in CONFIGS
    for name, config in variants_of(path)
}


def test_every_configuration_is_among_them():
    without = {path.stem for path in CONFIGS} - {
        case.partition(":")[0] for case in CASES
    }
    assert without == {"paper_tables"}


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_can_be_made_for_an_h100(case):
    config = CASES[case].copy_and_resolve_references()
    config.backbone.update(depth=2, unroll=1)  # two blocks, in a loop, stand for all
    experiment = create_experiment(config)
    image_shape = experiment.data.image_shape
    null_label = experiment.objective.label_dropout > 0
    has_attention = config.backbone.name in ("uvit", "dit")
    dtypes = {config.backbone.get("dtype", "float32")}
    for dtype in dtypes | ({"mixed", "bfloat16"} if has_attention else set()):
        options = FrozenConfigDict({**config.backbone, "dtype": dtype})
        attention, program = made_for_h100(options, image_shape, null_label)
        if config.backbone.name == "dimr":  # it pads nothing, so both may be
            assert attention
        elif not has_attention:
            assert not attention
        elif dtype == "float32":
            assert attention == "plain products"
        else:
            assert attention.startswith("cuDNN's")
            assert "__cudnn$fmhaSoftmaxBackward" in program


@cache
def made_for_h100(options, image_shape, null_label):
    """(what computes its attention, its gradient's program), once for equal ones.

    Without attention nothing is checked after tracing, and there is no program.
    """
    with compiling_for("gpu", H100):
        backbone = create_backbone(
            **dict(options), image_shape=image_shape, null_label=null_label
        )
        params = jax.eval_shape(backbone.init, jax.random.key(0))
        x = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
        t = jax.ShapeDtypeStruct((2,), jnp.float32)
        label = jax.ShapeDtypeStruct((2,), jnp.int32) if backbone.num_classes else None

        def loss(params, x, t, label):
            return jnp.sum(backbone.apply(params, x, t, label))

        traced = jax.jit(jax.grad(loss)).trace(params, x, t, label)
        program = ""
        if backbone.attention is not None:
            program = traced.lower(lowering_platforms=("cuda",)).as_text()
    return backbone.attention or "", program

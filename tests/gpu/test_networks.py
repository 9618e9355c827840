"""Every backbone on a GPU gives its own float32 numbers of the CPU, gradients too."""

import jax
import numpy as np
import pytest
from on_device import (
    Lowered,
    Results,
    largest_error,
    lower_on,
    made_for,
    norm_error,
    selected,
)

from dig_jax.errors import InputError
from dig_jax.models import BACKBONES, create_backbone

pytestmark = pytest.mark.gpu

# Heads of 16 channels: cuDNN's attention wants a multiple of 8. A loop over the blocks
# compiles faster than its unrolling.
SIZES = dict(image_shape=(8, 8, 3), width=64, depth=2, unroll=1)
TRANSFORMER = dict(num_heads=4, patch_size=2)
DIG = dict(patch_sizes=(2, 4), hops=2)
OPTIONS = {
    "dig_parallel": DIG,
    "dig_mix": DIG,
    "uvit": TRANSFORMER,
    "dit": TRANSFORMER,
}
# 16 patches, a time token, and with labels a context token: odd and even numbers of
# tokens in U-ViT. CIFAR-10 at its own size has 257 of them.
LABELS = {"unconditional": 0, "with labels": 3}
DTYPES = ("float32", "mixed", "bfloat16")
LARGE = dict(image_shape=(32, 32, 3), width=64, depth=2, unroll=1)
KERNELS = {
    f"{name}, {attention}, {labels}": dict(
        name=name,
        attention=attention,
        num_classes=LABELS[labels],
        **LARGE,
        **TRANSFORMER | dict(num_heads=1),
    )
    for name in ("uvit", "dit")
    for attention in ("auto", "xla", "cudnn")
    for labels in (LABELS if name == "uvit" else ("unconditional",))
}
NETWORKS = {
    f"{name}, {labels}": dict(
        name=name, num_classes=number, **SIZES, **OPTIONS.get(name, {})
    )
    for name in sorted(BACKBONES)
    for labels, number in LABELS.items()
}
CASES = {
    **{
        f"{case}, {dtype}": options | dict(dtype=dtype)
        for case, options in NETWORKS.items()
        for dtype in DTYPES
    },
    **{case: options | dict(dtype="mixed") for case, options in KERNELS.items()},
}

# Some 20 layers in float32, each wrong by a few 6e-8 of its largest value, and norms
# that stretch small differences. Products in TF32, which a GPU takes where nobody asks
# for more, round operands to 2^-11 and miss this by ten times.
ROUNDING = 1e-4
# Operands are rounded to 2^-9: over some 20 products in a row sqrt(20) * 2^-9 = 1% in
# size, and several times that in the worst value of a leaf; activations that are kept
# in bfloat16 are rounded as often again.
LOW_PRECISION = {"mixed": 0.05, "bfloat16": 0.08}


def random_problem(options):
    """Parameters and a batch, all random: mistakes hide behind zeros and ones."""
    with made_for(jax.devices("cpu")[0]):
        backbone = create_backbone(**exact(options))
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape)
        return np.float32(1 + 0.2 * noise if path[-1].key == "scale" else 0.15 * noise)

    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    params = jax.tree_util.tree_map_with_path(draw, shapes)
    x, cotangent = rng.normal(size=(2, 4, *backbone.image_shape)).astype(np.float32)
    t = np.array([0.013, 0.77, 0.4, 1.0], np.float32)
    label = np.array([2, 0, 1, 2]) if backbone.num_classes else None
    return params, x, t, label, cotangent


def exact(options):
    """What the CPU computes: float32, in a transformer with plain attention."""
    attention = {"attention": "xla"} if "num_heads" in options else {}
    return options | {"dtype": "float32"} | attention


def lower(device, options):
    """Prediction, and the gradient of its product with a cotangent, on a device."""
    problem = random_problem(options)
    with made_for(device):
        backbone = create_backbone(**options)

        def run(params, x, t, label, cotangent):
            out, vjp = jax.vjp(lambda p: backbone.apply(p, x, t, label), params)
            return out, vjp(cotangent)[0]

        return lower_on(device, run, *problem)


def case_of(case, dtype=""):
    """Of CASES, for the parameters of a test."""
    return f"{case}, {dtype}" if dtype else case


def reference_of(case, dtype="float32"):
    """What a case is compared with: plain attention, whatever the dtype."""
    return case.replace(", auto,", ", xla,").replace(", cudnn,", ", xla,")


@pytest.fixture(scope="module")
def results(device, request):
    chosen = selected(request, case_of)
    return Results(lambda case: lower(device, CASES[case]), chosen)


@pytest.fixture(scope="module")
def references(request):
    """On the CPU, each once: the dtype and attention of a case have no effect on it."""
    cpu = jax.devices("cpu")[0]

    def lower_exact(case) -> Lowered:
        return lower(cpu, exact(dict(**NETWORKS, **KERNELS)[case]))

    return Results(lower_exact, selected(request, reference_of))


def check(actual, expected, dtype):
    (output, gradient), (exact, exact_gradient) = actual, expected
    assert output.dtype == np.float32
    if dtype == "float32":
        wrong, where = largest_error((output, gradient), (exact, exact_gradient))
        assert wrong < ROUNDING, f"{where}: {wrong:.2g}"
        return
    bound = LOW_PRECISION[dtype]
    wrong, _ = largest_error(output, exact)
    # A network that passes over its dtype would be more exact than it should be.
    assert ROUNDING < wrong < bound
    assert norm_error(gradient, exact_gradient) < bound


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", NETWORKS)
def test_a_backbone_gives_the_numbers_of_the_cpu(results, references, case, dtype):
    check(results[case_of(case, dtype)], references[case], dtype)


@pytest.mark.parametrize("case", KERNELS)
def test_every_attention_gives_the_numbers_of_the_cpu(results, references, case):
    """256 tokens (DiT), 257 and 258 (U-ViT), with each kernel."""
    try:
        found = results[case]
    except InputError as error:
        if ", cudnn," not in case:
            raise
        pytest.skip(str(error))
    check(found, references[reference_of(case)], "mixed")

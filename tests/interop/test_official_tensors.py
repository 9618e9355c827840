"""State dicts of other projects: every tensor in its place, or named in an error."""

import hashlib
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from dig_jax.errors import InputError
from dig_jax.interop.autoencoder import NAMINGS, read_autoencoder
from dig_jax.interop.autoencoder import tensors_of as autoencoder_tensors
from dig_jax.interop.checkpoints import KINDS, backbone_params, official_state_dict
from dig_jax.interop.tensors import expected_shapes, to_state_dict
from dig_jax.models import create_backbone
from dig_jax.models.autoencoder import AutoencoderOptions, create_autoencoder
from dig_jax.storage.fingerprint import named_leaves

sys.path.insert(0, str(Path(__file__).parent))
import official_in_numpy

JUDGE = Path(__file__).parent / "dimr_judge.safetensors"
TINY = dict(image_shape=(8, 8, 3), num_classes=3, null_label=True, unroll=1)
NETWORKS = {
    "dimr": dict(TINY, width=16, depth=4, branches=2, num_heads=2),
    "dimr TD-LN": dict(
        TINY, width=16, depth=3, branches=3, norm="td_layer", num_heads=4
    ),
    "dimr RMS": dict(TINY, width=8, depth=1, branches=1, norm="rms", num_heads=4),
    "diffit": dict(TINY, width=16, depth=2, num_heads=2, learned_variance=True),
    "diffit windows": dict(TINY, width=16, depth=1, num_heads=2, window=2),
    "uvit": dict(TINY, width=16, depth=4, num_heads=2),
    "dit": dict(TINY, width=16, depth=2, num_heads=4),
    "dit variance": dict(TINY, width=16, depth=2, num_heads=4, learned_variance=True),
}
networks = pytest.mark.parametrize("network", NETWORKS)


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(without_optimizations):
    """Every test here."""


@cache
def backbone_of(network):
    return create_backbone(network.split()[0], **NETWORKS[network])


def random_params(abstract, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (0.2 * rng.normal(size=leaf.shape)).astype(np.float32), abstract
    )


@cache
def params_of(network):
    return random_params(jax.eval_shape(backbone_of(network).init, jax.random.key(0)))


def state_of(network):
    name = network.split()[0]
    return official_state_dict(name, backbone_of(network), params_of(network))


def read(network, state, **options):
    name = network.split()[0]
    return backbone_params(name, backbone_of(network), state, "w.pth", **options)


@networks
def test_there_and_back_again_is_the_same_to_the_bit(network):
    params = read(network, state_of(network))
    jax.tree.map(np.testing.assert_array_equal, params, params_of(network))


def digest(shapes):
    """Of names and shapes, in the order of the names."""
    lines = [
        f"{name} {'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items())
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


IMAGENET = dict(num_classes=1000, null_label=True, unroll=1)


@pytest.mark.parametrize(
    ("name", "options", "tensors", "expected"),
    [
        # Of the state dicts of the authors' modules.
        (
            "dimr",
            dict(
                image_shape=(32, 32, 4), width=960, depth=39, branches=2, num_heads=16
            ),
            1018,
            "6ba4436c672367d7",
        ),
        (
            "dimr",
            dict(
                image_shape=(64, 64, 3), width=768, depth=15, branches=3, num_heads=12
            ),
            577,
            "ac153b6ec5faafa6",
        ),
        (
            "diffit",
            dict(image_shape=(32, 32, 4), learned_variance=True),
            346,
            "18907730c0caa7fb",
        ),
    ],
    ids=["DiMR-XL/2R", "DiMR-M/3R", "DiffiT"],
)
def test_names_and_shapes_are_the_official_ones(name, options, tensors, expected):
    backbone = create_backbone(name, **options, **IMAGENET)
    leaves = named_leaves(jax.eval_shape(backbone.init, jax.random.key(0)))
    shape = backbone.image_shape
    shapes = expected_shapes(KINDS[name].tensors(leaves, shape), leaves)
    shapes |= {one.name: one.value.shape for one in KINDS[name].fixed(leaves, shape)}
    assert len(shapes) == tensors
    assert digest(shapes) == expected


@pytest.mark.parametrize(
    ("naming", "expected"),
    [("ldm", "3f205d47927d4156"), ("diffusers", "0afb81fba3b73b60")],
)
def test_the_autoencoders_names_and_shapes_are_the_official_ones(naming, expected):
    shapes = jax.eval_shape(create_autoencoder().init, jax.random.key(0))
    leaves = named_leaves(shapes)
    shapes = expected_shapes(autoencoder_tensors(leaves, naming), leaves)
    assert len(shapes) == 248
    assert digest(shapes) == expected


def test_dimr_gives_the_outputs_of_the_authors_module():
    """Random weights, and what DiMR's own code (fa141ae, in torch) makes of them."""
    judge = np.load(JUDGE.with_suffix(".npz"))
    backbone = create_backbone(
        "dimr",
        image_shape=(8, 8, 4),
        num_classes=11,
        branches=2,
        branch_widths=(32, 16),
        branch_depths=(5, 2),
        num_heads=4,
        unroll=1,
    )
    params = backbone_params("dimr", backbone, load_file(JUDGE), JUDGE.name)
    x = jnp.asarray(np.moveaxis(judge["x"], 1, -1))
    t = (judge["log_snr"] / 4 + 1) / 2
    outputs = jax.jit(backbone.outputs)(
        params, x, jnp.asarray(t), jnp.asarray(judge["y"])
    )
    for output, name in zip(outputs, ("out0", "out1"), strict=True):
        expected = np.moveaxis(judge[name], 1, -1)
        np.testing.assert_allclose(output, expected, atol=1e-4)


@pytest.mark.parametrize("network", ["uvit", "dit"])
def test_transformers_compute_what_their_authors_do_with_the_state_dict(network):
    state = {name: np.float64(x) for name, x in state_of(network).items()}
    rng = np.random.default_rng(1)
    image = rng.normal(size=(8, 8, 3)).astype(np.float32)
    t, label = np.full(1, 0.3, np.float32), 3
    output = jax.jit(backbone_of(network).apply)(
        params_of(network), image[None], t, np.array([label])
    )[0]
    expected = getattr(official_in_numpy, network)(
        state,
        image.transpose(2, 0, 1),
        999 * float(t[0]),
        label,
        patch_size=2,
        depth=NETWORKS[network]["depth"],
        num_heads=NETWORKS[network]["num_heads"],
    ).transpose(1, 2, 0)
    error = np.abs(output - expected).max() / np.abs(expected).max()
    assert error < 5e-5  # some 20 layers in float32


def test_a_uvit_without_its_last_convolution_has_one_that_changes_nothing():
    state = state_of("uvit")
    without = {name: x for name, x in state.items() if "final_layer" not in name}
    params = read("uvit", without)
    image = np.random.default_rng(1).normal(size=(8, 8, 3)).astype(np.float32)
    output = jax.jit(backbone_of("uvit").apply)(
        params, image[None], np.full(1, 0.3, np.float32), np.array([1])
    )[0]
    expected = official_in_numpy.uvit(
        {name: np.float64(x) for name, x in without.items()},
        image.transpose(2, 0, 1),
        999 * float(np.float32(0.3)),
        1,
        patch_size=2,
        depth=4,
        num_heads=2,
    )
    np.testing.assert_allclose(
        output, expected.transpose(1, 2, 0), atol=5e-5 * np.abs(expected).max()
    )
    back = official_state_dict("uvit", backbone_of("uvit"), params)
    assert set(back) == set(without)


def with_variance(state):
    """A DiT's state dict with as many channels of variance behind the three."""
    rng = np.random.default_rng(2)
    wide = dict(state)
    for kind in ("weight", "bias"):
        name = f"final_layer.linear.{kind}"
        pixels = state[name].reshape(4, 3, *state[name].shape[1:])
        variance = rng.normal(size=pixels.shape).astype(np.float32)
        both = np.concatenate([pixels, variance], axis=1)
        wide[name] = both.reshape(24, *state[name].shape[1:])
    return wide


def test_a_learned_variance_is_left_out_only_when_asked():
    wide = with_variance(state_of("dit"))
    with pytest.raises(InputError, match=r"predicts a variance.*--drop_variance"):
        read("dit", wide)
    params = read("dit", wide, drop_variance=True)
    jax.tree.map(np.testing.assert_array_equal, params, params_of("dit"))
    both = official_state_dict(
        "dit", backbone_of("dit variance"), read("dit variance", wide)
    )
    for tensor, array in both.items():
        np.testing.assert_array_equal(array, wide[tensor])
    with pytest.raises(InputError, match="no learned variance to leave out"):
        read("uvit", state_of("uvit"), drop_variance=True)


def changed(network, **changes):
    """A state dict with tensors replaced; None takes one out."""
    state = {**state_of(network), **changes}
    return {name: x for name, x in state.items() if x is not None}


NUMBERS = np.ones(3, np.float32)
IN_DIMR = "stages.0.class_embeds.weight"


@pytest.mark.parametrize(
    ("network", "changes", "message"),
    [
        (
            "dimr",
            {IN_DIMR: None},
            r"Of \d+ tensors and \d+ found: missing 1: stages.0.cl",
        ),
        ("dimr", {"extra": NUMBERS}, "left over 1: extra"),
        ("uvit", {"final_layer.weight": None}, "missing 1: final_layer.weight"),
        ("dimr", {IN_DIMR: NUMBERS}, rf"{IN_DIMR} must be \[4, 16\], got \[3\]"),
        ("dimr", {IN_DIMR: np.full((4, 16), np.nan, np.float32)}, "not finite"),
        (
            "diffit",
            {"pos_embed": np.zeros((1, 16, 16), np.float32)},
            "another pos_embed",
        ),
        (
            "diffit",
            {"blocks.1.attn.relative_position_index": np.zeros((16, 16), np.int64)},
            "another blocks.1.attn.relative_position_index",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_named(network, changes, message):
    with pytest.raises(InputError, match=message):
        read(network, changed(network, **changes))


def test_the_weights_of_another_known_network_are_told_by_its_name():
    with pytest.raises(InputError, match=r"weights of a U-ViT.*backbone is a DiMR"):
        read("dimr", state_of("uvit"))
    with pytest.raises(InputError, match=r"autoencoder .*--autoencoder"):
        read("dit", {"encoder.conv_in.weight": NUMBERS})
    with pytest.raises(InputError, match=r"known for backbone 'dig_mix'.*diffit, dimr"):
        official_state_dict("dig_mix", backbone_of("dit"), {})


def test_another_size_is_told_by_its_shapes():
    other = create_backbone("dit", **{**NETWORKS["dit"], "width": 24})
    with pytest.raises(InputError, match=r"of another shape.*must be \[24.*got \[16"):
        backbone_params("dit", other, state_of("dit"), "w.pth")


def test_networks_that_have_no_official_names_are_refused():
    plain = create_backbone("dimr", **{**NETWORKS["dimr"], "mlp": "plain"})
    params = random_params(jax.eval_shape(plain.init, jax.random.key(0)))
    with pytest.raises(InputError, match="no plain MLP"):
        official_state_dict("dimr", plain, params)


@cache
def autoencoder():
    made = create_autoencoder(AutoencoderOptions(widths=(32, 32, 64), blocks=1))
    return made, random_params(jax.eval_shape(made.init, jax.random.key(0)))


@pytest.mark.parametrize("naming", NAMINGS)
def test_an_autoencoders_size_and_naming_are_read_from_its_tensors(naming):
    made, params = autoencoder()
    state = to_state_dict(params, autoencoder_tensors(named_leaves(params), naming), [])
    read, again = read_autoencoder(state, "kl.pth")
    assert read.options == made.options
    jax.tree.map(np.testing.assert_array_equal, again, params)
    name = next(name for name in state if "norm" in name)
    del state[name]
    with pytest.raises(InputError, match=f"missing 1: {name}"):
        read_autoencoder(state, "kl.pth")


def test_another_projects_file_is_no_autoencoder():
    with pytest.raises(InputError, match="any of the namings ldm, diffusers"):
        read_autoencoder(state_of("dit"), "dit.pt")

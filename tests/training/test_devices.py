"""A run spread over eight devices, and over fewer: what is sent, what it computes."""

import json
import re
from typing import Any

import jax
import numpy as np
import optax
import pytest
from processes import TINY, digits_config

from dig_jax.devices.sharding import create_mesh, place_rows
from dig_jax.errors import InputError
from dig_jax.experiment import create_experiment
from dig_jax.options import MeshOptions
from dig_jax.sampling.choices import check_sample_options
from dig_jax.sampling.sampler import Sampler
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.storage.fingerprint import fingerprints, named_leaves
from dig_jax.training.programs import create_programs

BATCH = 16
CHANGES = {
    "backbone.width": 32,  # at 16, no leaf is large enough to be spread over eight
    "backbone.patch_sizes": (4,),
    "backbone.dtype": "mixed",
    "training.batch_size": BATCH,
    "optimizer.warmup_steps": 0,
    "sample.num_images": 10,
}
RESTORED = {"data": 8}, {"fsdp": 8}, {"data": 1, "fsdp": 4}, {"data": 1, "fsdp": 2}
STEPPED = {
    "data_2_fsdp_4": ({"fsdp": 4}, {}),
    "fsdp_8_in_parts": ({"fsdp": 8}, {"microbatch": 8}),
    "one": ({"data": 1}, {}),
}


def programs_on(mesh, **changes):
    config = digits_config("", TINY, CHANGES)
    config.training.update(changes)
    return create_programs(create_experiment(config), create_mesh(mesh))


def take_step(programs, state):
    """The state after a step, the loss, and what the step's HLO sends."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, 8, 8, 1)).astype(np.uint8)
    labels = rng.integers(0, 10, BATCH).astype(np.int32)
    batch = place_rows(programs.mesh, (images, labels))
    step = programs.lower_step().compile()
    state, metrics = step(state, *batch)
    return state, float(metrics["loss"]), collectives(step.as_text())


def collectives(text):
    """(kind, dtype, shape, devices in a group) of all that an HLO sends."""
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    found = []
    for line in text.splitlines():
        if match := re.search(rf" = (.*?) ({kinds})(-start)?\(", line):
            result, kind, _ = match.groups()
            groups = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
            size = len(groups[1].split(",")) if groups else 0
            for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", result):
                found.append(
                    (kind, dtype, [int(n) for n in shape.split(",") if n], size)
                )
    return found


def reduced_dtypes(lowered):
    """What a program adds up over devices before XLA has it: (rank, dtype) of each."""
    operation = r"stablehlo\.(?:all_reduce|reduce_scatter)\".*?\}\) : \(tensor<(.*?)>"
    types = re.findall(operation, lowered.as_text(), re.DOTALL)
    return sorted({(t.count("x") > 0, t.split("x")[-1]) for t in types})


def draw(programs, params):
    experiment = programs.experiment
    options = check_sample_options(experiment, experiment.sample)
    return Sampler(experiment, options, programs.mesh).draw(params)


def with_prefix(prefix, tree):
    return {f"{prefix}/{k}": np.asarray(leaf) for k, leaf in named_leaves(tree).items()}


def on_eight_devices(folder):
    """A state saved on eight devices, read on other meshes; a step from it on some."""
    arrays: dict[str, Any] = {}
    said: dict[str, Any] = {"restored": []}
    for name, (mesh, changes) in STEPPED.items():
        programs = programs_on(MeshOptions(**mesh), **changes)
        state = programs.create_state()
        if name == "data_2_fsdp_4":
            with Checkpoints(folder) as checkpoints:
                checkpoints.save(state, {})
            saved = fingerprints(named_leaves(state))
            arrays["images"] = draw(programs, state.ema)
        said[name] = {
            "same_start": fingerprints(named_leaves(state)) == saved,
            "spread": sum(
                leaf.size
                for leaf in jax.tree.leaves(state)
                if not leaf.sharding.is_fully_replicated
            ),
        }
        state, loss, sent = take_step(programs, state)
        arrays |= with_prefix(name, first_moments(state))
        said[name] |= {"loss": loss, "collectives": sent}
    for mesh in RESTORED:
        like = programs_on(MeshOptions(**mesh)).abstract_state
        with Checkpoints(folder, read_only=True) as checkpoints:
            state, _ = checkpoints.restore(like)
        places = [jax.tree.map(lambda a: a.sharding, tree) for tree in (state, like)]
        same = fingerprints(named_leaves(state)) == saved
        said["restored"].append((places[0] == places[1], same))
    for dtype in ("float32", "bfloat16"):
        programs = programs_on(MeshOptions(fsdp=4), gradient_dtype=dtype)
        said[dtype] = reduced_dtypes(programs.lower_step())
    return {**arrays, "said": np.array(json.dumps(said))}


def first_moments(state):
    """Of Adam: after one step, a tenth or so of the gradient."""
    return optax.tree.get(state.opt_state, "mu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("of_eight")


@pytest.fixture(scope="module")
def eight(on_devices, folder):
    """Arrays by name, and what else was found: on eight devices, or some of them."""
    arrays = on_devices(8, on_eight_devices, str(folder))
    return arrays, json.loads(str(arrays["said"]))


@pytest.fixture(scope="module")
def one_device():
    return programs_on(MeshOptions(data=1))


@pytest.mark.parametrize("index", range(len(RESTORED)))
def test_a_state_is_restored_to_any_mesh_in_every_bit(eight, index):
    places_as_asked, same_bits = eight[1]["restored"][index]
    assert places_as_asked
    assert same_bits


def test_parameters_averages_and_moments_are_spread(eight, one_device):
    _, said = eight
    total = sum(leaf.size for leaf in jax.tree.leaves(one_device.abstract_state))
    # The small leaves of a tiny network are a seventh of it.
    assert said["fsdp_8_in_parts"]["spread"] > 0.8 * total
    assert said["one"]["spread"] == 0


@pytest.mark.parametrize("name", STEPPED)
def test_the_first_state_does_not_depend_on_the_devices(eight, name):
    assert eight[1][name]["same_start"]


def test_averages_of_eight_devices_draw_the_same_images_on_one(
    eight, folder, one_device
):
    with Checkpoints(folder, read_only=True) as checkpoints:
        params, step, _ = checkpoints.restore_ema(one_device.abstract_state.params)
    assert step == 0
    np.testing.assert_array_equal(draw(one_device, params), eight[0]["images"])


@pytest.mark.parametrize("name", [name for name in STEPPED if name != "one"])
def test_a_gradient_does_not_depend_on_devices_nor_on_parts(eight, one_device, name):
    arrays, said = eight
    params = jax.tree.leaves(one_device.abstract_state.params)
    # Sums over the batch in another order: roundings of float32, of terms that are
    # thousands of times what is left of them in the smallest leaves. Other noise would
    # change loss and gradients by percents.
    assert said[name]["loss"] == pytest.approx(said["one"]["loss"], rel=1e-5)
    compared = 0
    for key, leaf in arrays.items():
        if key.startswith(f"{name}/"):
            one = arrays["one" + key.removeprefix(name)]
            scale = np.abs(one).max()
            np.testing.assert_allclose(leaf, one, rtol=0, atol=1e-3 * scale)
            compared += leaf.size
    assert compared == sum(p.size for p in params)


@pytest.mark.parametrize("name", STEPPED)
def test_nothing_but_parameters_and_gradients_is_sent(eight, one_device, name):
    """Parameters are gathered once, gradients reduced once, in float32."""
    params = jax.tree.leaves(one_device.abstract_state.params)
    shapes, size = [list(p.shape) for p in params], sum(p.size for p in params)
    gathered = reduced = 0
    for kind, dtype, shape, group in eight[1][name]["collectives"]:
        assert kind in ("all-gather", "all-reduce", "reduce-scatter")
        assert dtype == "f32"
        if kind == "all-gather":
            assert shape in shapes
            gathered += np.prod(shape)
        else:
            reduced += np.prod(shape) * (group if kind == "reduce-scatter" else 1)
    if name == "one":
        assert gathered == reduced == 0
        return
    assert 0.8 * size < gathered <= size
    # With both axes, a device's fourth of a leaf is reduced once more, over data.
    again = 1 / 4 if name == "data_2_fsdp_4" else 0
    assert size <= reduced <= (1.02 + again) * size


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float32", "f32"), ("bfloat16", "bf16")]
)
def test_gradients_are_reduced_in_the_dtype_that_is_asked_for(eight, dtype, expected):
    arrays = {found for is_array, found in eight[1][dtype] if is_array}
    assert arrays == {expected}


@pytest.mark.parametrize("microbatch", [3, 12, 32])
def test_parts_that_do_not_divide_the_batch_are_refused(microbatch):
    with pytest.raises(
        InputError, match=rf"got {microbatch}\. Choices: 1, 2, 4, 8, 16, or 0"
    ):
        programs_on(MeshOptions(data=1), microbatch=microbatch)

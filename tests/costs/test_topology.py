"""Names of hardware that is not there, and programs compiled for it."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from dig_jax.config import load_config_file
from dig_jax.costs import (
    DoesNotFitError,
    compile_lowered,
    compile_train_step,
    compiling_for,
    count_costs,
    create_topology,
    memory_of,
    target_platform,
)
from dig_jax.errors import InputError
from dig_jax.experiment import create_experiment
from dig_jax.graphs import GridGraph
from dig_jax.ops.aggregation import choose_aggregation, create_aggregate


@pytest.fixture(scope="module")
def topology():
    pytest.importorskip("libtpu")
    return create_topology("v5e:2x2")


@pytest.mark.parametrize("name", ["v9:2x2", "v5e", "v5e:2y2", "", "2x2"])
def test_unknown_topologies_are_refused_with_choices(name):
    with pytest.raises(InputError, match=r"Unknown topology.*v4, v5e, v5p, v6e, h100"):
        create_topology(name)


@pytest.mark.parametrize("name", ["v5e:3x7", "v5e:2x2x2", "v5p:2x2"])
def test_impossible_shapes_are_refused(topology, name):
    with pytest.raises(InputError, match=r"has no topology.*for example"):
        create_topology(name)


@pytest.mark.parametrize(
    ("name", "devices", "slices"),
    [
        ("v4:2x2x4", 16, 1),
        ("v5e:1x1", 1, 1),
        ("v5p:2x2x2", 8, 1),
        ("v6e:16x16", 256, 1),
        ("2xv5e:4x4", 32, 2),
    ],
)
def test_each_chip_is_a_device(topology, name, devices, slices):
    made = create_topology(name)
    assert len(made.devices) == devices
    assert {getattr(d, "slice_index", None) or 0 for d in made.devices} == set(
        range(slices)
    )
    assert made.mesh().size == devices


def test_hosts_with_some_of_their_gpus_are_refused():
    with pytest.raises(InputError, match=r"Hosts have 8 GPUs.*got 12"):
        create_topology("h100:12")


def test_a_missing_cuda_plugin_is_named():
    if importlib.util.find_spec("jax_cuda12_plugin") is not None:
        assert len(create_topology("h100:32").devices) == 32
        return
    with pytest.raises(InputError, match=r"pip install .jax-cuda12-plugin=="):
        create_topology("h100:8")


def test_auto_is_what_the_platform_that_is_compiled_for_wants():
    graph = GridGraph.create(8, (2,))
    h = jax.ShapeDtypeStruct((graph.num_padded_nodes, 4), jnp.float32)

    def program(name):
        return jax.jit(create_aggregate(name, graph)).lower(h).as_text()

    here = target_platform()
    for platform in ("cpu", "gpu", "tpu"):
        with compiling_for(platform):
            assert target_platform() == platform
            chosen = choose_aggregation(platform, graph)
            assert program("auto") == program(chosen)
    assert target_platform() == here == jax.default_backend()


def test_tpu_products_loops_and_all_reduces_are_counted(topology):
    """Of a scan, in bfloat16, over the batch of four chips."""
    mesh = topology.mesh()
    whole, rows = (NamedSharding(mesh, PartitionSpec(*s)) for s in ((), ("data",)))
    w = jax.ShapeDtypeStruct((6, 256, 256), jnp.bfloat16, sharding=whole)
    x = jax.ShapeDtypeStruct((4 * 512, 256), jnp.bfloat16, sharding=rows)

    def loss(w, x):
        h, _ = jax.lax.scan(lambda h, k: (jnp.tanh(h @ k), None), x, w)
        return jnp.sum(h.astype(jnp.float32))

    lowered = jax.jit(jax.grad(loss), out_shardings=whole).lower(w, x)
    compiled = compile_lowered(lowered)
    costs = count_costs(compiled)
    product = 2 * 512 * 256 * 256
    assert costs.flops == 3 * 6 * product  # forward, and two for each in the backward
    assert sum(costs.reduced_bytes.values()) == 6 * 256 * 256 * 2
    assert costs.collective_bytes["all-gather"] == 0
    at_peak = costs.flops / topology.chip.flops * topology.chip.clock
    assert costs.cycles > at_peak
    assert costs.memory_bytes > memory_of(compiled).arguments
    assert costs.unknown_loops == 0


def test_a_program_for_absent_chips_is_compiled_again_without_a_warning(
    topology, recwarn
):
    """Also where jax keeps programs: those of absent chips cannot be read back."""
    rows = NamedSharding(topology.mesh(), PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((8, 3), jnp.float32, sharding=rows)
    for _ in range(2):
        compile_lowered(jax.jit(lambda x: jnp.sin(x) + 17).lower(x))
    assert not [w for w in recwarn if "compilation cache" in str(w.message)]


def test_what_does_not_fit_is_refused(topology):
    one = NamedSharding(topology.mesh(1), PartitionSpec())
    x = jax.ShapeDtypeStruct((4, 2**30), jnp.float32, sharding=one)
    lowered = jax.jit(lambda x: (jnp.sin(x), jnp.cos(x))).lower(x)
    with pytest.raises(DoesNotFitError, match=r"needs \d+\S*G of memory.*which has 15"):
        compile_lowered(lowered)


def test_the_train_step_reduces_the_gradients_alone(topology):
    config = load_config_file("configs/digits.py")
    config.backbone.update(width=16, depth=2, dtype="mixed")
    mesh = topology.mesh()
    with compiling_for(topology.platform):
        experiment = create_experiment(config)
        compiled = compile_train_step(experiment, mesh, batch_size=8)
    params = jax.eval_shape(experiment.backbone.init, jax.random.key(0))
    num_bytes = sum(4 * leaf.size for leaf in jax.tree.leaves(params))
    costs = count_costs(compiled)
    # Beside the gradients some scalars of the metrics.
    assert num_bytes <= costs.collective_bytes["all-reduce"] <= num_bytes + 1000
    assert set(costs.collective_bytes) == {"all-reduce"}
    assert costs.operations["scatter"] == 0

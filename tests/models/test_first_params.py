"""Parameters made leaf by leaf are those that Flax makes in one program."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dig_jax.models import as_backbone, create_backbone

NETWORKS = {
    "dig_parallel": dict(patch_sizes=(2, 4)),
    "dig_parallel of gin": dict(conv="gin", conditioning="concat", position="2d"),
    "dig_mix": dict(patch_sizes=(2, 4), conv="gcn", remat=True),
    "dit": dict(num_heads=4),
    "uvit": dict(),
}


def create(network):
    return create_backbone(
        network.split()[0],
        image_shape=(8, 8, 1),
        num_classes=3,
        null_label=True,
        width=16,
        depth=4,
        **NETWORKS[network],
    )


@pytest.fixture
def flax_init(monkeypatch):
    """`network -> init` as Flax has it, in one program."""

    def make(network):
        def plain(module, make_inputs):
            return jax.jit(lambda key: module.init(key, *make_inputs())["params"])

        with monkeypatch.context() as patch:
            patch.setattr(as_backbone, "make_init", plain)
            return create(network).init

    return make


def assert_same_but_for_rounding(found, wanted):
    """Equal within some units in the last place.

    Each program scales its normal numbers in its own way: on some processors one bit
    or two come out otherwise.
    """
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-6),
        found,
        wanted,
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_parameters_are_flaxs_own(network, flax_init):
    key = jax.random.key(7)
    wanted = flax_init(network)(key)
    found = create(network).init(key)
    assert_same_but_for_rounding(found, wanted)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)


class OfFlax(nn.Module):
    """Layers that are not ours, as those of a user's network."""

    @nn.compact
    def __call__(self, x, t, label, return_features=False):
        h = nn.LayerNorm()(nn.Dense(8)(x)) + nn.Embed(3, 8)(label)[:, None, None]
        return nn.Conv(x.shape[-1], (3, 3))(h)


def test_layers_of_flax_have_their_own_first_parameters():
    key, x = jax.random.key(7), jnp.zeros((1, 4, 4, 1))
    given = x, jnp.zeros(1), jnp.zeros(1, jnp.int32)
    wanted = jax.jit(lambda key: OfFlax().init(key, *given)["params"])(key)
    found = as_backbone.as_backbone(OfFlax(), (4, 4, 1), num_classes=3).init(key)
    assert_same_but_for_rounding(found, wanted)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)


def test_parameters_are_the_same_inside_of_a_program():
    init, key = create("dig_mix").init, jax.random.key(7)
    assert_same_but_for_rounding(jax.jit(init)(key), init(key))


def test_leaves_lie_where_they_are_asked_to():
    init, key = create("uvit").init, jax.random.key(7)
    mesh = Mesh(np.array(jax.devices()[:1]), ("fsdp",))
    shapes = jax.eval_shape(init, key)

    def place(leaf):
        spread = PartitionSpec("fsdp") if leaf.ndim > 1 else PartitionSpec()
        return NamedSharding(mesh, spread)

    places = jax.tree.map(place, shapes)
    found = init(key, places)
    for leaf, there in zip(
        jax.tree.leaves(found), jax.tree.leaves(places), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(there, leaf.ndim)
        assert leaf.dtype == jnp.float32


def test_no_program_of_the_parameters_holds_a_product():
    lowered = jax.jit(create("dig_parallel").init).lower(jax.random.key(0))
    assert "dot_general" not in lowered.as_text()

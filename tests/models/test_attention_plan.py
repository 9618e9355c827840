"""What computes attention, chosen for GPUs that are not there and for this machine."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from dig_jax.costs.summary import count_costs
from dig_jax.devices.target import Gpu, compiling_for
from dig_jax.errors import InputError
from dig_jax.models import attention_plan, create_backbone
from dig_jax.models.attention_plan import AttentionPlan, choose_attention

H100 = Gpu(compute_capability=(9, 0), cudnn_version=90800)
A100 = H100._replace(compute_capability=(8, 0))
T4 = H100._replace(compute_capability=(7, 5))


def choose(gpu: Gpu | None = H100, channels: int = 64, **options: Any):
    """For 257 tokens and two heads; auto and mixed where nothing else is asked for."""
    usual = dict(attention="auto", dtype="mixed", num_tokens=257, num_heads=2)
    arguments: Any = {**usual, "width": 2 * channels, **options}
    if gpu is None:
        return choose_attention(**arguments)
    with compiling_for("gpu", gpu):
        return choose_attention(**arguments)


def test_on_a_cpu_attention_is_plain_products():
    assert choose(None) == AttentionPlan(257)
    assert str(choose(None)) == "plain products"
    with pytest.raises(
        InputError, match=r"NVIDIA GPU.*got cpu and mixed.*auto and xla"
    ):
        choose(None, attention="cudnn")


def test_heads_divide_the_width():
    with pytest.raises(InputError, match=r"got 6 heads for width 64.*fit: 1, 2, 4, 8"):
        choose_attention("auto", "mixed", width=64, num_heads=6, num_tokens=4)


@pytest.mark.parametrize("dtype", ["mixed", "bfloat16"])
def test_auto_is_cudnn_with_the_fewest_tokens_that_its_gradient_takes(dtype):
    plan = choose(dtype=dtype)
    assert plan.kernel == "cudnn"
    assert str(plan) == "cuDNN's, 257 tokens padded to 258"
    assert choose(attention="cudnn", dtype=dtype) == plan
    assert choose(attention="xla", dtype=dtype) == AttentionPlan(257)
    assert choose(dtype="float32") == AttentionPlan(257)
    even = choose(num_tokens=256)
    assert (even.kernel, even.padding) == ("cudnn", 0)


def test_tokens_are_padded_to_the_multiple_that_is_asked_for():
    assert choose(token_multiple=8).padding == 7
    assert choose(token_multiple=3).padding == 1  # 258, even as it is
    assert choose(token_multiple=257).padding == 257  # 514: 257 is not even
    assert choose(attention="xla", token_multiple=8) == AttentionPlan(257, "xla", 7, 7)


@pytest.mark.parametrize(
    ("gpu", "channels", "works"),
    [
        (H100, 256, True),
        (A100, 128, True),
        (A100, 256, False),
        (H100, 264, False),
        (H100, 12, False),
        (T4, 64, False),
    ],
)
def test_what_the_gpu_refuses_is_plain_or_one_line(gpu, channels, works):
    plan = choose(gpu=gpu, channels=channels)
    assert plan.kernel == ("cudnn" if works else "xla")
    if works:
        return
    assert plan.padding == 0
    assert plan.refusal in str(plan)
    with pytest.raises(InputError, match="257 tokens and heads of") as error:
        choose(attention="cudnn", gpu=gpu, channels=channels)
    assert plan.refusal in str(error.value)
    assert "\n" not in str(error.value)


def test_without_its_gpu_cudnn_is_not_taken_for_a_platform():
    with compiling_for("gpu"):
        plan = choose(None)
    assert plan.kernel == "xla"
    assert plan.refusal == "it is not said for which GPU"


def test_what_can_be_traced_but_not_run_is_refused(monkeypatch):
    """This machine passes for one with a GPU; its compiler knows no cuDNN."""
    inside = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(inside, "check_cudnn_version", lambda: 91500)
    monkeypatch.setattr(attention_plan, "target_platform", lambda: "gpu")
    attention_plan._refusal.cache_clear()
    assert choose(H100).kernel == "cudnn"
    assert choose(None).kernel == "xla"
    assert "dot_product_attention" in choose(None).refusal
    with pytest.raises(InputError, match="dot_product_attention"):
        choose(None, attention="cudnn")
    attention_plan._refusal.cache_clear()


@pytest.mark.parametrize("name", ["uvit", "dit"])
def test_a_network_costs_the_same_with_cudnn(name):
    def costs(attention):
        sizes = dict(image_shape=(8, 8, 3), width=32, depth=2, num_heads=4)
        return count_costs(
            create_backbone(name, **sizes, dtype="mixed", unroll=1, attention=attention)
        )

    expected = costs("xla")
    with compiling_for("gpu", H100):
        assert costs("cudnn") == expected
    assert expected.attention_macs > 0


def test_a_network_for_a_gpu_can_be_traced_for_a_cpu():
    with compiling_for("gpu", H100):
        backbone = create_backbone(
            "uvit", image_shape=(8, 8, 3), width=32, depth=2, num_heads=4, dtype="mixed"
        )
    params = jax.eval_shape(backbone.init, jax.random.key(0))
    x, t = jnp.zeros((2, 8, 8, 3)), jnp.zeros(2)

    def program():  # of a function of its own, by which JAX keeps what it traced
        return str(jax.make_jaxpr(partial(backbone.apply))(params, x, t, None))

    assert "dot_product_attention" not in program()
    with compiling_for("gpu", H100):
        assert "dot_product_attention" in program()

"""Costs of programs that can be counted by hand."""

# ruff: noqa: E501 -- lines of HLO

import jax
import jax.numpy as jnp
import pytest

from dig_jax.costs import count_costs
from dig_jax.costs.hlo import parse_module


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def costs_of(function, *args):
    return count_costs(jax.jit(function).lower(*args).compile())


def test_products_are_counted():
    costs = costs_of(lambda a, b: jnp.tanh(a @ b), f32(8, 16), f32(16, 32))
    assert costs.flops == 2 * 8 * 16 * 32


def test_products_of_batches_are_counted():
    costs = costs_of(
        lambda a, b: jnp.einsum("bij,bkj->bik", a, b), f32(3, 8, 16), f32(3, 4, 16)
    )
    assert costs.flops == 2 * 3 * 8 * 16 * 4


def test_a_loop_counts_as_often_as_it_turns():
    def chain(x, kernels):
        return jax.lax.scan(lambda h, w: (jnp.sin(h @ w), None), x, kernels)[0]

    costs = costs_of(chain, f32(64, 16), f32(7, 16, 16))
    assert costs.flops == 7 * 2 * 64 * 16 * 16
    assert costs.unknown_loops == 0


def test_a_loop_within_a_loop_multiplies():
    def chain(x):
        def inner(_, h):
            return jnp.sin(h @ h)

        return jax.lax.fori_loop(
            0, 5, lambda _, h: jax.lax.fori_loop(0, 3, inner, h), x
        )

    assert costs_of(chain, f32(64, 64)).flops == 15 * 2 * 64**3


def test_a_loop_of_unknown_length_is_named():
    def until_large(x):
        return jax.lax.while_loop(lambda h: h.sum() < 9, lambda h: h @ h, x)

    assert costs_of(until_large, f32(32, 32)).unknown_loops == 1


@pytest.mark.parametrize(
    ("window", "macs"),
    [
        # 3x3, padded by 1: rows and columns at the border meet 2 instead of 3.
        ("window={size=3x3 pad=1_1x1_1}", 4 * 5 * (3 * 6 - 2) ** 2),
        # A product of batches: dilated so far that each output meets one place.
        (
            "window={size=6x6 stride=5x5 pad=0_0x0_0 lhs_dilate=6x6}",
            4 * 5 * 6 * 6,
        ),
        # Every second place of a transposed convolution meets an input.
        ("window={size=2x2 pad=0_0x0_0 lhs_dilate=2x2}", 4 * 5 * 10 * 10),
    ],
)
def test_convolutions_count_only_places_that_meet(window, macs):
    size = int(window[13])
    out = {3: 6, 6: 6, 2: 10}[size]
    text = f"""
HloModule m

ENTRY %main (a: f32[1,6,6,4], k: f32[{size},{size},4,5]) -> f32[1,{out},{out},5] {{
  %a = f32[1,6,6,4]{{3,2,1,0}} parameter(0)
  %k = f32[{size},{size},4,5]{{3,2,1,0}} parameter(1)
  ROOT %c = f32[1,{out},{out},5]{{3,2,1,0}} convolution(%a, %k), {window}, dim_labels=b01f_01io->b01f
}}
"""
    assert count_costs(text).flops == 2 * macs


def test_memory_is_that_of_operands_and_results():
    """One fusion that reads two arrays and writes one."""
    costs = costs_of(lambda a, b: jnp.sin(a) + b, f32(100, 10), f32(100, 10))
    assert costs.memory_bytes == 3 * 4 * 1000


def test_a_loop_over_slices_reads_each_slice_once():
    def total(x, rows):
        return jax.lax.scan(lambda h, row: (jnp.sin(h + row), None), x, rows)[0]

    once = costs_of(total, f32(1000), f32(1, 1000)).memory_bytes
    costs = costs_of(total, f32(1000), f32(50, 1000))
    # Per turn: the slice, the carry in and out; all of the rows would be 50 times that.
    assert 50 * 8000 <= costs.memory_bytes <= 50 * 16100 + once


def test_tiles_are_padded_and_other_memories_are_not_counted():
    text = """
HloModule m

ENTRY %main (a: bf16[3,257,100], b: f32[8]) -> bf16[3,257,100] {
  %a = bf16[3,257,100]{2,1,0:T(8,128)(2,1)} parameter(0)
  %b = f32[8]{0:T(128)S(1)} parameter(1)
  ROOT %c = bf16[3,257,100]{2,1,0:T(8,128)(2,1)} custom-call(%a, %b), custom_call_target="k"
}
"""
    costs = count_costs(text)
    assert costs.memory_bytes == 2 * 2 * 3 * 264 * 128
    assert costs.custom_calls == {"k": 1}


def test_cudnn_attention_is_two_products_and_its_gradient_five():
    """Of 3 images, 10 queries, 6 keys, 4 heads of 8 channels."""
    q, k, rest = "bf16[3,10,4,8]", "bf16[3,6,4,8]", "f32[3,4,10]"
    text = f"""
HloModule m

ENTRY %main (q: {q}, k: {k}) -> {q} {{
  %q = {q} parameter(0)
  %k = {k} parameter(1)
  %f = ({q}, {rest}, u8[0]) custom-call(%q, %k, %k), custom_call_target="__cudnn$fmhaSoftmax"
  %s = {rest} get-tuple-element(%f), index=1
  ROOT %b = ({q}, {k}, {k}, u8[0]) custom-call(%q, %k, %k, %s), custom_call_target="__cudnn$fmhaSoftmaxBackward"
}}
"""
    product = 2 * 3 * 4 * 10 * 6 * 8
    costs = count_costs(text)
    assert costs.flops == (2 + 5) * product
    assert sum(costs.custom_calls.values()) == 2


def test_estimated_cycles_add_up_over_turns_of_a_loop():
    text = """
HloModule m

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %y = f32[8]{0} sine(%x), backend_config={"estimated_cycles":"10"}
  ROOT %t = (s32[], /*index=1*/f32[8]{0}) tuple(%i, %y)
}

%condition (p.1: (s32[], f32[8])) -> pred[] {
  %p.1 = (s32[], f32[8]{0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  ROOT %less = pred[] compare(%i.1, %i.1), direction=LT
}

ENTRY %main (a: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = (s32[], f32[8]{0}) parameter(0)
  %w = (s32[], f32[8]{0}) while(%a), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"6"}}
  %z = f32[8]{0} get-tuple-element(%w), index=1
  %c = f32[8]{0} copy(%z), backend_config={"estimated_cycles":"7"}
  %n = s32[] get-tuple-element(%w), index=0
  ROOT %r = (s32[], f32[8]{0}) tuple(%n, %c)
}
"""
    costs = count_costs(text)
    assert costs.cycles == 6 * 10 + 7
    assert costs.cycles_by_kind == {"sine": 60, "copy": 7}
    assert costs.memory_bytes == 6 * 64 + 64 + 6 * 9  # and what the condition compares
    assert len(parse_module(text).computations) == 3


def test_scatters_and_gathers_are_counted():
    costs = costs_of(
        lambda x, i: x[i], f32(100, 8), jax.ShapeDtypeStruct((5,), "int32")
    )
    assert costs.operations["gather"] == 1
    assert costs.operations["scatter"] == 0


def test_collectives_are_counted_in_bytes():
    """By their operands; an all-gather, however it is written, by its result."""
    text = """
HloModule m

ENTRY %main (a: f32[8,4], b: bf16[6]) -> f32[16,4] {
  %a = f32[8,4]{1,0} parameter(0)
  %b = bf16[6]{0} parameter(1)
  %r = (f32[8,4]{1,0}, bf16[6]{0}) all-reduce(%a, %b), to_apply=%add
  %s = (f32[8,4]{1,0}, f32[16,4]{1,0}) all-gather-start(%a), dimensions={0}
  %d = f32[16,4]{1,0} all-gather-done(%s)
  %c = f32[4,4]{1,0} reduce-scatter(%a), dimensions={0}, to_apply=%add
  ROOT %g = f32[16,4]{1,0} all-gather(%a), dimensions={0}
}
"""
    costs = count_costs(text)
    assert costs.collective_bytes == {
        "all-reduce": 128 + 12,
        "all-gather": 2 * 256,
        "reduce-scatter": 128,
    }
    assert costs.reduced_bytes == {"f32": 128 + 128, "bf16": 12}


def test_a_reduction_between_slices_is_a_send_that_counts_once():
    text = """
HloModule m

ENTRY %main (a: f32[2,8,128]) -> f32[2,8,128] {
  %a = f32[2,8,128]{2,1,0} parameter(0)
  %t = token[] after-all()
  %s = (f32[2,8,128]{2,1,0}, u32[], token[]) send(%a, %t), channel_id=1, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %e = token[] send-done(%s), channel_id=1, is_host_transfer=true
  %r = (f32[2,8,128]{2,1,0}, u32[], token[]) recv(%t), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %d = (f32[2,8,128]{2,1,0}, token[]) recv-done(%r), channel_id=2, is_host_transfer=true
  ROOT %g = f32[2,8,128]{2,1,0} get-tuple-element(%d), index=0
}
"""
    costs = count_costs(text)
    assert costs.collective_bytes == {"send": 4 * 2 * 8 * 128}
    assert costs.reduced_bytes == {"f32": 4 * 2 * 8 * 128}


def test_an_all_gather_that_is_divided_among_fusions_counts_once():
    text = """
HloModule m

%part.1 (p: f32[4,8]) -> f32[16,8] {
  %p = f32[4,8]{1,0} parameter(0)
  ROOT %g.1 = f32[16,8]{1,0} all-gather(%p), dimensions={0}, frontend_attributes={chain_id="0"}
}

%part.2 (q: f32[4,8]) -> f32[16,8] {
  %q = f32[4,8]{1,0} parameter(0)
  ROOT %g.2 = f32[16,8]{1,0} all-gather(%q), dimensions={0}, frontend_attributes={chain_id="0"}
}

ENTRY %main (a: f32[4,8]) -> f32[16,8] {
  %a = f32[4,8]{1,0} parameter(0)
  %first = f32[16,8]{1,0} fusion(%a), kind=kCustom, calls=%part.1
  %second = f32[16,8]{1,0} fusion(%a), kind=kCustom, calls=%part.2
  %other = f32[16,8]{1,0} all-gather(%a), dimensions={0}, frontend_attributes={chain_id="1"}
  ROOT %s = f32[16,8]{1,0} add(%second, %other)
}
"""
    assert count_costs(text).collective_bytes == {"all-gather": 2 * 4 * 16 * 8}

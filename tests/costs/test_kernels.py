"""Kernels of a program that can be counted by hand."""

# ruff: noqa: E501 -- lines of HLO

from dig_jax.costs import list_kernels, tally_by_kind

PROGRAM = """HloModule step, is_scheduled=true

%gelu (p.1: bf16[64,8]) -> (bf16[64,8], bf16[64,8]) {
  %p.1 = bf16[64,8]{1,0} parameter(0)
  %t.1 = bf16[64,8]{1,0} tanh(%p.1)
  ROOT %both = (bf16[64,8]{1,0}, bf16[64,8]{1,0}) tuple(%p.1, %t.1)
}

%sum (p.2: bf16[64,8]) -> f32[8] {
  %p.2 = bf16[64,8]{1,0} parameter(0)
  %c.2 = f32[64,8]{1,0} convert(%p.2)
  %zero = f32[] constant(0)
  ROOT %r.2 = f32[8]{0} reduce(%c.2, %zero), dimensions={0}, to_apply=%add
}

%first_row (p.3: bf16[64,8]) -> f32[1,8] {
  %p.3 = bf16[64,8]{1,0} parameter(0)
  %c.3 = f32[64,8]{1,0} convert(%p.3)
  ROOT %s.3 = f32[1,8]{1,0} slice(%c.3), slice={[0:1], [0:8]}
}

%product (p.4: bf16[64,8], p.5: bf16[8,8]) -> bf16[64,8] {
  %p.4 = bf16[64,8]{1,0} parameter(0)
  %p.5 = bf16[8,8]{1,0} parameter(1)
  ROOT %d.4 = bf16[64,8]{1,0} dot(%p.4, %p.5), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (state: (s32[], bf16[64,8], bf16[8,8])) -> (s32[], bf16[64,8], bf16[8,8]) {
  %state = (s32[], bf16[64,8]{1,0}, bf16[8,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %h = bf16[64,8]{1,0} get-tuple-element(%state), index=1
  %w = bf16[8,8]{1,0} get-tuple-element(%state), index=2
  %next = bf16[64,8]{1,0} fusion(%h, %w), kind=kCustom, calls=%product, backend_config={"fusion_backend_config":{"kind":"__triton_nested_gemm_fusion"}}
  ROOT %out = (s32[], bf16[64,8]{1,0}, bf16[8,8]{1,0}) tuple(%i, %next, %w)
}

%condition (state.1: (s32[], bf16[64,8], bf16[8,8])) -> pred[] {
  %state.1 = (s32[], bf16[64,8]{1,0}, bf16[8,8]{1,0}) parameter(0)
  ROOT %always = pred[] constant(true)
}

ENTRY %main (x: bf16[64,8], k: bf16[8,8]) -> f32[8] {
  %x = bf16[64,8]{1,0} parameter(0)
  %k = bf16[8,8]{1,0} parameter(1)
  %zero.1 = s32[] constant(0)
  %gelus = (bf16[64,8]{1,0}, bf16[64,8]{1,0}) fusion(%x), kind=kLoop, calls=%gelu, metadata={op_name="mlp/gelu"}
  %act = bf16[64,8]{1,0} get-tuple-element(%gelus), index=1
  %row = f32[1,8]{1,0} fusion(%act), kind=kLoop, calls=%first_row
  %start = (s32[], bf16[64,8]{1,0}, bf16[8,8]{1,0}) tuple(%zero.1, %act, %k)
  %loop = (s32[], bf16[64,8]{1,0}, bf16[8,8]{1,0}) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %h.1 = bf16[64,8]{1,0} get-tuple-element(%loop), index=1
  %gemm = (bf16[64,8]{1,0}, s8[16]{0}) custom-call(%h.1, %k), custom_call_target="__cublas$gemm"
  %h.2 = bf16[64,8]{1,0} get-tuple-element(%gemm), index=0
  ROOT %total = f32[8]{0} fusion(%h.2), kind=kInput, calls=%sum
}
"""
ROWS, KERNEL = 64 * 8 * 2, 8 * 8 * 2  # bytes


def test_kernels_are_counted_as_often_as_they_run():
    tallies = tally_by_kind(list_kernels(PROGRAM))
    assert {kind: tally.launches for kind, tally in tallies.items()} == {
        "loop": 2,
        "Triton product": 5,
        "cuBLAS": 1,
        "reduction": 1,
    }


def test_bytes_of_kernels_are_what_they_read_and_write():
    tallies = tally_by_kind(list_kernels(PROGRAM))
    row = 8 * 2 + 8 * 4  # of a slice only what it takes is read, also when converted
    assert tallies["loop"].memory_bytes == 3 * ROWS + row
    assert tallies["Triton product"].memory_bytes == 5 * (2 * ROWS + KERNEL)
    assert tallies["cuBLAS"].memory_bytes == 2 * ROWS + KERNEL + 16
    assert tallies["reduction"].memory_bytes == ROWS + 8 * 4


def test_a_kernel_is_named_by_its_results_and_its_source():
    first = list_kernels(PROGRAM)[0]
    assert (first.results, first.source) == ("bf16[64,8], bf16[64,8]", "mlp/gelu")

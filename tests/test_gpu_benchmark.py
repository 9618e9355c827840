"""benchmarks/gpu.py, tiny and on a CPU: what it leaves when it is cut off."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from gpu_parts.kernels import Kernel, by_kind, kind_of, largest, read_kernels  # noqa: E402
from gpu_parts.schedule import PARTS, allowance  # noqa: E402

COMMAND = [sys.executable, str(BENCHMARKS / "gpu.py"), "--platform=cpu", "--tiny"]
WAIT = 600.0


def start(*arguments):
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read(path):
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def found_products(record):
    part = record.get("parts", {}).get("tables", {})
    return part.get("tables", {}).get("products", [])


def test_a_run_that_is_stopped_leaves_what_it_found(tmp_path):
    out = tmp_path / "gpu.json"
    process = start("--parts=tables,memory", "--minutes=30", f"--out={out}")
    ends = time.monotonic() + WAIT
    while not found_products(read(out)):  # each look finds a whole file
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < ends
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=WAIT)
    record = read(out)
    assert process.returncode == 143
    assert "## tables" in said
    assert "missing packages: " in said
    assert record["machine"]["platform"] == "cpu"
    assert found_products(record)[0]["product"] == "256^3"
    assert record["parts"]["tables"]["status"] == "running"
    assert list(tmp_path.iterdir()) == [out]


def test_what_has_no_time_is_cut_off_or_left_out_by_name(tmp_path):
    """Three seconds: less than a part of this needs, on any machine."""
    out = tmp_path / "gpu.json"
    process = start("--parts=starting,memory", "--minutes=0.05", f"--out={out}")
    said, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 0
    parts = read(out)["parts"]
    assert parts["starting"]["status"].startswith(("cut off after", "left out: "))
    assert set(parts) == {"starting", "memory"}
    for name, entry in parts.items():
        assert f"## {name}: {entry['asks']}\n\n{entry['status']}; " in said


def test_without_a_gpu_nothing_is_tried(tmp_path):
    command = [*COMMAND[:2], f"--out={tmp_path / 'gpu.json'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert done.stderr.startswith("error: no GPU: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--parts=tables,speed", "unknown parts speed. Available: correct, starting"),
        ("--minutes=0", "--minutes must be more than 0, got 0."),
    ],
)
def test_bad_arguments_are_refused_in_a_line(argument, said):
    done = subprocess.run(
        [*COMMAND, argument], capture_output=True, text=True, check=False
    )
    assert done.returncode == 78
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1


def test_parts_share_the_time_and_none_gets_more_than_there_is():
    left, given = 480.0, []
    for index, part in enumerate(PARTS):
        seconds = allowance(part, list(PARTS[index + 1 :]), left)
        given.append(seconds)
        assert seconds == 0 or part.least <= seconds <= left
        left -= seconds
    assert all(given)
    assert left == pytest.approx(0)
    first, *others = PARTS
    assert allowance(first, others, first.least - 1) == 0
    assert allowance(first, [], 100.0) == 100.0


def event(place, line, name, microseconds, **arguments):
    return dict(
        ph="X", pid=place, tid=line, name=name, dur=microseconds, args=arguments
    )


# As jax writes it of an NVIDIA GPU: streams, and lines that are derived from them.
TRACE = [
    dict(ph="M", pid=1, name="process_name", args={"name": "/device:GPU:0"}),
    dict(ph="M", pid=9, name="process_name", args={"name": "/host:CPU"}),
    dict(ph="M", pid=1, tid=2, name="thread_name", args={"name": "Stream #2(Compute)"}),
    dict(ph="M", pid=1, tid=3, name="thread_name", args={"name": "XLA Ops"}),
    event(1, 2, "gemm_fusion_dot_1", 30.0, hlo_op="gemm_fusion_dot.1"),
    event(1, 2, "gemm_fusion_dot_1", 20.0, hlo_op="gemm_fusion_dot.1"),
    event(1, 2, "nvjet_tst_128x256_64x4_2x1_v_bz_coopA_NNT", 40.0),
    event(1, 2, "loop_add_fusion_3", 10.0),
    event(1, 3, "gemm_fusion_dot.1", 50.0, hlo_op="gemm_fusion_dot.1"),
    event(9, 1, "cuLaunchKernel", 5.0),
]


def test_kernels_are_read_from_the_streams_alone():
    kernels = read_kernels(TRACE)
    assert [kernel.microseconds for kernel in kernels] == [30.0, 20.0, 40.0, 10.0]
    rows = {row["kind"]: row for row in by_kind(kernels, steps=2)}
    assert rows["all"] == {
        "kind": "all",
        "ms a step": 0.05,
        "share": 1.0,
        "launches": 2.0,
    }
    assert rows["products, Triton"]["share"] == 0.5
    assert rows["products, libraries"]["share"] == 0.4
    first = largest(kernels, steps=2)[0]
    assert (first["kernel"], first["launches"]) == ("gemm_fusion_dot_1", 1.0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", "attention"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128", "products, libraries"),
        ("input_reduce_fusion_12", "sums"),
        ("input_scatter_fusion", "scatters"),
        ("MemcpyD2D", "copies"),
        ("RngBitGenerator", "other"),
    ],
)
def test_kernels_have_kinds(name, kind):
    assert kind_of(Kernel(name, "", 1.0)) == kind


def test_a_flag_that_this_jaxlib_lacks_is_named(tmp_path, monkeypatch):
    from gpu_parts import xla_flags

    flags = {"none such": "--xla_gpu_no_such_flag=true"}
    monkeypatch.setattr(xla_flags, "FLAGS", flags)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    path = [str(BENCHMARKS), str(BENCHMARKS.parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    child = xla_flags.Child("none such", COMMAND[1:], tmp_path)
    error = (
        "not for this jaxlib: Unknown flag in XLA_FLAGS: --xla_gpu_no_such_flag=true"
    )
    assert child.measure() == {"error": error}

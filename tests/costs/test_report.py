"""What --mode=compile says of chips that are not there."""

import importlib.util
import json
import re

import pytest
from fake_devices import devices_of

from dig_jax.config import load_config_file
from dig_jax.costs import (
    Costs,
    Memory,
    StepReport,
    format_report,
    report,
    report_record,
    report_step,
)
from dig_jax.costs.topology import CHIPS, Topology
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE
from dig_jax.experiment import create_experiment
from dig_jax.main import main

CHIP = CHIPS["v5e"]
TINY = {
    "backbone.width": 64,
    "backbone.depth": 2,
    "backbone.hops": 1,
    "backbone.patch_sizes": (4,),
    "backbone.dtype": "mixed",
    "training.batch_size": 128,
}
COMPILE = ("--mode=compile", "--config=configs/digits.py")

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)


def tiny_config(**changes):
    config = load_config_file("configs/digits.py")
    config.update_from_flattened_dict({**TINY, **changes})
    return config


@pytest.fixture(scope="module")
def tiny_report():
    return report_step(create_experiment(tiny_config()), "v5e:8x8")


@needs_libtpu
def test_a_step_on_64_chips_keeps_to_its_budget(tiny_report):
    """A budget of the whole package: whoever sends or keeps more meets this first."""
    assert tiny_report.mesh == {"data": 2, "fsdp": 32}
    params, memory = tiny_report.param_bytes, tiny_report.memory
    # A part of parameters, average and two moments, the small leaves, and what
    # tiles of 8 x 128 numbers add to so small ones; whole, they would be 4 times.
    assert 4 * params / 32 < memory.arguments < params
    # The gathered parameters, their gradients, and what two images need.
    assert memory.peak < 3 * params
    # Once, in float32 or in the bfloat16 that the network computes in.
    assert 0.45 < tiny_report.gathered < 1.05
    assert 0.95 < tiny_report.reduced < 1.1
    assert set(tiny_report.costs.reduced_bytes) == {"f32"}
    kinds = {kind for kind, sent in tiny_report.costs.collective_bytes.items() if sent}
    assert kinds <= {"all-gather", "all-reduce", "reduce-scatter"}
    assert tiny_report.costs.operations["scatter"] == 0


@needs_libtpu
def test_a_report_reads_and_is_json(tiny_report):
    text = format_report(tiny_report)
    assert "v5e:8x8: 64 chips, mesh data 2, fsdp 32; batch 128, 2 on a chip" in text
    assert re.search(r"fits: \d+\.\d\d GiB of 16\.00 GiB", text)
    assert re.search(r"all-gather .* times the parameters", text)
    record = json.loads(json.dumps(report_record(tiny_report)))
    assert record["fits"]
    assert record["seconds"][record["bound"]] == max(record["seconds"].values())


needs_cuda = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None, reason="no CUDA plugin"
)


@needs_cuda
@pytest.mark.parametrize(
    ("name", "attention", "said", "calls"),
    [
        ("uvit", "auto", "cuDNN's, 17 tokens padded to 18: 6 calls", 6),
        ("uvit", "xla", "plain products", 0),
        ("dig_parallel", None, None, 0),
    ],
)
def test_what_computes_attention_on_an_h100_is_said(name, attention, said, calls):
    changes = {"backbone.name": name, "data.name": "synthetic"}
    config = tiny_config(**changes)
    if attention is not None:
        config.backbone = dict(
            name=name,
            width=64,
            depth=2,
            patch_size=2,
            num_heads=2,
            num_classes=0,
            dtype="mixed",
            attention=attention,
        )
    found = report_step(config, "h100:1")
    text = format_report(found)
    assert ("attention by" in text) == (said is not None)
    assert said is None or f"attention by {said}" in text
    assert found.costs is not None
    kinds = found.costs.custom_calls.items()
    assert sum(n for kind, n in kinds if "__cudnn$fmha" in kind) == calls
    assert report_record(found)["attention"] == found.attention


def topology_of(devices, platform="tpu"):
    return Topology("t", CHIP, platform, tuple(devices))


def test_the_roofline_is_that_of_the_chip():
    costs = Costs(flops=2 * CHIP.flops, memory_bytes=3 * CHIP.hbm_bandwidth)
    costs.collective_bytes.update({"all-gather": 8e9, "all-reduce": 1e9})
    one_slice = topology_of(devices_of(8, slices=1))
    seconds = report.least_seconds(costs, one_slice, {"data": 1, "fsdp": 8})
    assert seconds["products"] == pytest.approx(2)
    assert seconds["memory"] == pytest.approx(3)
    sent = (8e9 + 2e9) * 7 / 8  # an all-reduce sends its bytes twice
    assert seconds["network"] == pytest.approx(sent / CHIP.link_bandwidth)
    assert len(seconds) == 3


def test_between_slices_and_hosts_the_network_is_another():
    costs, mesh = Costs(), {"data": 2, "fsdp": 4}
    costs.collective_bytes.update({"all-gather": 8e9, "all-reduce": 1e9, "send": 3e9})
    slices = topology_of(devices_of(8, slices=2))
    seconds = report.least_seconds(costs, slices, mesh)
    # In a ring of n each sends 2 (n - 1) / n of what is reduced: of 2 slices, it all.
    between = report.SLOW_LINK["tpu"]
    assert seconds["slow network"] == pytest.approx(3e9 / between)
    within = 8e9 * 3 / 4 + 2e9 * 7 / 8
    assert seconds["network"] == pytest.approx(within / CHIP.link_bandwidth)
    del costs.collective_bytes["send"]
    hosts = topology_of(devices_of(8, processes=2), "gpu")
    seconds = report.least_seconds(costs, hosts, mesh)
    between = report.SLOW_LINK["gpu"]
    assert seconds["slow network"] == pytest.approx(2e9 * 7 / 8 / between)
    assert seconds["network"] == pytest.approx(8e9 * 3 / 4 / CHIP.link_bandwidth)


@pytest.mark.parametrize("batch_size", [16, 512, 1600])
@pytest.mark.parametrize("limit", [100, 1000, 1001, 5000])
def test_the_largest_batch_is_found_to_a_sixteenth(monkeypatch, batch_size, limit):
    """With a compiler that refuses more than so many images on each of 16 chips."""
    tried = []

    def compiled(experiment, topology, batch_size):
        assert batch_size % 16 == 0
        tried.append(batch_size)
        each = batch_size // 16
        # Not quite a line, and steeper towards the end.
        needed = CHIP.hbm_bytes * (0.1 + 0.8 * each / limit + 0.1 * (each / limit) ** 2)
        blank = StepReport("t", 16, {}, batch_size, 1, int(CHIP.hbm_bytes))
        if each > limit:
            return blank
        return report.replace(blank, memory=Memory(0, 0, int(needed)))

    monkeypatch.setattr(report, "_report", compiled)
    first = compiled(None, None, batch_size)
    experiment = create_experiment(tiny_config())
    found = report._search_batch(experiment, topology_of(()), first)
    assert found is not None
    assert found % 16 == 0
    assert limit * 16 * 0.93 < found <= limit * 16
    assert len(tried) <= 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), r"needs --topology=CHIP:SHAPE\. Chips: v4, v5e, v5p, v6e, h100"),
        (("--topology=v9:2x2",), r"Unknown topology 'v9:2x2'\. Chips: v4, v5e"),
    ],
)
def test_a_topology_that_does_not_exist_is_refused(arguments, said, capsys):
    assert main([*COMPILE, *arguments]) == EXIT_BAD_INPUT
    assert re.search(said, capsys.readouterr().err)


@needs_libtpu
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("training.batch_size=100",), r"multiple of the 16 devices, got 100"),
        (("mesh.fsdp=3",), r"mesh\.fsdp must divide the 16 devices.*1, 2, 4, 8, 16"),
        (("training.microbatch=24",), r"training\.microbatch must divide.*got 24"),
    ],
)
def test_what_does_not_divide_is_refused(changes, said, capsys):
    flags = [f"--config.{change}" for change in changes]
    assert main([*COMPILE, "--topology=v5e:4x4", *flags]) == EXIT_BAD_INPUT
    assert re.search(said, capsys.readouterr().err)


def test_a_missing_plugin_is_named(capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "libtpu" else find(n)
    )
    assert main([*COMPILE, "--topology=v5e:4x4"]) == EXIT_BAD_INPUT
    assert 'pip install "jax[tpu]"' in capsys.readouterr().err


@needs_libtpu
def test_the_command_prints_a_report(capsys, monkeypatch, tiny_report):
    monkeypatch.setattr("dig_jax.costs.report_step", lambda *_, **__: tiny_report)
    assert main([*COMPILE, "--topology=v5e:4x4", "--json"]) == EXIT_DONE
    assert json.loads(capsys.readouterr().out) == report_record(tiny_report)


def test_the_search_takes_whole_micro_batches(monkeypatch):
    def compiled(experiment, topology, batch_size):
        assert batch_size % 64 == 0
        blank = StepReport("t", 16, {}, batch_size, 1, int(CHIP.hbm_bytes))
        needed = CHIP.hbm_bytes * batch_size / 16_000
        memory = Memory(0, 0, int(needed))
        return report.replace(blank, memory=memory) if batch_size <= 16_000 else blank

    monkeypatch.setattr(report, "_report", compiled)
    config = tiny_config()
    config.training.microbatch = 64
    first = compiled(None, None, 512)
    found = report._search_batch(create_experiment(config), topology_of(()), first)
    assert found is not None
    assert found % 64 == 0
    assert 16_000 * 0.93 < found <= 16_000

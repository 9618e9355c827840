"""How the cost of a training step grows with image side, width, depth and scales.

    python benchmarks/scaling.py [--vary=side,width,depth,scales]
        [--backbones=dig_parallel,dig_mix,uvit,dit] [--dtype=mixed] [--repeats=3]
        [--clock=wall|cpu] [--out=FILE.json]

From one small network (images of 32 pixels, patches of 4, DiG: {4, 8}; width 128,
depth 4) one size grows at a time. A batch has 4,096 patches, whatever their images'
side, and costs are those of one image: multiply-accumulates (attention's included),
seconds of a step, and the bytes that it needs besides its state. Exponents are slopes
of log cost over log size, of all sizes by least squares, and between the last two.
"""

import argparse
from typing import Any, NamedTuple

import jax
import numpy as np
from common import (
    compile_step,
    describe_machine,
    print_table,
    seconds_in_turn,
    total_macs,
    words,
    write_json,
)
from ml_collections import ConfigDict

from dig_jax.config import load_config_file
from dig_jax.experiment import Experiment, create_experiment

VARIANTS = {
    "dig_parallel": "dig_parallel_2_4",
    "dig_mix": "dig_mix_2_4",
    "uvit": "uvit_2",
    "dit": "dit_2",
}
BASE = {"side": 32, "width": 128, "depth": 4, "scales": 2}
SIZES = {
    "side": (32, 64, 128, 256),
    "width": (128, 256, 512, 1024),
    "depth": (4, 8, 16),
    "scales": (1, 2, 3),
}
PATCH, PATCHES_OF_A_BATCH = 4, 4096
COSTS = ("MACs", "seconds", "bytes")


class Point(NamedTuple):
    """What a network of one size costs for an image."""

    macs: float
    seconds: float
    num_bytes: float


def load(backbone: str, sizes: dict[str, int], dtype: str) -> Experiment:
    """The paper's configuration of a backbone in other sizes."""
    config = ConfigDict(load_config_file(f"configs/cifar10.py:{VARIANTS[backbone]}"))
    config.data = ConfigDict({"name": "synthetic", "image_size": sizes["side"]})
    config.backbone.update(width=sizes["width"], depth=sizes["depth"], dtype=dtype)
    if backbone.startswith("dig"):
        scales = [PATCH * 2**i for i in range(sizes["scales"])]
        config.backbone.patch_sizes = tuple(scales)
    else:
        config.backbone.update(patch_size=PATCH, num_heads=sizes["width"] // 32)
    return create_experiment(config)


def measure(vary: str, backbone: str, options: argparse.Namespace) -> list[Point]:
    """The cost of an image for each size; all sizes take turns."""
    runs, analytic = {}, {}
    for size in SIZES[vary]:
        sizes = BASE | {vary: size}
        experiment = load(backbone, sizes, options.dtype)
        batch = PATCHES_OF_A_BATCH // (sizes["side"] // PATCH) ** 2
        compiled, arguments = compile_step(experiment, batch)

        def run(call=compiled.call, a=arguments):
            a[0], metrics = call(*a)
            return metrics

        runs[size] = run
        num_bytes = compiled.memory.temporaries / batch
        analytic[size] = total_macs(experiment), num_bytes, batch
    times = seconds_in_turn(runs, repeats=options.repeats, clock=options.clock)
    points = []
    for size, (macs, num_bytes, batch) in analytic.items():
        points.append(Point(macs, float(np.median(times[size])) / batch, num_bytes))
    return points


def slopes(sizes: tuple[int, ...], costs: list[float]) -> tuple[float, float]:
    """Exponent of a power law through all points, and through the last two."""
    x, y = np.log(sizes), np.log(costs)
    return float(np.polyfit(x, y, 1)[0]), float((y[-1] - y[-2]) / (x[-1] - x[-2]))


def make_rows(vary: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each backbone that has this size."""
    sizes = SIZES[vary]
    # The patches, not the side, are what a network sees.
    laws = tuple((s // PATCH) ** 2 for s in sizes) if vary == "side" else sizes
    rows = []
    for backbone in options.backbones:
        if vary == "scales" and not backbone.startswith("dig"):
            continue
        points = measure(vary, backbone, options)
        jax.clear_caches()
        row: dict[str, Any] = {
            "grows": "patches" if vary == "side" else vary,
            "from, to": f"{laws[0]}, {laws[-1]}",
            "backbone": backbone,
        }
        for name, costs in zip(COSTS, zip(*points, strict=True), strict=True):
            fitted, last = slopes(laws, list(costs))
            row[f"{name}: exponent"] = round(fitted, 2)
            row[f"{name}: last"] = round(last, 2)
            row[f"{name}: ratio"] = round(costs[-1] / costs[0], 1)
        rows.append(row)
    return rows


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vary", default=list(SIZES), type=words)
    parser.add_argument("--backbones", default=list(VARIANTS), type=words)
    parser.add_argument("--dtype", default="mixed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    rows = [row for vary in options.vary for row in make_rows(vary, options)]
    print(f"{describe_machine()}; {options.dtype}, clock: {options.clock}\n")
    print_table(rows)
    write_json(options.out, rows, options)


if __name__ == "__main__":
    main()

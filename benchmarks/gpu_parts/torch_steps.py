"""The same blocks in torch and PyTorch Geometric, eager and compiled."""

import argparse
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch_blocks import Parallel, Transformer

from dig_jax.graphs import GridGraph
from gpu_parts.report import Report, first_line

TOKENS, EMA_DECAY = 257, 0.9999


def run(options: argparse.Namespace, report: Report) -> None:
    """Compiled first: that is what ours is compared with."""
    for compiled in (True, False):
        for kind in ("U-ViT", "DiG-parallel, SAGEConv"):
            name = f"{'torch.compile' if compiled else 'torch eager'}, {kind}"
            try:
                row = measure(kind, compiled, options)
            except Exception as error:  # of this one alone
                row = {"error": first_line(error)}
            report.add("torch", {"network": name, **row})


def create_blocks(kind: str, options: argparse.Namespace) -> torch.nn.Module:
    """As many blocks as our networks have: the depth and one in the middle."""
    width, number = options.width or 512, (options.depth or 12) + 1
    heads = width // 64
    if kind == "U-ViT":
        blocks = [Transformer(width, heads, 4.0, options.batch) for _ in range(number)]
    else:
        graph = GridGraph.create(32, (2, 4), num_hubs=1, across=False, coarse="grid")
        blocks = [Parallel(width, 2, 3.0, graph, options.batch) for _ in range(number)]
    return torch.nn.Sequential(*blocks)


def measure(kind: str, compiled: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Training (forward, backward, AdamW, EMA) and forward, under autocast."""
    device = "cuda" if options.platform == "cuda" else "cpu"
    blocks = create_blocks(kind, options).to(device)
    model: Callable = torch.compile(blocks) if compiled else blocks
    shape = options.batch * TOKENS, options.width or 512
    x, target = (torch.randn(shape, device=device) for _ in range(2))
    params = list(blocks.parameters())
    averages = [p.detach().clone() for p in params]
    adam = torch.optim.AdamW(params, lr=2e-4, fused=device == "cuda")
    cast = torch.autocast(device, torch.bfloat16)

    def step() -> None:
        with cast:
            out = model(x)
        torch.nn.functional.mse_loss(out.float(), target).backward()
        adam.step()
        adam.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(averages, [p.detach() for p in params], 1 - EMA_DECAY)

    def forward() -> None:
        with torch.no_grad(), cast:
            model(x)

    start_memory(device)
    training = seconds_of(step, device, options)
    used = memory_used(device)
    alone = seconds_of(forward, device, options)
    del blocks, model, averages, adam
    gc.collect()
    return {
        "training, ms": round(training * 1e3, 2),
        "images/s": round(options.batch / training, 1),
        "forward, ms": round(alone * 1e3, 2),
        "forward, images/s": round(options.batch / alone, 1),
        "GB at most": used,
    }


def seconds_of(
    run: Callable[[], None], device: str, options: argparse.Namespace
) -> float:
    """Median over measurements of several runs each, after some that warm up."""

    def several(count: int) -> float:
        if device == "cpu":
            from time import perf_counter

            start = perf_counter()
            for _ in range(count):
                run()
            return perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(count):
            run()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3

    several(3)
    times = [several(options.count) for _ in range(options.repeats)]
    return float(np.median(times)) / options.count


def start_memory(device: str) -> None:
    """Count from here."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory_used(device: str) -> float | str:
    """GB at most since then; nothing is known on a CPU."""
    return round(torch.cuda.max_memory_allocated() / 1e9, 2) if device == "cuda" else ""

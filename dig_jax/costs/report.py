"""What training a configuration takes on chips that are not there."""

import time
from dataclasses import dataclass, replace
from typing import Any

import jax

from dig_jax.costs.compiled_step import (
    DoesNotFitError,
    Memory,
    compile_train_step,
    memory_of,
)
from dig_jax.costs.hlo_costs import CUDNN_ATTENTION, Costs, count_costs
from dig_jax.costs.topology import Topology, create_topology
from dig_jax.devices.sharding import FSDP_AXIS, fast_networks
from dig_jax.devices.target import compiling_for
from dig_jax.experiment import Experiment

# What we take a chip to send between slices or hosts, bytes a second: a fourth of a TPU
# host's 200 Gbit/s, and the 400 Gbit/s that an H100 server has for each GPU.
SLOW_LINK = {"tpu": 6.25e9, "gpu": 5e10}
MOST_IMAGES = 2**14
"""Images on a chip beyond which no batch is looked for."""


@dataclass(frozen=True)
class StepReport:
    """A training step on a topology, each number of one chip but for the batches.

    Attributes:
        topology: Its name.
        num_devices: Chips.
        mesh: Their number along each axis.
        batch_size: Images in a step, over all chips.
        param_bytes: Bytes of all parameters, in float32.
        hbm_bytes: Memory of a chip.
        attention: What computes the network's attention; "" where it has none.
        shortage: Why the step does not fit; "" where it does.
        memory: What it holds; None where it does not fit. So are the next three.
        costs: What it does.
        seconds: The least time for its products, its memory traffic, its networks.
        compile_seconds: Time to trace and compile it here.
        largest_batch: The most images that fit, where that was looked for.
    """

    topology: str
    num_devices: int
    mesh: dict[str, int]
    batch_size: int
    param_bytes: int
    hbm_bytes: int
    attention: str = ""
    shortage: str = ""
    memory: Memory | None = None
    costs: Costs | None = None
    seconds: dict[str, float] | None = None
    compile_seconds: float = 0.0
    largest_batch: int | None = None

    @property
    def bound(self) -> str:
        """What takes longest."""
        return max(self.seconds, key=self.seconds.__getitem__) if self.seconds else ""

    @property
    def images_per_second(self) -> float:
        """At best: everything else overlaps with what takes longest."""
        return self.batch_size / self.seconds[self.bound] if self.seconds else 0.0

    @property
    def gathered(self) -> float:
        """Bytes of all-gathers over those of the parameters."""
        sent = self.costs.collective_bytes if self.costs else {}
        return sent.get("all-gather", 0) / self.param_bytes

    @property
    def reduced(self) -> float:
        """Bytes of reductions over those of the parameters."""
        sent = self.costs.reduced_bytes.values() if self.costs else ()
        return sum(sent) / self.param_bytes


def report_step(
    experiment: Experiment,
    topology: Topology | str,
    *,
    batch_size: int | None = None,
    search_batch: bool = False,
) -> StepReport:
    """Compile an experiment's training step for a topology, and say what it takes.

    Args:
        experiment: What is trained; its mesh section is of the topology's chips.
        topology: Its name, or itself.
        batch_size: Images in a step; None for the experiment's.
        search_batch: Look for the largest batch that fits, by compiling a few times.

    Raises:
        InputError: A topology that does not exist, a compiler that is missing, or a
            mesh or batch that does not work there.
    """
    if isinstance(topology, str):
        topology = create_topology(topology)
    size = batch_size or experiment.training.batch_size
    with compiling_for(topology.platform, topology.gpu):
        experiment = experiment.changed()  # kernels are chosen for the chips
        report = _report(experiment, topology, size)
        if search_batch:
            largest = _search_batch(experiment, topology, report)
            report = replace(report, largest_batch=largest)
    return report


def _report(experiment: Experiment, topology: Topology, batch_size: int) -> StepReport:
    mesh = topology.mesh(options=experiment.mesh_options)
    params = jax.eval_shape(experiment.backbone.init, jax.random.key(0))
    report = StepReport(
        topology=topology.name,
        num_devices=mesh.size,
        mesh=dict(mesh.shape),
        batch_size=batch_size,
        param_bytes=sum(4 * leaf.size for leaf in jax.tree.leaves(params)),
        hbm_bytes=int(topology.chip.hbm_bytes),
        attention=experiment.backbone.attention or "",
    )
    start = time.perf_counter()
    try:
        compiled = compile_train_step(experiment, mesh, batch_size=batch_size)
        memory = memory_of(compiled)
        if memory.peak > report.hbm_bytes:  # not every compiler refuses
            needed = f"{memory.peak / 2**30:.1f}G of {report.hbm_bytes / 2**30:.1f}G"
            raise DoesNotFitError(f"The program needs {needed} on each device.")
    except DoesNotFitError as error:
        seconds = time.perf_counter() - start
        return replace(report, shortage=str(error), compile_seconds=seconds)
    costs = count_costs(compiled)
    return replace(
        report,
        memory=memory,
        costs=costs,
        seconds=least_seconds(costs, topology, report.mesh),
        compile_seconds=time.perf_counter() - start,
    )


def least_seconds(
    costs: Costs, topology: Topology, mesh: dict[str, int]
) -> dict[str, float]:
    """The roofline: the least time for each thing that a step does.

    The step gathers and scatters along fsdp and reduces along data (small leaves along
    both). Of n chips each sends (n - 1) / n of the bytes of an all-gather or a
    reduce-scatter, and twice as many of an all-reduce. Between TPU slices all-reduces
    are sends; between GPU hosts they are not told from others.
    """
    chip, sent = topology.chip, costs.collective_bytes
    networks = len(fast_networks(topology.devices))
    fsdp, size = mesh[FSDP_AXIS], len(topology.devices)
    spread = sent["all-gather"] + sent["reduce-scatter"]
    everywhere = 2 * sent["all-reduce"] * (size - 1) / size
    across = 2 * sent["send"] * (networks - 1) / networks
    others = sum(sent.values()) - spread - sent["all-reduce"] - sent["send"]
    within = spread * (fsdp - 1) / fsdp + others
    if networks > 1 and topology.platform == "gpu":
        across += everywhere
    else:
        within += everywhere
    seconds = {
        "products": costs.flops / chip.flops,
        "memory": costs.memory_bytes / chip.hbm_bandwidth,
        "network": within / chip.link_bandwidth,
    }
    if networks > 1:
        seconds["slow network"] = across / SLOW_LINK[topology.platform]
    return seconds


def _search_batch(
    experiment: Experiment, topology: Topology, report: StepReport
) -> int | None:
    """The largest batch that fits, to a sixteenth; None where none does."""
    # A batch is whole micro-batches, which are whole on each device.
    quantum = experiment.training.microbatch or report.num_devices
    most = MOST_IMAGES * report.num_devices

    def peak(batch_size: int) -> int | None:
        memory = _report(experiment, topology, batch_size).memory
        return memory.peak if memory else None

    # Memory is a constant and a part for each image, so that two sizes that fit tell
    # where the limit is, but for how the compiler arranges things.
    fitting = report.batch_size if report.memory else 0
    failing = None if report.memory else report.batch_size
    known = {fitting: report.memory.peak} if report.memory else {}
    guess = 2 * fitting if fitting else _rounded(report.batch_size // 2, quantum)
    while guess > fitting and (failing is None or guess < failing) and guess <= most:
        found = peak(guess)
        if found is None:
            failing = guess
        else:
            fitting, known = guess, known | {guess: found}
        guess = _next_guess(known, fitting, failing, quantum, report.hbm_bytes)
    return fitting or None


def _next_guess(
    known: dict[int, int],
    fitting: int,
    failing: int | None,
    quantum: int,
    hbm_bytes: int,
) -> int:
    """A batch size to try next; one that is not between the two for none."""
    if failing is not None:
        if failing - fitting <= max(fitting // 16, quantum):
            return 0
        # The guess that failed was a good one, if it rests on two that fit.
        guess = _rounded(failing - failing // 8, quantum) if len(known) > 1 else 0
        if guess <= fitting:
            guess = (fitting + failing) // 2
        return _rounded(guess, quantum)
    guess = 2 * fitting
    if len(known) > 1:
        (small, a), (large, b) = sorted(known.items())[-2:]
        if b > a:
            limit = large + (0.98 * hbm_bytes - b) * (large - small) / (b - a)
            guess = max(int(limit), fitting + fitting // 16)
    return _rounded(guess, quantum)


def _rounded(size: int, quantum: int) -> int:
    return size // quantum * quantum


def report_record(report: StepReport) -> dict[str, Any]:
    """A report as a JSON object."""
    fields = {
        name: getattr(report, name)
        for name in (
            "topology",
            "num_devices",
            "mesh",
            "batch_size",
            "param_bytes",
            "hbm_bytes",
            "attention",
            "shortage",
            "compile_seconds",
            "largest_batch",
        )
    }
    memory, costs = report.memory, report.costs
    if memory is None or costs is None:
        return {**fields, "fits": False}
    return {
        **fields,
        "fits": True,
        "memory": memory._asdict(),
        "peak_bytes": memory.peak,
        "flops": costs.flops,
        "memory_bytes": costs.memory_bytes,
        "collective_bytes": dict(costs.collective_bytes),
        "reduced_bytes": dict(costs.reduced_bytes),
        "gathered": report.gathered,
        "reduced": report.reduced,
        "seconds": report.seconds,
        "bound": report.bound,
        "images_per_second": report.images_per_second,
    }


def format_report(report: StepReport) -> str:
    """A report in lines to read."""
    axes = ", ".join(f"{name} {size}" for name, size in report.mesh.items())
    lines = [
        f"{report.topology}: {report.num_devices} chips, mesh {axes}; batch "
        f"{report.batch_size:,}, {report.batch_size // report.num_devices} on a chip; "
        f"compiled in {report.compile_seconds:.0f} s"
    ]
    memory, costs, seconds = report.memory, report.costs, report.seconds
    if report.attention:
        lines.append(f"  attention by {report.attention}{_attention_calls(costs)}")
    if memory is None or costs is None or seconds is None:
        lines.append(f"  does not fit: {report.shortage}")
    else:
        lines += [
            f"  fits: {_gib(memory.peak)} of {_gib(report.hbm_bytes)} on a chip, "
            f"{_gib(memory.arguments)} of them state and batch",
            f"  products      {costs.flops / 1e9:12,.1f} GFLOP"
            f"  {_ms(seconds['products'])}",
            f"  memory        {costs.memory_bytes / 1e6:12,.1f} MB   "
            f"  {_ms(seconds['memory'])}",
            *_network_lines(report, costs, seconds),
            f"  a step takes {_ms(seconds[report.bound]).strip()} or more, bound by "
            f"its {report.bound}: at most {report.images_per_second:,.0f} images/s",
        ]
    if report.largest_batch is not None:
        each = report.largest_batch // report.num_devices
        lines.append(
            f"  largest batch that fits: {report.largest_batch:,}, {each:,} on a chip"
        )
    return "\n".join(lines)


def _attention_calls(costs: Costs | None) -> str:
    """Calls of cuDNN's attention in the compiled program, where there are any."""
    calls = costs.custom_calls.items() if costs else ()
    found = sum(n for name, n in calls if name.startswith(CUDNN_ATTENTION))
    return f": {found} calls, whose workspace is not in the memory" if found else ""


def _network_lines(
    report: StepReport, costs: Costs, seconds: dict[str, float]
) -> list[str]:
    lines = [
        f"  {kind:14}{sent / 1e6:12,.1f} MB     {sent / report.param_bytes:.2f} times "
        f"the parameters"
        for kind, sent in sorted(costs.collective_bytes.items())
        if sent
    ]
    dtypes = ", ".join(sorted(costs.reduced_bytes))
    for name in ("network", "slow network"):
        if name in seconds:
            told = f", reduced in {dtypes}" if name == "network" and dtypes else ""
            lines.append(f"  {name:14}{'':15} {_ms(seconds[name])}{told}")
    return lines


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:8.3f} ms"

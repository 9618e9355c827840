"""Programs compiled for hardware that is not there, and what they cost.

topology = create_topology("v5e:4x4")
with compiling_for(topology.platform, topology.gpu):
    compiled = compile_train_step(create_experiment(config), topology.mesh())
costs = count_costs(compiled)
"""

from dig_jax.costs.compiled_step import (
    DoesNotFitError,
    Memory,
    compile_lowered,
    compile_train_step,
    memory_of,
)
from dig_jax.costs.hlo_costs import Costs, count_costs
from dig_jax.costs.kernels import Kernel, Tally, list_kernels, tally_by_kind
from dig_jax.costs.report import StepReport, format_report, report_record, report_step
from dig_jax.costs.topology import CHIPS, Chip, Topology, create_topology
from dig_jax.devices.target import compiling_for, target_platform

__all__ = [
    "CHIPS",
    "Chip",
    "Costs",
    "DoesNotFitError",
    "Kernel",
    "Memory",
    "StepReport",
    "Tally",
    "Topology",
    "compile_lowered",
    "compile_train_step",
    "compiling_for",
    "count_costs",
    "create_topology",
    "format_report",
    "list_kernels",
    "memory_of",
    "report_record",
    "report_step",
    "tally_by_kind",
    "target_platform",
]

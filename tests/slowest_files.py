"""Where the time of a test run goes: the files that take long, first and told."""

from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Under pytest-xdist a worker takes a whole file at a time. The slowest come first, in
# this order, so that the workers end together; the table at a run's end says which.
SLOWEST_FIRST = (
    "tests/devices/test_processes.py",
    "tests/test_keys_left_out.py",
    "tests/models/test_for_h100.py",
    "tests/training/test_loop.py",
    "tests/sampling/test_films.py",
    "tests/test_snippets.py",
    "tests/comparison/test_comparison.py",
    "tests/test_pretrained.py",
    "tests/models/test_golden.py",
    "tests/export/test_export.py",
    "tests/launch/test_notebook.py",
    "tests/solvers/test_published_dpm_solver.py",
    "tests/latents/test_latents.py",
    "tests/training/test_missed.py",
    "tests/cli/test_evaluate_mode.py",
    "tests/solvers/test_convergence.py",
    "tests/cli/test_train_mode.py",
    "tests/storage/test_checkpoint_damage.py",
    "tests/models/test_dig_relational.py",
    "tests/reporting/test_other_writers.py",
    "tests/comparison/test_comparison_plan.py",
    "tests/storage/test_checkpoints.py",
    "tests/solvers/test_sample.py",
    "tests/solvers/test_known_pixels.py",
    "tests/sampling/test_inpainting.py",
    "tests/test_from_archive_to_score.py",
    "tests/ops/test_relational_sum.py",
    "tests/models/test_dig_options.py",
    "tests/models/test_backbones.py",
    "tests/sampling/test_sampler.py",
    "tests/models/test_dig.py",
    "tests/diffusion/test_variance.py",
    "tests/ops/test_aggregation.py",
    "tests/test_own_images.py",
)
NUM_TOLD = 10


def check_names() -> None:
    """Whoever moves a file meets this.

    Raises:
        pytest.UsageError: SLOWEST_FIRST names a file that is not there.
    """
    for name in SLOWEST_FIRST:
        if not (ROOT / name).is_file():
            raise pytest.UsageError(f"tests/slowest_files.py: {name} is not there.")


def slowest_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """Tests in the order of their files; each file's keep theirs."""
    names = dict.fromkeys(file_of(item.nodeid) for item in items)
    rank = {name: i for i, name in enumerate(SLOWEST_FIRST)}
    order = sorted(names, key=lambda name: rank.get(name, len(rank)))
    places = {name: place for place, name in enumerate(order)}
    return sorted(items, key=lambda item: places[file_of(item.nodeid)])


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def tell_slowest(terminal: pytest.TerminalReporter) -> None:
    """The seconds of the slowest files, with set-up and tear-down of their tests."""
    seconds: dict[str, float] = defaultdict(float)
    cases: dict[str, int] = defaultdict(int)
    for reports in terminal.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[file_of(report.nodeid)] += report.duration
                cases[file_of(report.nodeid)] += report.when == "call"
    if len(seconds) < 2:
        return
    total = sum(seconds.values())
    terminal.section(f"slowest of {len(seconds)} files, {total:.0f} s in all")
    for name in sorted(seconds, key=seconds.__getitem__, reverse=True)[:NUM_TOLD]:
        terminal.line(f"{seconds[name]:7.1f} s  {cases[name]:4d} cases  {name}")

"""The tests marked gpu, each result as it comes."""

import argparse
import re
import threading
from pathlib import Path

from gpu_parts.commands import Ran, run_command
from gpu_parts.report import Report

TESTS = Path(__file__).parents[2] / "tests" / "gpu"
RESULT = re.compile(r"^(\S+::.*\S) (PASSED|FAILED|ERROR|SKIPPED|XFAIL)")
# The run on digits takes as long as all the others: it goes beside them.
NO_TESTS = 5  # pytest's exit code where --only leaves none
TOGETHER = {"all but digits": "not digits", "digits": "digits"}


def run(options: argparse.Namespace, report: Report) -> None:
    """Two processes at once, since nothing is timed."""
    limit = report.seconds_left - 5
    environment = {
        "DIG_JAX_TEST_DEVICE": options.platform,
        "DIG_JAX_TEST_SECONDS": str(max(limit - 25, 20)),
    }
    ran: dict[str, Ran] = {}
    lock = threading.Lock()

    def hear(line: str) -> None:
        found = RESULT.match(line)
        if found:
            with lock:
                test = found[1].split("/")[-1]
                report.add("tests", {"test": test, "result": found[2].lower()})

    def test(group: str) -> None:
        wanted = TOGETHER[group] + (f" and ({options.only})" if options.only else "")
        # Twice, because pyproject.toml has a -q: a line for each test.
        arguments = ["-m", "pytest", "-m", "gpu", "-vv", "-rfEs", "--tb=short"]
        arguments += ["-p", "no:cacheprovider", "-k", wanted]
        ran[group] = run_command(
            [*arguments, str(TESTS)], limit=limit, environment=environment, each=hear
        )

    threads = [threading.Thread(target=test, args=(group,)) for group in TOGETHER]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for group, how in ran.items():
        if how.code in (0, NO_TESTS):
            report.note(f"{group}: {how.lines[-1][1]} ({how.seconds:.0f} s)")
        elif how.in_time:
            report.note(f"{group}: exit code {how.code}\n{how.ending}")
        else:
            report.note(f"{group}: not done after {how.seconds:.0f} s\n{how.ending}")

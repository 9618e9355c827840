"""The figures that these tests measure, in a table at the end."""

import pytest

FIGURE = "figure"


@pytest.fixture
def figure(record_property):
    """Called with what was measured: a line of the table."""

    def say(number: str, text: str) -> None:
        record_property(FIGURE, f"{number:<4} {text}")

    return say


def pytest_terminal_summary(terminalreporter):
    reports = terminalreporter.getreports("passed")
    lines = [v for r in reports for k, v in r.user_properties if k == FIGURE]
    if lines:
        terminalreporter.section("figures")
        for line in sorted(lines):
            terminalreporter.line(line)

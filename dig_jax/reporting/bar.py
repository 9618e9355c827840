"""The line that a terminal shows of a run, drawn by rich."""

from collections.abc import Callable, Iterable
from typing import IO, NamedTuple, cast

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, Task, TextColumn
from rich.table import Column
from rich.text import Text

from dig_jax.reporting.streams import LastingStream

_MIN_BAR, _MAX_BAR = 10, 40
_LEAST = ("elapsed", "percent", "learning_rate", "rate")
"""Fields that a narrow terminal does without, the first one first."""


class Shown(NamedTuple):
    """What the line says.

    Attributes:
        step: How many are done.
        fields: Texts that stand behind the bar, by name.
        busy: What stands instead of bar and fields; "" for nothing.
    """

    step: int
    fields: dict[str, str]
    busy: str = ""


class Bar(Progress):
    """A bar between description and fields, in one line as wide as the terminal.

    Args:
        stream: The terminal.
        description: What the bar is of.
        total: Steps of a full bar.
        show: What it says now; another thread asks for it, eight times a second.
        redirect_stdout: Whether what others print there has to go above the line.
    """

    def __init__(
        self,
        stream: LastingStream,
        description: str,
        total: int,
        show: Callable[[], Shown],
        *,
        redirect_stdout: bool,
    ) -> None:
        self._show = show
        super().__init__(
            TextColumn("{task.description} ", markup=False),
            BarColumn(bar_width=None, table_column=Column(max_width=_MAX_BAR)),
            TextColumn(" {task.fields[said]}", markup=False),
            console=Console(
                file=cast("IO[str]", stream),
                force_terminal=True,
                force_interactive=True,
            ),
            refresh_per_second=8,
            redirect_stdout=redirect_stdout,
        )
        self.add_task(description, total=total, said="")

    def get_renderables(self) -> Iterable[RenderableType]:
        """What rich draws: a line of the one task."""
        return [self._line(task) for task in self.tasks]

    def _line(self, task: Task) -> RenderableType:
        shown, width = self._show(), self.console.width
        fields = dict(shown.fields)
        for least in _LEAST:
            if _room(width, task.description, fields) >= _MIN_BAR:
                break
            fields.pop(least, None)
        said = shown.busy or "  ".join(fields.values())
        if shown.busy or _room(width, task.description, fields) < _MIN_BAR:
            line = f"{task.description}  {said}"
            return Text(line, no_wrap=True, overflow="ellipsis")
        self.update(task.id, completed=shown.step, said=said)
        return self.make_tasks_table([task])

    def write_above(self, text: str) -> None:
        """Print a text as it is above the line."""
        self.console.print(Text(text), soft_wrap=True)

    def close(self, *, erase: bool) -> None:
        """End: the line stays as it is, or goes."""
        self.live.transient = erase
        self.stop()


def _room(width: int, description: str, fields: dict[str, str]) -> int:
    """Columns that are left for the bar, with two before and behind it."""
    return width - len("  ".join([description, "", *fields.values()]))

"""What the command line knows of one flag."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["text", "whole", "switch", "choice"]


@dataclass(frozen=True)
class Flag:
    """A flag, or one that is read apart (of kind None).

    Attributes:
        name: Without dashes.
        value: What stands after the equals sign in the help; "" for a switch.
        help: For each set of modes that it means the same in.
        kind: Of its value.
        default: Its value if it is not given.
        least: The smallest whole number.
        choices: Of kind "choice".
        several: Whether it is of runs of several processes.
    """

    name: str
    value: str
    help: dict[tuple[str, ...], str]
    kind: Kind | None = "text"
    default: str | int | bool | None = ""
    least: int | None = None
    choices: tuple[str, ...] = ()
    several: bool = False

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that read it; () for all."""
        return tuple(mode for modes in self.help for mode in modes)

    @property
    def usage(self) -> str:
        """As users write it."""
        return f"--{self.name}" + (f"={self.value}" if self.value else "")

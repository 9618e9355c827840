"""Damaged records: named, counted, and replaced by the next sound one.

Which record stands in for a damaged one follows from the source alone, so that every
host, thread and worker process reads the same, and a resumed run too.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from absl import logging

from dig_jax.errors import InputError
from dig_jax.interfaces import ImageSource

MAX_DAMAGED_SHARE = 0.001


class DamagedRecordError(ValueError):
    """One record cannot be read.

    Attributes:
        place: File and record, in words.
        reason: What is wrong with it.
    """

    def __init__(self, place: str, reason: str):
        super().__init__(place, reason)  # As args, so that it can be pickled.
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@runtime_checkable
class ReadsTogether(Protocol):
    """A source that reads several records faster than one after another."""

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Mapping[str, Any]]: ...


class SoundRecord(NamedTuple):
    """A record, its own index, and how many damaged ones were passed on the way."""

    record: Mapping[str, Any]
    index: int
    num_damaged: int


class SoundRecords:
    """A source whose damaged records are replaced by the next sound one, cyclically.

    Each damaged record is logged once. Reading stops when more different ones were met
    than `max_damaged_share` of the source's records. Each process counts its own.

    Args:
        source: Raises `DamagedRecordError` for a record that it cannot read.
        max_damaged_share: In [0, 1]; 0 stops at the first damaged record.

    Raises:
        InputError: The share is not in [0, 1].
    """

    def __init__(
        self, source: ImageSource, max_damaged_share: float = MAX_DAMAGED_SHARE
    ):
        if not 0 <= max_damaged_share <= 1:
            raise InputError(
                f"max_damaged_share must be in [0, 1], got {max_damaged_share}."
            )
        self.source = source
        self.damaged: set[int] = set()
        self._refusal = ""  # what was said when it became too much
        self._max_damaged = max_damaged_share * len(source)
        self._lock = threading.Lock()

    def read(self, index: int) -> SoundRecord:
        """Record `index`, or the next one that is sound.

        Raises:
            InputError: Too many records are damaged; the last of them is named.
        """
        length = len(self.source)
        for num_damaged in range(length):
            place = (index + num_damaged) % length
            try:
                record = self.source[place]
            except DamagedRecordError as error:
                self._count(place, error)
            else:
                return SoundRecord(record, place, num_damaged)
        raise InputError(f"Every record of {self.source.name!r} is damaged.")

    def read_many(self, indices: Sequence[int]) -> list[SoundRecord]:
        """`read` of each index, together where the source can do that."""
        if isinstance(self.source, ReadsTogether):
            try:
                found = self.source.__getitems__(indices)
            except DamagedRecordError:
                pass  # Below, each damaged one is found.
            else:
                pairs = zip(found, indices, strict=True)
                return [SoundRecord(record, index, 0) for record, index in pairs]
        return [self.read(index) for index in indices]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def _count(self, index: int, error: DamagedRecordError) -> None:
        with self._lock:
            if self._refusal:  # other threads may still be reading
                raise InputError(self._refusal) from error
            if index in self.damaged:
                return
            self.damaged.add(index)
            logging.warning("Damaged, the next record is used: %s", error)
            if len(self.damaged) > self._max_damaged:
                self._refusal = (
                    f"Data set {self.source.name!r}, split {self.source.split!r}: "
                    f"{len(self.damaged)} of {len(self.source)} records were found to "
                    f"be damaged, and at most {self._max_damaged:g} may be; the last "
                    f"is {error}. Prepare it again, or allow a larger "
                    f"max_damaged_share."
                )
                raise InputError(self._refusal) from error

"""What a file of TensorBoard events holds."""

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import (
    Event,  # pyright: ignore[reportAttributeAccessIssue]  # made at import
)


def read_events(path: Path) -> list[Event]:
    """TFRecord: length (8 bytes), its checksum (4), the record, its checksum (4)."""
    data, events = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events

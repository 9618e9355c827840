"""Arrays of npz files that anybody made: nothing is unpickled, sizes are limited."""

import zipfile

import numpy as np

_MAX_HEADER_BYTES = 10_000
# Images hardly shrink, zeros a thousandfold; few zeros are read all the same.
_MAX_RATIO, _FREE_BYTES = 200, 2**30


def read_npz_array(
    archive: zipfile.ZipFile, key: str, max_bytes: int, limit: str
) -> np.ndarray:
    """One array, if its header declares no more than there is and than is allowed.

    Args:
        archive: The npz file.
        key: The array's name.
        max_bytes: The most that it may unpack to.
        limit: What sets the limit, for messages.

    Raises:
        ValueError: It declares more, or holds Python objects, or is no array.
        KeyError: There is none of that name.
    """
    member = archive.getinfo(f"{key}.npy")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"{key} is of npy version {version}")
        shape, _, dtype = read_header(stream, max_header_size=_MAX_HEADER_BYTES)
    # Python's integers, because a hostile shape may overflow NumPy's.
    declared = dtype.itemsize
    for length in shape:
        declared *= int(length)
    if dtype.hasobject:
        raise ValueError(f"{key} holds Python objects, which are not read")
    if declared > max_bytes or member.file_size > max_bytes:
        raise ValueError(
            f"{key} declares {max(declared, member.file_size)} bytes, more than the "
            f"limit of {max_bytes} ({limit})"
        )
    if declared > member.file_size:
        raise ValueError(f"{key} declares {declared} bytes, and has {member.file_size}")
    if member.file_size > _MAX_RATIO * member.compress_size + _FREE_BYTES:
        raise ValueError(
            f"{key} would grow from {member.compress_size} to {member.file_size} "
            "bytes, which no images do"
        )
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)

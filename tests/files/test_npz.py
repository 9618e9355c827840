"""The one npz reader: what numpy writes, and what only looks like it."""

import itertools
import struct
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from dig_jax.data.npz import create_npz
from dig_jax.errors import InputError
from dig_jax.files.npz import any_header, open_npz
from dig_jax.metrics.extraction import FeatureSpace
from dig_jax.metrics.feature_scores import FeatureSummary
from dig_jax.metrics.moments import moments_of
from dig_jax.metrics.reference import ReferenceSet, read_reference, write_reference
from dig_jax.sampling.samples import read_samples, save_adm_batch, save_samples

MB = 2**20
SPACE = FeatureSpace("inception", "0123456789abcdef", "tf1", 4)


def read(path, name, max_bytes=MB):
    with open_npz(path) as npz:
        return npz.read(name, any_header, max_bytes=max_bytes, limit="of this test")


def npy(header: str, content=b"", version=b"\x01\x00"):
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header))
    return b"\x93NUMPY" + version + length + header.encode() + content


def npz_of(path, content, name="x.npy", compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(name, content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "values",
    [
        np.arange(60, dtype=np.uint8).reshape(3, 4, 5),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(6, dtype=">i4"),
        np.array("a text, 文"),
        np.float32(3.5),
        np.zeros((0, 4)),
        np.arange(3_000_000, dtype=np.uint8),
    ],
    ids=["bytes", "fortran", "big endian", "text", "scalar", "empty", "long"],
)
def test_arrays_are_those_that_numpy_reads(save, values, tmp_path):
    save(tmp_path / "x.npz", first=np.zeros(3), x=values)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        expected = arrays["x"]
    found = read(tmp_path / "x.npz", "x", max_bytes=4 * MB)
    np.testing.assert_array_equal(found, expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)


def test_rows_are_those_of_the_array(tmp_path):
    values = np.arange(24, dtype=np.int16).reshape(4, 2, 3)
    np.savez_compressed(tmp_path / "x.npz", x=values)
    with open_npz(tmp_path / "x.npz") as npz:
        np.testing.assert_array_equal(list(npz.rows("x", any_header)), values)


GOOD = "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }\n"


@pytest.mark.parametrize(
    "content",
    [
        npy(GOOD.replace("(3,)", "(True, 3)"), bytes(3)),
        npy(GOOD.replace("(3,)", "(-3,)"), bytes(3)),
        npy(GOOD.replace("(3,)", "('3',)"), bytes(3)),
        npy(GOOD.replace("(3,)", "3"), bytes(3)),
        npy(GOOD.replace("(3,)", "(3.0,)"), bytes(3)),
        npy(GOOD.replace("(3,)", "(1,) * 3"), bytes(3)),
        npy(GOOD.replace("(3,)", str((1,) * 70 + (3,))), bytes(3)),
        npy(GOOD.replace("(3,)", "(" * 4000 + ")" * 4000), bytes(3)),
        npy(GOOD.replace("'|u1'", "'|V0'").replace("(3,)", str((2**60,)))),
        npy(GOOD.replace("'|u1'", "'|O'"), bytes(24)),
        npy(GOOD.replace("'|u1'", "'|u1', 5"), bytes(3)),
        npy(GOOD.replace("'|u1'", "[]"), bytes(3)),
        npy(GOOD.replace("'|u1'", "'<M8[\u00e9]'"), bytes(24)),
        npy(GOOD.replace("False", "1"), bytes(3)),
        npy("{" * 300, bytes(3)),
        npy("{'descr': '''", bytes(3)),
        npy("  x\n y\n", bytes(3)),
        npy("0" * 9000, bytes(3)),
        npy(" " * 60_000, bytes(3)),
        npy(GOOD, bytes(2)),
        npy(GOOD, bytes(4)),
        npy(GOOD, bytes(3), version=b"\x03\x00"),
        npy(GOOD, bytes(3))[:9],
        b"not an array",
        b"",
    ],
)
def test_a_member_that_is_no_array_is_refused(content, tmp_path):
    with pytest.raises(InputError, match=r"x\.npz"):
        read(npz_of(tmp_path / "x.npz", content), "x")


@pytest.mark.parametrize("name", ["x", "x.npy.npy", "y.npy", "../x.npy"])
def test_an_array_of_another_name_is_not_there(name, tmp_path):
    path = npz_of(tmp_path / "x.npz", npy(GOOD, bytes(3)), name)
    with pytest.raises(InputError, match=r"x\.npz"):
        read(path, "x")


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_is_not_numpys_is_refused(compression, tmp_path):
    path = npz_of(tmp_path / "x.npz", npy(GOOD, bytes(3)), compression=compression)
    with pytest.raises(InputError, match="neither none nor deflate"):
        read(path, "x")


def _patched(path, offset, value):
    """The file with two bytes of both of a member's headers replaced."""
    data = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", offset), (b"PK\x01\x02", offset + 2)):
        at = data.index(signature) + place
        data[at : at + 2] = struct.pack("<H", value)
    path.write_bytes(data)
    return path


def test_an_encrypted_file_is_refused(tmp_path):
    path = _patched(npz_of(tmp_path / "x.npz", npy(GOOD, bytes(3))), 6, 1)
    with pytest.raises(InputError, match="password required"):
        read(path, "x")


def test_an_unknown_compression_is_refused(tmp_path):
    path = _patched(npz_of(tmp_path / "x.npz", npy(GOOD, bytes(3))), 8, 99)
    with pytest.raises(InputError, match="neither none nor deflate"):
        read(path, "x")


def test_corrupt_deflate_is_refused(tmp_path):
    path = npz_of(tmp_path / "x.npz", npy(GOOD, bytes(3)))
    data = bytearray(path.read_bytes())
    start = data.index(b"x.npy") + len("x.npy")
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read, at x"):
        read(path, "x")


def write_samples(path, rng):
    images = rng.integers(0, 256, (3, 4, 4, 1), np.uint8)
    save_samples(path, images, np.arange(3), {"seed": 0})


def write_adm(path, rng):
    images = rng.integers(0, 256, (3, 4, 4, 3), np.uint8)
    save_adm_batch(path, images, np.arange(3))


def write_statistics(path, rng):
    moments = moments_of(rng.normal(size=(9, 4)))
    summary = FeatureSummary(SPACE, moments, None, rng.normal(size=(5, 4)).astype("f4"))
    write_reference(path, summary, ReferenceSet("digits", "train", "none", "00"))


def write_foreign_statistics(path, rng):
    np.savez(path, mu=rng.normal(size=4), sigma=np.eye(4))


FILES = {
    "samples": (write_samples, read_samples),
    "adm": (write_adm, read_samples),
    "data": (write_adm, lambda path: create_npz(data_dir=str(path)).fingerprint),
    "statistics": (write_statistics, lambda path: read_reference(path, SPACE)),
    "foreign": (write_foreign_statistics, lambda path: read_reference(path, SPACE)),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_refused_or_reads_as_before(kind, tmp_path, rng):
    """Bits flipped, ends cut off: no other error, and nothing else is read."""
    write, reader = FILES[kind]
    path = tmp_path / "x.npz"
    write(path, rng)
    whole, expected = path.read_bytes(), _content(reader(path))
    messages = []
    for trial in range(160):
        data = bytearray(whole)
        if trial % 8:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        else:
            del data[rng.integers(len(data)) :]
        path.write_bytes(data)
        try:
            found = reader(path)
        except InputError as error:
            messages.append(str(error))
        else:
            assert _content(found) == expected, trial
    assert len(messages) > 80
    assert all("x.npz" in message for message in messages)


def _content(found):
    """Everything that was read, so that two results can be compared."""
    return repr(
        [
            (value.dtype, value.shape, value.tobytes())
            if isinstance(value, np.ndarray)
            else value
            for value in _leaves(found)
        ]
    )


def _leaves(value):
    if isinstance(value, tuple):
        return list(itertools.chain.from_iterable(map(_leaves, value)))
    if hasattr(value, "__dataclass_fields__"):
        fields = (getattr(value, name) for name in value.__dataclass_fields__)
        return list(itertools.chain.from_iterable(map(_leaves, fields)))
    return [value]


def bomb(path, **shapes):
    """Zeros that shrink a thousandfold: what is declared is there."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (descr, shape) in shapes.items():
            header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}"
            size = np.dtype(descr).itemsize * int(np.prod(shape))
            with archive.open(f"{name}.npy", "w") as member:
                member.write(npy(header))
                for start in range(0, size, MB):
                    member.write(bytes(min(MB, size - start)))
    return path


@pytest.mark.parametrize("kind", ["samples", "data", "statistics"])
def test_a_small_file_takes_little_memory(kind, tmp_path):
    """Of 130 MB that 130 kB unpack to, nothing is taken."""
    shapes = {
        "samples": {"arr_0": ("|u1", (130_000, 32, 32, 1))},
        "data": {"images": ("|u1", (130_000, 32, 32, 1))},
        "statistics": {"mu": ("<f8", (4100,)), "sigma": ("<f8", (4100, 4100))},
    }[kind]
    path = bomb(tmp_path / "x.npz", **shapes)
    assert path.stat().st_size < MB
    _, reader = FILES[kind]
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="beyond all measure"):
            reader(path)
        assert tracemalloc.get_traced_memory()[1] < 10 * MB
    finally:
        tracemalloc.stop()


def test_a_covariance_is_as_large_as_its_mean(tmp_path):
    np.savez(tmp_path / "x.npz", mu=np.zeros(4), sigma=np.zeros((2000, 2000)))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"numbers \[4, 4\], got sigma"):
            read_reference(tmp_path / "x.npz", replace(SPACE, dim=4))
        assert tracemalloc.get_traced_memory()[1] < 10 * MB
    finally:
        tracemalloc.stop()

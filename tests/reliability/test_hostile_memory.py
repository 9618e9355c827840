"""What small files that unpack to gigabytes take of memory, each read by a process."""

import json
import subprocess
import sys
import zipfile

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from dig_jax.storage.checkpoint_record import describe_array

pytestmark = pytest.mark.reliability

MB = 2**20
GIGABYTES = 2 * 2**30
SHAPE = (GIGABYTES // 4,)
READ = r"""
import json, pathlib, re, sys
import jax, jax.numpy as jnp
import orbax.checkpoint as ocp
from dig_jax.data.npz import create_npz
from dig_jax.metrics.extraction import FeatureSpace
from dig_jax.metrics.reference import read_reference
from dig_jax.storage.step_folder import read_item

def peak():  # of this program alone: ru_maxrss begins with its parent's
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])

kind, path = sys.argv[1], pathlib.Path(sys.argv[2])
jnp.zeros(3).block_until_ready()
before, said = peak(), "nothing"
try:
    if kind == "statistics":
        read_reference(path, FeatureSpace("inception", "0" * 16, "tf1", 2048))
    elif kind == "data set":
        create_npz(data_dir=str(path))
    elif kind == "unchecked":
        asked = {"a": jax.ShapeDtypeStruct((3,), jnp.float32)}
        handler = ocp.StandardCheckpointHandler()
        handler.restore(path / "ema", args=ocp.args.StandardRestore(asked))
    else:
        saved = json.loads((path / "leaves.json").read_text())
        wanted = {"a": jax.ShapeDtypeStruct((3,), jnp.float32)}
        read_item(path, {"leaves": {"ema": saved}}, "ema", wanted, "checkpoint")
except Exception as error:
    said = f"{type(error).__name__}: {error}"
print(json.dumps([before, peak(), said]))
"""


def write_zeros(path, **shapes):
    """An npz of zeros, deflated a thousandfold."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (shape, dtype) in shapes.items():
            header = {"descr": dtype, "fortran_order": False, "shape": shape}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)
                left = int(np.prod(shape)) * np.dtype(dtype).itemsize
                while left > 0:
                    file.write(bytes(min(left, 16 * MB)))
                    left -= 16 * MB


def write_statistics(path):
    write_zeros(path, mu=((16384,), "<f8"), sigma=((16384, 16384), "<f8"))


def write_data_set(path):
    write_zeros(path, images=((GIGABYTES // 3072, 32, 32, 3), "|u1"))


def write_checkpoint(path):
    """Of one array, whose record says three numbers and whose chunk is 2 GB of them."""
    path.mkdir()
    handler = ocp.StandardCheckpointHandler()
    large = {"a": np.zeros(SHAPE, np.float32)}
    handler.save((path / "ema").absolute(), args=ocp.args.StandardSave(large))
    handler.finalize((path / "ema").absolute())
    small = jnp.zeros(3, jnp.float32)
    record = {"a": {"array": describe_array(small), "fingerprint": "0"}}
    (path / "leaves.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("kind", "write"),
    [
        ("statistics", write_statistics),
        ("data set", write_data_set),
        ("checkpoint", write_checkpoint),
    ],
)
def test_files_of_gigabytes_of_zeros_take_no_memory(kind, write, tmp_path, figure):
    path = tmp_path / "evil.npz"
    write(path)
    size = sum(f.stat().st_size for f in (path, *path.rglob("*")) if f.is_file())
    before, peak, said = read(kind, path)
    assert said.startswith(("InputError", "DamagedError"))
    grown = (peak - before) / 1024
    assert grown < 200
    figure(
        "R43",
        f"{kind}: {size / 1e6:.2f} MB on disk, peak {peak / 1024:.0f} MB, of them "
        f"{grown:.0f} MB for reading",
    )
    if kind == "checkpoint":  # what it would take, so that the measure is one
        before, peak, _ = read("unchecked", path)
        grown = (peak - before) / 1024
        assert grown > 1000
        figure("R43", f"checkpoint, unchecked: {grown:.0f} MB for reading")


def read(kind, path):
    """Peak memory of a process before and after it reads, in kB, and what it said."""
    command = [sys.executable, "-c", READ, kind, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])

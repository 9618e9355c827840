"""Files made to do harm are refused in one line, run nothing and fill no memory.

Archives (links, names that lead out, bombs) are in tests/data/test_raw_archives.py.
"""

import io
import json
import pickle
import resource
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
from safetensors.numpy import save as save_safetensors

from dig_jax.config import config_to_json, load_config_file, load_run_config
from dig_jax.data.npz import create_npz
from dig_jax.data.tfds_source import open_prepared
from dig_jax.errors import InputError
from dig_jax.files import npz as npz_arrays
from dig_jax.files.checked_json import sha256_of
from dig_jax.metrics.extraction import FeatureSpace
from dig_jax.metrics.networks.inception_weights import read_weights
from dig_jax.metrics.reference import read_reference
from dig_jax.prepare.archives import open_files, read_tar_stream
from dig_jax.sampling.samples import read_samples
from dig_jax.storage.export_folder import MANIFEST, read_manifest

MB = 2**20
SPACE = FeatureSpace("inception", "0123456789abcdef", "tf1", 6)
TFDS = "tensorflow_datasets.core.features"


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture(autouse=True)
def nothing_runs_and_memory_is_bounded(tmp_path, monkeypatch):
    """Whatever a test opens: no marker, nothing outside, at most 200 MB more."""
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 200 * MB
    assert not (tmp_path / "marker").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


def npy(shape, descr="|u1", content=b""):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
    return start + header.encode() + content


def write_npz(**arrays):
    with zipfile.ZipFile("evil.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return Path("evil.npz")


NPZ_READERS = {
    "samples": read_samples,
    "data": lambda path: create_npz(data_dir=str(path)),
    "reference": lambda path: read_reference(path, SPACE),
}


@pytest.mark.parametrize("reader", NPZ_READERS)
def test_pickled_arrays_are_refused(reader, marker):
    path = write_npz(
        **dict.fromkeys(
            ("arr_0", "images", "mu", "sigma", "labels", "provenance"),
            npy((1,), "|O", pickle.dumps(Evil(marker))),
        )
    )
    with pytest.raises(InputError):
        NPZ_READERS[reader](path)
    path.write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(InputError):
        NPZ_READERS[reader](path)


@pytest.mark.parametrize("reader", NPZ_READERS)
@pytest.mark.parametrize(
    "shape", [(2**40, 64, 64, 3), (2**31, 2**31, 2**31, 3), (10**6, 64, 64, 3), (-1,)]
)
def test_arrays_that_declare_too_much_are_refused(reader, shape):
    arrays = ("arr_0", "images", "mu", "sigma")
    with pytest.raises(InputError):
        NPZ_READERS[reader](write_npz(**dict.fromkeys(arrays, npy(shape))))


@pytest.mark.parametrize("reader", ["samples", "data"])
def test_an_npz_bomb_is_refused_before_it_is_unpacked(reader, monkeypatch):
    """64 MB of zeros, where more than one megabyte counts as large."""
    monkeypatch.setattr(npz_arrays, "_FREE_BYTES", MB)
    shape = (64 * 1024, 32, 32, 1)
    path = write_npz(arr_0=npy(shape, content=bytes(64 * MB)))
    assert path.stat().st_size < MB
    with pytest.raises(InputError, match="would grow beyond"):
        NPZ_READERS[reader](path)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 80)
        + b'{"fc.bias": {"dtype": "F32", "shape": [1099511627776], '
        + b'"data_offsets": [0, 4]}}',
        struct.pack("<Q", 200_000) + b"[" * 200_000,
        pickle.dumps([1]),
        b"",
    ],
    ids=["header", "negative header", "shape", "nesting", "pickle", "empty"],
)
def test_hostile_safetensors_are_refused(content):
    Path("weights.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="safetensors"):
        read_weights(Path("weights.safetensors"))


def test_a_tar_may_not_lead_out_and_nothing_is_unpacked(tmp_path):
    for name, kind in (("../outside", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)):
        with tarfile.open("evil.tar", "w") as archive:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member, io.BytesIO())
        with pytest.raises(InputError):
            open_files(Path("evil.tar"))
        with pytest.raises(InputError):
            list(read_tar_stream(Path("evil.tar"), lambda _: True, max_total_bytes=9))


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch ../marker']",
        "__import__('pathlib').Path('../marker').touch()",
        "[" * 100_000,
        '{"seed": ' + "9" * 5000 + "}",
        "\xff\xfe",
    ],
    ids=["yaml", "python", "nesting", "number", "bytes"],
)
def test_a_config_json_is_data(text):
    Path("config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"config\.json"):
        load_run_config(Path())
    Path("config.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"Python file with get_config.*config\.yaml"):
        load_config_file("config.yaml")


def test_code_in_a_runs_configuration_stays_text(marker, tmp_path):
    """In every place that takes text, or as the name of anything."""
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    config = tiny_runs.tiny_config(tmp_path / "inside")
    config.sample.labels = code
    config.backbone.aggregation = code
    Path("config.json").write_text(config_to_json(config))
    restored = load_run_config(Path())
    assert restored.sample.labels == restored.backbone.aggregation == code
    for section in ("backbone", "sde", "data"):
        evil = json.loads(config_to_json(config))
        evil[section]["name"] = code
        Path("config.json").write_text(json.dumps(evil))
        from dig_jax.run import load

        with pytest.raises(InputError):
            load(".")


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "type"])
def test_a_data_set_names_no_code(key, monkeypatch):
    """TFDS imports the module that features.json names, also from this folder."""
    Path("evil.py").write_text("import pathlib; pathlib.Path('../marker').touch()")
    monkeypatch.setattr(sys, "path", [*sys.path, "."])
    features = {"image": {key: "evil.Feature", "content": {}}}
    whole = {
        "pythonClassName": f"{TFDS}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
    Path("features.json").write_text(json.dumps(whole))
    Path("dataset_info.json").write_text('{"name": "evil", "version": "1.0.0"}')
    with pytest.raises(InputError, match=r"names the class 'evil\.Feature'"):
        open_prepared(Path())


@pytest.mark.parametrize("name", ["../outside", "/dev/zero", "a/b"])
def test_an_export_names_no_file_outside(name):
    record = {"schema": 1, "files": {name: "0"}}
    whole = {"sha256": sha256_of(record), "record": record}
    Path(MANIFEST).write_text(json.dumps(whole))
    with pytest.raises(InputError, match="not in its folder"):
        read_manifest(Path())


def test_weights_of_another_network_are_refused():
    Path("weights.safetensors").write_bytes(
        save_safetensors({"evil": np.zeros(1, np.float32)})
    )
    with pytest.raises(InputError, match="holds no weights"):
        read_weights(Path("weights.safetensors"))

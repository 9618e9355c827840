"""Weights from the published files' formats, which are written here by hand."""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from dig_jax.metrics.convert import (
    convert,
    main,
    read_tensorflow_graph,
    tensorflow_scope,
)
from dig_jax.metrics.networks.graph_def import read_graph
from dig_jax.metrics.networks.inception_weights import (
    conv_shapes,
    hash_weights,
    random_weights,
    read_weights,
)

# Field numbers and types are those of tensorflow/core/framework/*.proto.


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def message(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(values: np.ndarray, shape=None, *, packed=False, dtype=1) -> bytes:
    dims = b"".join(
        message(2, varint(1 << 3) + varint(length))
        for length in (values.shape if shape is None else shape)
    )
    data = np.ascontiguousarray(values, "<f4").tobytes()
    return (
        varint(1 << 3)
        + varint(dtype)
        + message(2, dims)
        + message(5 if packed else 4, data)
    )


def node(name: str, op: str, **attributes: bytes) -> bytes:
    out = message(1, name.encode()) + message(2, op.encode()) + message(3, b"input")
    for key, value in attributes.items():
        out += message(5, message(1, key.encode()) + message(2, value))
    return message(1, out)


def constant(name: str, values: np.ndarray, **options) -> bytes:
    value = message(8, tensor(values, **options))
    return node(name, "Const", dtype=varint(6 << 3) + varint(1), value=value)


def inception_graph(
    weights: dict[str, np.ndarray], *, scale=True, epsilon=0.001, num_convs=94
) -> bytes:
    parts = [node("ExpandDims", "Placeholder")]
    for name in list(conv_shapes())[:num_convs]:
        scope = tensorflow_scope(name)
        kernel = weights[f"{name}.conv.weight"].transpose(2, 3, 1, 0)
        parts.append(constant(f"{scope}/conv2d_params", kernel))
        for theirs, ours in (
            ("beta", "bias"),
            ("gamma", "weight"),
            ("moving_mean", "running_mean"),
            ("moving_variance", "running_var"),
        ):
            values = weights[f"{name}.bn.{ours}"]
            parts.append(constant(f"{scope}/batchnorm/{theirs}", values))
        parts.append(
            node(
                f"{scope}/batchnorm",
                "BatchNormWithGlobalNormalization",
                scale_after_normalization=varint(5 << 3) + varint(int(scale)),
                variance_epsilon=varint(4 << 3 | 5) + struct.pack("<f", epsilon),
            )
        )
    parts.append(constant("softmax/weights", weights["fc.weight"].T))
    parts.append(constant("softmax/biases", weights["fc.bias"]))
    return b"".join(parts) + message(4, varint(1 << 3) + varint(8))


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return random_weights(1)


def test_a_tensorflow_graph_gives_its_weights(weights, tmp_path, capsys):
    source, output = tmp_path / "graph.pb", tmp_path / "new" / "inception.safetensors"
    source.write_bytes(inception_graph(weights))
    assert main([str(source), f"--output={output}"]) == EXIT_DONE
    assert hash_weights(weights) in capsys.readouterr().out
    found = read_weights(output)
    for name, values in weights.items():
        np.testing.assert_array_equal(found[name], values)
    with safe_open(output, framework="numpy") as file:
        metadata = json.loads(file.metadata()["provenance"])
    assert metadata["source"] == "graph.pb"
    assert metadata["weights_hash"] == hash_weights(weights)
    assert len(metadata["source_sha256"]) == 64


def test_a_graph_that_does_not_scale_has_gammas_of_one(weights, tmp_path):
    source = tmp_path / "graph.pb"
    source.write_bytes(inception_graph(weights, scale=False))
    found = read_tensorflow_graph(source)
    assert (found["Mixed_5b.branch_pool.bn.weight"] == 1).all()
    bias = "Mixed_5b.branch_pool.bn.bias"
    np.testing.assert_array_equal(found[bias], weights[bias])


def test_a_graph_of_another_epsilon_is_refused(weights, tmp_path):
    source = tmp_path / "graph.pb"
    source.write_bytes(inception_graph(weights, epsilon=0.01, num_convs=1))
    with pytest.raises(InputError, match=r"epsilon 0\.001, got 0\.0"):
        convert(source, tmp_path / "out.safetensors")


def test_scopes_are_those_of_the_published_graph():
    # From the graph's list of operations; one block of each kind.
    published = {
        "Conv2d_1a_3x3": "conv",
        "Conv2d_4a_3x3": "conv_4",
        "Mixed_5b.branch1x1": "mixed/conv",
        "Mixed_5b.branch5x5_2": "mixed/tower/conv_1",
        "Mixed_5b.branch3x3dbl_3": "mixed/tower_1/conv_2",
        "Mixed_5b.branch_pool": "mixed/tower_2/conv",
        "Mixed_6a.branch3x3": "mixed_3/conv",
        "Mixed_6a.branch3x3dbl_1": "mixed_3/tower/conv",
        "Mixed_6d.branch1x1": "mixed_6/conv",
        "Mixed_6d.branch7x7_3": "mixed_6/tower/conv_2",
        "Mixed_6d.branch7x7dbl_5": "mixed_6/tower_1/conv_4",
        "Mixed_7a.branch3x3_2": "mixed_8/tower/conv_1",
        "Mixed_7a.branch7x7x3_4": "mixed_8/tower_1/conv_3",
        "Mixed_7c.branch3x3_1": "mixed_10/tower/conv",
        "Mixed_7c.branch3x3_2a": "mixed_10/tower/mixed/conv",
        "Mixed_7c.branch3x3_2b": "mixed_10/tower/mixed/conv_1",
        "Mixed_7c.branch3x3dbl_2": "mixed_10/tower_1/conv_1",
        "Mixed_7c.branch3x3dbl_3b": "mixed_10/tower_1/mixed/conv_1",
        "Mixed_7c.branch_pool": "mixed_10/tower_2/conv",
    }
    assert {name: tensorflow_scope(name) for name in published} == published
    assert len({tensorflow_scope(name) for name in conv_shapes()}) == 94


def test_a_constant_may_be_packed_or_one_value_repeated():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    graph = read_graph(
        constant("content", values)
        + constant("packed", values, packed=True)
        + constant("filled", np.array([3.5]), shape=(2, 2), packed=True)
        + constant("integers", values, dtype=3)
    )
    np.testing.assert_array_equal(graph["content"].attributes["value"], values)
    np.testing.assert_array_equal(graph["packed"].attributes["value"], values)
    filled = graph["filled"].attributes["value"]
    np.testing.assert_array_equal(filled, np.full((2, 2), 3.5))
    assert "value" not in graph["integers"].attributes


@pytest.mark.parametrize(
    "damaged",
    [
        constant("short", np.ones(3), shape=(4,)),
        constant("huge", np.ones(1), shape=(2**40, 2**40), packed=True),
        b"\x0a\xff\xff\x03abc",
        b"\xff" * 20,
        b"\x0b\x00",
    ],
    ids=["short", "huge", "cut", "number", "type"],
)
def test_a_damaged_graph_is_refused(damaged):
    with pytest.raises(
        InputError, match=r"constant of the graph|no TensorFlow GraphDef"
    ):
        read_graph(damaged)


def test_every_cut_of_a_graph_is_read_or_refused():
    whole = constant("a", np.ones((2, 2))) + constant("b", np.ones(3), packed=True)
    for end in range(len(whole)):
        try:
            read_graph(whole[:end])
        except InputError:
            continue


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.pb", None, "no file.*pytorch-fid"),
        ("weights.h5", b"x", r"\.pth, \.pt or \.pb file"),
        ("other.pb", constant("a", np.ones(2)), "not the Inception graph"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path, capsys, name, content, message):
    source = Path(tmp_path / name)
    if content is not None:
        source.write_bytes(content)
    output = tmp_path / "out.safetensors"
    with pytest.raises(InputError, match=message):
        convert(source, output)
    assert main([str(source), f"--output={output}"]) == EXIT_BAD_INPUT
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not output.exists()


def test_a_state_dict_of_torch_gives_its_weights(weights, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    source, output = tmp_path / "w.pth", tmp_path / "out.safetensors"
    state = {name: torch.from_numpy(value) for name, value in weights.items()}
    state["Mixed_5b.branch1x1.bn.num_batches_tracked"] = torch.tensor(0)
    torch.save(state, source)
    assert convert(source, output) == hash_weights(weights)
    assert "not pytorch-fid's published file" in capsys.readouterr().out


def test_code_in_a_torch_file_does_not_run(tmp_path):
    torch = pytest.importorskip("torch")

    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"fc.bias": Evil()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="no state dict"):
        convert(tmp_path / "w.pth", tmp_path / "out.safetensors")
    assert not (tmp_path / "ran").exists()


def test_a_torch_file_without_torch_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "w.pth").write_bytes(b"x")
    with pytest.raises(InputError, match="pip install torch"):
        convert(tmp_path / "w.pth", tmp_path / "out.safetensors")

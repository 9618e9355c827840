"""The FID network against a NumPy one, and torch's where torch is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inception_in_numpy import inception_in_numpy, resize_by_definition
from safetensors.numpy import load_file, save_file

from dig_jax.errors import InputError
from dig_jax.metrics.networks.inception import (
    create_inception_extractor,
    inception_extractor,
    inception_features,
    preprocess,
)
from dig_jax.metrics.networks.inception_weights import (
    conv_shapes,
    fold_batch_norm,
    hash_weights,
    random_weights,
    read_weights,
    tensor_shapes,
    write_weights,
)

# 48 layers of float32 against float64, as a share of the features' deviation: 1e-5 was
# measured, a wrong padding or branch is 1e-2 and more.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return random_weights(0)


def random_images(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def test_network_equals_its_description_in_numpy(weights):
    # 139 pixels leave 3x3 in the last block, where every pooling and kernel differs.
    x = np.random.default_rng(1).uniform(-1, 1, (1, 139, 107, 3))
    features = jax.jit(inception_features)(fold_batch_norm(weights), jnp.asarray(x))
    expected = inception_in_numpy(weights, x)
    for ours, theirs in zip(features, expected, strict=True):
        assert ours is not None
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * theirs.std())


def test_the_network_has_the_published_number_of_parameters():
    # 27,161,264 are torchvision's, with 1000 logits and an auxiliary classifier: a 1x1
    # and a 5x5 convolution with batch normalization, and 1000 logits.
    auxiliary = 768 * 128 + 2 * 128 + 128 * 768 * 25 + 2 * 768 + 769 * 1000
    trained = {
        name: np.prod(shape)
        for name, shape in tensor_shapes().items()
        if "running" not in name
    }
    assert len(conv_shapes()) == 94
    assert sum(trained.values()) == 27_161_264 - auxiliary + 8 * 2049


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 7, 3), (16, 16, 3), (41, 32, 3)])
@pytest.mark.parametrize("resize", ["tf1", "torch"])
def test_resize_is_bilinear_at_its_places_without_antialiasing(resize, shape):
    size = 19
    images = random_images(2, 2, *shape)
    expected = np.stack(
        [
            resize_by_definition(
                np.broadcast_to(image, (*shape[:2], 3)).astype(float),
                size,
                half_pixel=resize == "torch",
            )
            for image in images
        ]
    )
    scaled = (expected - 128) / 128 if resize == "tf1" else 2 * (expected / 255) - 1
    # Places in float32 have seven digits, and an error of one is a step of 2 a pixel.
    resized = preprocess(jnp.asarray(images), resize, size)
    np.testing.assert_allclose(resized, scaled, atol=2e-5)


def test_the_two_rules_are_not_the_same():
    images = jnp.asarray(random_images(3, 1, 32, 32, 3))
    difference = preprocess(images, "tf1", 64) - preprocess(images, "torch", 64)
    assert jnp.abs(difference).max() > 0.1


def test_an_image_of_the_networks_size_is_not_resized():
    images = random_images(4, 1, 23, 23, 3)
    pixels = preprocess(jnp.asarray(images), "tf1", 23)
    np.testing.assert_array_equal(pixels, (images.astype(np.float32) - 128) / 128)


def test_features_of_images_have_the_published_numbers(weights):
    extractor = inception_extractor(weights)
    images = jax.ShapeDtypeStruct((2, 32, 32, 1), jnp.uint8)
    features = jax.eval_shape(extractor.apply, extractor.params, images)
    assert features.spatial is not None
    assert features.pool.shape == (2, 2048)
    assert features.spatial.shape == (2, 17 * 17 * 7)
    assert features.logits.shape == (2, 1008)


def test_weights_come_back_from_their_file(weights, tmp_path):
    path = tmp_path / "inception.safetensors"
    write_weights(path, weights, {"source": "random"})
    first = path.read_bytes()
    write_weights(path, weights, {"source": "random"})
    assert path.read_bytes() == first
    found = read_weights(path)
    assert hash_weights(found) == hash_weights(weights)
    extractor = create_inception_extractor(weights=path, resize="torch")
    assert extractor.space.weights == hash_weights(weights)
    assert extractor.space.resize == "torch"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_another_value_or_name_is_another_hash():
    weights = {"a": np.zeros(3, np.float32), "b": np.ones(3, np.float32)}
    other = {"a": np.ones(3, np.float32), "b": np.zeros(3, np.float32)}
    assert hash_weights(weights) != hash_weights(other)


def test_missing_weights_say_how_to_get_them(tmp_path):
    with pytest.raises(InputError, match=r"pytorch-fid.*dig_jax\.metrics\.convert"):
        create_inception_extractor(weights=tmp_path / "none.safetensors")


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(InputError, match="no whole file of safetensors"):
        read_weights(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("fc.bias"), "lacks fc.bias"),
        (lambda w: w.update(extra=np.zeros(2, np.float32)), "has unknown extra"),
        (lambda w: w.update({"fc.bias": np.zeros(3, np.float32)}), "another shape"),
        (
            lambda w: w.update({"fc.bias": np.full(1008, np.nan, np.float32)}),
            "not finite in fc.bias",
        ),
    ],
    ids=["missing", "unknown", "shape", "nan"],
)
def test_another_networks_weights_are_refused(weights, tmp_path, change, message):
    changed = dict(weights)
    change(changed)
    save_file(changed, tmp_path / "other.safetensors")
    assert load_file(tmp_path / "other.safetensors").keys() == changed.keys()
    with pytest.raises(InputError, match=message):
        read_weights(tmp_path / "other.safetensors")


def test_network_equals_pytorch_fids_where_torch_is_installed(weights):
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    functional = torch.nn.functional
    network = torchvision.models.inception_v3(
        num_classes=1008, aux_logits=False, weights=None, init_weights=False
    )
    network.load_state_dict(
        {name: torch.from_numpy(value) for name, value in weights.items()}, strict=False
    )

    images = random_images(5, 1, 40, 64, 3)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    x = functional.interpolate(x, size=(299, 299), mode="bilinear")
    kept = {}
    network.eval().avgpool.register_forward_hook(
        lambda module, inputs, output: kept.update(pool=output.flatten(1).numpy())
    )
    # pytorch-fid's changes: no padding in the mean; in the last block the maximum.
    original = functional.avg_pool2d
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            functional,
            "avg_pool2d",
            lambda x, **_: original(x, 3, 1, 1, count_include_pad=False),
        )
        network.Mixed_7c.register_forward_pre_hook(
            lambda module, inputs: patch.setattr(
                functional,
                "avg_pool2d",
                lambda x, **_: functional.max_pool2d(x, 3, 1, 1),
            )
        )
        network._forward(2 * x - 1)
    extractor = inception_extractor(weights, "torch")
    ours = jax.jit(extractor.apply)(extractor.params, jnp.asarray(images)).pool
    tolerance = TOLERANCE * kept["pool"].std()
    np.testing.assert_allclose(ours, kept["pool"], atol=tolerance)

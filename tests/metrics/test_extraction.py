import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from tiny_network import (
    features_in_numpy,
    one_device,
    random_images,
    tiny_extractor,
)

from dig_jax.errors import InputError
from dig_jax.metrics.extraction import GROUP_SIZE, extract_features


def pooled(batches, mesh=None, **options) -> np.ndarray:
    features = extract_features(
        tiny_extractor(), batches, mesh or one_device(), **options
    )
    return np.concatenate([part.pool for part in features])


def in_batches(images: np.ndarray, size: int) -> list[np.ndarray]:
    return [images[i : i + size] for i in range(0, len(images), size)]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 37])
def test_every_image_is_there_once_and_in_order(count):
    images = random_images(0, count)
    features = pooled(in_batches(images, 5))
    expected = features_in_numpy(tiny_extractor(), images)[0]
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_features_do_not_depend_on_batches_in_any_bit():
    images = random_images(1, 45)
    whole = pooled([images])
    for size in (1, 8, 13, 44):
        np.testing.assert_array_equal(pooled(in_batches(images, size)), whole)


def test_empty_batches_change_nothing():
    images = random_images(2, 9)
    batches = [images[:0], images[:4], images[4:4], images[4:]]
    np.testing.assert_array_equal(pooled(batches), pooled([images]))
    assert list(extract_features(tiny_extractor(), [], one_device())) == []


def test_logits_and_places_come_from_the_same_pass():
    images = random_images(3, 11)
    parts = list(extract_features(tiny_extractor(), [images], one_device()))
    _, logits, spatial = features_in_numpy(tiny_extractor(), images)
    np.testing.assert_allclose(
        np.concatenate([part.logits for part in parts]), logits, atol=1e-5
    )
    places = [part.spatial for part in parts if part.spatial is not None]
    np.testing.assert_allclose(np.concatenate(places), spatial, atol=1e-5)


def test_progress_ends_at_the_number_of_images():
    done = []
    pooled([random_images(4, 19)], on_progress=done.append)
    assert done == [8, 16, 19]
    assert GROUP_SIZE["cpu"] == 8


def pooled_on_four_devices() -> dict[str, np.ndarray]:
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("data", "fsdp"))
    assert mesh.size == 4
    return {"features": pooled(in_batches(random_images(5, 77), 10), mesh)}


def test_features_do_not_depend_on_the_number_of_devices_in_any_bit(on_devices):
    features = on_devices(4, pooled_on_four_devices)["features"]
    np.testing.assert_array_equal(features, pooled([random_images(5, 77)]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_other_values_than_bytes_are_refused(dtype):
    images = random_images(6, 3).astype(dtype)
    with pytest.raises(InputError, match=f"uint8.*0 to 255, got {np.dtype(dtype)}"):
        pooled([images])


@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (3, 4, 0, 3)])
def test_images_that_are_neither_grey_nor_colour_are_refused(shape):
    with pytest.raises(InputError, match="one channel or three"):
        pooled([np.zeros(shape, np.uint8)])


def test_images_of_different_shapes_are_refused():
    other = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(InputError, match=r"got \(4, 4, 3\) and \(4, 5, 3\)"):
        pooled([random_images(7, 2), other])

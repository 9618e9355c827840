"""CelebA's archive, in small, is read; others are refused."""

import pytest
from official_archives import (
    encode,
    random_images,
    write_files,
    write_zip,
)
from raw_splits import read

from dig_jax.errors import InputError
from dig_jax.prepare.celeba import open_celeba

PARTITION = "000001.jpg 0\n000002.jpg 2\n000003.jpg 0\n000004.jpg 1\n"


def celeba_files(rng):
    images = random_images(rng, 4, 218, 178)
    return {
        f"img_align_celeba/{i + 1:06d}.jpg": encode(image, "JPEG")
        for i, image in enumerate(images)
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_celeba_is_split_by_its_list(zipped, tmp_path, rng):
    files = celeba_files(rng)
    if zipped:
        write_zip(tmp_path / "img_align_celeba.zip", files)
    else:
        write_files(tmp_path, files)
    (tmp_path / "list_eval_partition.txt").write_text(PARTITION)
    raw = open_celeba(tmp_path)
    assert raw.class_names == ()
    contents = list(files.values())
    for split, members in (("train", [0, 2]), ("validation", [3]), ("test", [1])):
        found, labels = read(raw.splits[split])
        assert sorted(found) == sorted(contents[i] for i in members)
        assert set(labels) == {0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "lacks one of them"),
        (PARTITION + "000005.jpg 0\n", r"names 000005.jpg, which"),
        ("000001.jpg 3\n", "line 1 must be"),
        ("000001.jpg 0\n000002.jpg 1\n", "no images for test"),
    ],
)
def test_a_list_that_does_not_fit_celeba_is_refused(text, message, tmp_path, rng):
    write_zip(tmp_path / "img_align_celeba.zip", celeba_files(rng))
    if text is not None:
        (tmp_path / "list_eval_partition.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        open_celeba(tmp_path)

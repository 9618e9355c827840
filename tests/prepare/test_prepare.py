"""The command that prepares data sets, on tiny official archives."""

import json
import re
import shlex

import numpy as np
import pytest
from official_archives import (
    cifar10_files,
    encode,
    imagenet64_npz,
    random_images,
    sorted_rows,
    write_files,
    write_svhn,
    write_tar,
    write_zip,
)
from opened_as_told import read_as_told
from PIL import Image

from dig_jax.data.loader import read_images
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE
from dig_jax.prepare.command import main


def run(name, source, data_dir, *options):
    arguments = [name, f"--source={source}", f"--data_dir={data_dir}", *options]
    return main([*arguments, "--num_workers=0"])


def assert_prepared(capsys, made):
    """What the command printed, once everything of it is true."""
    output = capsys.readouterr().out
    sheet = re.findall(r"look at\s+(\S+)", output)[0]
    with Image.open(sheet) as image:
        assert image.mode == "RGB"
    for split, (images, labels) in made.items():
        source = read_as_told(output, split)
        found = read_images(source)
        np.testing.assert_array_equal(
            sorted_rows(found.images, found.labels), sorted_rows(images, labels)
        )
        assert f"{len(images)} images" in re.findall(rf"{split} .*", output)[0]
    return output


def test_cifar10(tmp_path, rng, capsys):
    files, made = cifar10_files(rng)
    source = write_tar(tmp_path / "cifar-10-binary.tar.gz", files, "w:gz")
    assert run("cifar10", source, tmp_path) == EXIT_DONE
    output = assert_prepared(capsys, made)
    assert "20 images (published: 50,000)" in output
    assert run("cifar10", source, tmp_path) == EXIT_DONE  # it is there
    assert_prepared(capsys, made)


def test_svhn_with_extra(tmp_path, rng, capsys):
    made = write_svhn(tmp_path, rng)
    assert run("svhn", tmp_path, tmp_path) == EXIT_DONE
    output = assert_prepared(capsys, made)
    flags = output.splitlines()[-1] + " --config.data.extra=True"
    both = read_as_told(flags, "train")
    assert len(both) == len(made["train"][1]) + len(made["extra"][1])
    assert not both.may_flip
    assert len(read_as_told(flags, "test")) == len(made["test"][1])


def test_downsampled_imagenet(tmp_path, rng, capsys):
    made = {}
    for split, name in (("train", "train_data_batch_1"), ("validation", "val_data")):
        files, *made[split] = imagenet64_npz(rng, f"{name}.npz", 5)
        write_zip(tmp_path / f"{name}.zip", files)
    assert run("imagenet64", tmp_path, tmp_path) == EXIT_DONE
    output = assert_prepared(capsys, made)
    source = read_as_told(output, "test")  # another name for validation
    assert (source.split, source.transform) == ("validation", "box")
    assert run("imagenet64", tmp_path, tmp_path, "--transform=area") == EXIT_BAD_INPUT
    assert "must be box, got area" in capsys.readouterr().err


@pytest.mark.parametrize("options", [(), ("--transform=area",)])
def test_imagenets_own_images(options, tmp_path, rng, capsys):
    pixels = random_images(rng, 4, 64, 64)
    files = {
        f"{split}/n0144{'0764' if i % 2 else '3537'}/{i}.JPEG": encode(pixels[i])
        for i, split in enumerate(["train", "train", "val", "val"])
    }
    source = write_files(tmp_path / "imagenet", files)
    assert run("imagenet64", source, tmp_path, *options) == EXIT_DONE
    made = {"train": (pixels[:2], [1, 0]), "validation": (pixels[2:], [1, 0])}
    output = assert_prepared(capsys, made)
    transform = "area" if options else "adm_center_crop"
    assert read_as_told(output, "train").transform == transform
    assert "1000 classes of 0 to 1" in output


def test_celeba(tmp_path, rng, capsys):
    images = random_images(rng, 3, 218, 178)
    files = {f"{i + 1:06d}.jpg": encode(image) for i, image in enumerate(images)}
    write_zip(tmp_path / "img_align_celeba.zip", files)
    (tmp_path / "list_eval_partition.txt").write_text(
        "000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n"
    )
    assert run("celeba64", tmp_path, tmp_path, "--transform=center_148") == EXIT_DONE
    output = capsys.readouterr().out
    source = read_as_told(output, "test")
    assert (source.num_classes, source.transform) == (0, "center_148")
    assert source.image_shape == (64, 64, 3)
    square = Image.fromarray(images[2][35:183, 15:163]).resize((64, 64), 2)
    np.testing.assert_array_equal(source[0]["image"], np.asarray(square))


def test_a_folder_of_ones_own(tmp_path, rng, capsys):
    grey = random_images(rng, 6, 12, 12)[..., :1]
    files = {
        f"{split}/{'cat' if i % 2 else 'dog'}/{i}.png": encode(grey[i, ..., 0])
        for i, split in enumerate(["train"] * 4 + ["test"] * 2)
    }
    source = write_zip(tmp_path / "images.zip", files)
    options = ("--image_size=12", "--channels=1", "--transform=none")
    assert run("folder", source, tmp_path, *options) == EXIT_DONE
    labels = [1, 0, 1, 0, 1, 0]
    made = {"train": (grey[:4], labels[:4]), "test": (grey[4:], labels[4:])}
    output = assert_prepared(capsys, made)
    assert read_as_told(output, "test").class_names == ("cat", "dog")
    assert "2 classes of 1 to 1" in output
    told = " ".join(output.split())  # a list of many classes takes several lines
    assert "label name (train + test images): 0 cat (2 + 1), 1 dog (2 + 1)" in told


def test_names_of_strangers_are_shown_spelled_out(tmp_path, rng, capsys):
    """A class folder may be called by what would clear the screen."""
    files = {
        f"{name}/{i}.png": encode(image)
        for name in ("a\x1b[2J", "b")
        for i, image in enumerate(random_images(rng, 2, 12, 12))
    }
    source = write_zip(tmp_path / "images.zip", files)
    assert run("folder", source, tmp_path, "--image_size=12") == EXIT_DONE
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert r"a\x1b[2J" in output


def test_what_was_done_to_images_is_told(tmp_path, rng, capsys):
    images = random_images(rng, 4, 20, 30)
    files = {f"{i}.png": encode(image) for i, image in enumerate(images[:3])}
    files |= {"3.png": encode(images[3, ..., 0]), "4.png": b"<html>404</html>"}
    files["list.txt"] = b"1 2 3"
    source, data_dir = write_files(tmp_path / "images", files), tmp_path / "data"
    options = ("--image_size=16", "--test_share=0")
    assert run("folder", source, data_dir, *options) == EXIT_BAD_INPUT
    assert re.search(r"4.png cannot be used: .*--skip_bad", capsys.readouterr().err)
    assert run("folder", source, data_dir, *options, "--skip_bad") == EXIT_DONE
    output = capsys.readouterr().out
    assert re.search(r"train +4 images, no classes, 1 files", output)
    assert "test       none" in output
    assert re.search(r"converted +1: grey", output)
    assert re.search(r"left out +.*4.png: it is not an image", output)
    assert re.search(r"left out +1 files that are no .*endings: .txt 1.*: list", output)
    path = next(data_dir.glob("dig_folder_*/1.0.0/metadata.json"))
    assert json.loads(path.read_text())["transform"] == "adm_center_crop"


def test_a_share_of_each_class_is_held_out_and_recorded(tmp_path, rng, capsys):
    sizes = {"a": 20, "b": 10, "c": 1}
    images = iter(random_images(rng, sum(sizes.values()), 8, 8))
    files = {
        f"{name}/{i}.png": encode(next(images))
        for name, size in sizes.items()
        for i in range(size)
    }
    source, data_dir = write_files(tmp_path / "My pictures", files), tmp_path / "data"
    options = ("--image_size=8", "--test_share=0.2")
    assert run("folder", source, data_dir, *options) == EXIT_DONE
    output = capsys.readouterr().out
    train, test = (read_as_told(output, split) for split in ("train", "test"))
    assert (train.name, test.name) == ("My_pictures", "My_pictures")
    assert test.count_labels().tolist() == [4, 2, 0]  # the only c stays in train
    assert train.count_labels().tolist() == [16, 8, 1]
    parts = [{r["image"].tobytes() for r in part} for part in (train, test)]
    assert len(parts[0] | parts[1]) == 31
    metadata = next(data_dir.glob("dig_folder_*/1.0.0/metadata.json")).read_text()
    assert json.loads(metadata)["test_share"] == 0.2
    # A new picture moves few others from the one to the other.
    files["a/new.png"] = encode(random_images(rng, 1, 8, 8)[0])
    write_files(tmp_path / "My pictures", files)
    assert run("folder", source, tmp_path / "data2", *options) == EXIT_DONE
    later = read_as_told(capsys.readouterr().out, "test")
    assert len(parts[1] & {r["image"].tobytes() for r in later}) >= 5


def test_test_images_of_ones_own_are_kept(tmp_path, rng, capsys):
    images = random_images(rng, 30, 8, 8)
    files = {f"train/{i}.png": encode(image) for i, image in enumerate(images)}
    files["test/a.png"] = encode(images[0])
    source, data_dir = write_files(tmp_path / "images", files), tmp_path / "data"
    assert run("folder", source, data_dir, "--test_share=0.1") == EXIT_BAD_INPUT
    assert "have a folder of test images: leave it out" in capsys.readouterr().err
    assert run("folder", source, data_dir, "--image_size=8", "--name=x") == EXIT_DONE
    output = capsys.readouterr().out
    assert len(read_as_told(output, "train")) == 30
    assert read_as_told(output, "test").name == "x"
    # It is there under that name; scores of runs carry it.
    again = run("folder", source, data_dir, "--image_size=8", "--name=y")
    assert again == EXIT_BAD_INPUT
    assert "prepared before, under the name x" in capsys.readouterr().err


def test_pictures_of_rows_and_columns(tmp_path, rng, capsys):
    """The part of the picture that has the shape, as Pillow crops and resizes it."""
    image = random_images(rng, 1, 24, 40)[0]
    source = write_files(tmp_path / "images", {"a.png": encode(image)})
    for transform in ("box", "area", "adm_center_crop"):
        options = ("--image_size=8,16", f"--transform={transform}")
        assert run("folder", source, tmp_path / transform, *options) == EXIT_DONE
        read = read_as_told(capsys.readouterr().out, "train")
        assert read.image_shape == (8, 16, 3)
        whole = Image.fromarray(image)
        crop = whole.resize((16, 8), 4)  # box
        if transform == "area":  # 20 of 24 rows
            rows = image[2:22].astype(np.float64).repeat(2, 0)
            means = rows.reshape(8, 5, 40, 3).mean(1).repeat(2, 1)
            crop = np.rint(means.reshape(8, 16, 5, 3).mean(2))
        if transform == "adm_center_crop":
            crop = whole.resize((20, 12), 4).resize((16, 10), 3).crop((0, 1, 16, 9))
        np.testing.assert_array_equal(read[0]["image"], np.asarray(crop))


@pytest.mark.parametrize("data_dir", [".", "images", "images/deeper"])
def test_output_inside_of_input_is_refused(data_dir, tmp_path, rng, capsys):
    files = {"a.png": encode(random_images(rng, 1, 8, 8)[0])}
    source = write_files(tmp_path / "images", files)
    before = sorted(tmp_path.rglob("*"))
    assert run("folder", source, tmp_path / data_dir) == EXIT_BAD_INPUT
    assert "--data_dir must lie apart from --source" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_printed_can_be_pasted(tmp_path, rng, capsys):
    files = {"a.png": encode(random_images(rng, 1, 8, 8)[0])}
    source = write_files(tmp_path / "my images", files)
    data_dir = tmp_path / "it's \u00e9"
    assert run("folder", source, data_dir, "--image_size=8") == EXIT_DONE
    flags = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert f"--config.data.data_dir={data_dir}" in flags


def test_progress_goes_to_stderr(tmp_path, rng, capsys):
    write_svhn(tmp_path, rng, ("train", "test"))
    run("svhn", tmp_path, tmp_path)
    assert "image 11/11" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["omniglot", "--source=x"], "Unknown data set 'omniglot'. Available: cel"),
        (["cifar10", "--sorce=x"], "unrecognized arguments: --sorce"),
        (["cifar10", "--source=/nowhere"], "cifar-10-binary.tar.gz or the folder"),
        (["cifar10", "--data_dir=gs://b"], "prepared on a local disk: copy"),
        (["imagenet64", "--transform=area"], "needs ImageNet's own images"),
        (["folder"], "folder needs --source"),
        (["folder", "--channels=2"], "--channels must be 1 or 3, got 2"),
        (["folder", "--image_size=0"], "--image_size must be from 1 to 4096, or two"),
        (["folder", "--image_size=8,9,7"], "(rows, columns), got 8,9,7"),
        (["folder", "--test_share=0.6"], "--test_share must be from 0 to 0.5, got 0.6"),
        (["folder", "--name=a/b"], "letters, digits, _ and -, as files"),
        (["folder", "--num_workers=-1"], "must not be negative, got -1"),
        (["celeba64", "--image_size=x"], "--image_size must be from 1 to 4096"),
    ],
)
def test_bad_options_end_with_one_line_and_their_code(arguments, message, capsys):
    assert main(arguments) == EXIT_BAD_INPUT
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_options_that_a_data_set_does_not_have_are_refused(tmp_path, rng, capsys):
    files, _ = cifar10_files(rng)
    source = write_files(tmp_path, files)
    for option, message in (
        ("--image_size=64", "are for folder, not cifar10"),
        ("--transform=area", "must be none, got area"),
    ):
        assert run("cifar10", source, tmp_path, option) == EXIT_BAD_INPUT
        assert message in capsys.readouterr().err


def test_help_is_the_programs_own_description(capsys):
    assert main(["--help"]) == EXIT_DONE
    assert "ILSVRC2012_img_train.tar" in capsys.readouterr().out

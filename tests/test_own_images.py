"""The road of docs/own_images.md: pictures in a folder to scores and a comparison."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from official_archives import encode, random_images, write_files

from dig_jax import load
from dig_jax.cli.command_line import parse
from dig_jax.cli.modes import MODES
from dig_jax.comparison import run as comparison_run
from dig_jax.comparison.measure import Speed
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from dig_jax.evaluation import read_records
from dig_jax.experiment import create_experiment
from dig_jax.from_data import choose_patch_size
from dig_jax.main import main
from dig_jax.prepare.command import main as prepare

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "own_images.md"
TINY = {
    "backbone.width": 16,
    "backbone.depth": 2,
    "backbone.hops": 1,
    "training.batch_size": 8,
    "training.num_steps": 2,
    "training.diversity_every": 0,
    "sample.num_steps": 2,
}
FLAGS = {
    "train": {
        **TINY,
        "training.samples_per_class": 1,
        "training.evaluate_every": 2,
        "training.evaluate_images": 16,
    },
    "sample": {"sample.num_images": 6},
    "compare": {
        **{f"base.{key}": value for key, value in TINY.items()},
        "base.sample.num_images": 16,
        "compare.num_points": 1,
        "compare.budget": "none",
    },
}


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(without_optimizations):
    """Every test here."""


@pytest.fixture(scope="module", autouse=True)
def no_stopwatch():
    """Speeds are not what is tested."""

    def measure(plan, workdir, say):
        speed = Speed(100.0, (90.0, 110.0), 2**20, 1.0)
        return {variant.name: speed for variant in plan.variants}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison_run, "measure_speeds", measure)
        yield


def write_pictures(folder, *names, number=20):
    """Pictures of 20 x 24 pixels in a folder for each class; "." for none."""
    images = iter(random_images(np.random.default_rng(0), number * len(names), 20, 24))
    return write_files(
        folder,
        {f"{n}/{i}.png": encode(next(images)) for n in names for i in range(number)},
    )


def commands(folder):
    """The documented commands, in a folder, with a configuration for tests."""
    for block in re.findall(r"```bash\n(.*?)```", DOCS.read_text(), re.DOTALL):
        words = shlex.split(block)
        assert words[:2] == ["python", "-m"]
        places = {"pictures": f"{folder}/pictures", "data": f"{folder}/data"}
        arguments = []
        for word in words[3:]:
            name, _, value = word.partition("=")
            value = places.get(value, value)
            value = value.replace("runs/", f"{folder}/runs/")
            arguments.append(f"{name}={value}" if value else name)
        mode = dict(a.partition("=")[::2] for a in arguments).get("--mode", "train")
        if words[2] == "dig_jax.main":
            changed = FLAGS[mode].items()
            arguments += [f"--config.{key}={value}" for key, value in changed]
        yield words[2], mode, arguments


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """The folder in which the documented commands were run, on three classes."""
    folder = tmp_path_factory.mktemp("road")
    write_pictures(folder / "pictures", "circle", "10", "square")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for module, mode, arguments in commands(folder):
            if module == "dig_jax.prepare":
                size = "--image_size=8,16"
                assert prepare([*arguments, size, "--num_workers=0"]) == EXIT_DONE
            else:
                assert main(arguments) == EXIT_DONE, mode
    return folder


def test_four_documented_commands_score_a_model_and_compare(road):
    assert len(list(commands(road))) == 4
    run = road / "runs" / "pictures"
    config = json.loads((run / "config.json").read_text())
    assert config["data"]["image_size"] == [8, 16]
    assert config["backbone"]["num_classes"] == 3
    assert config["data"]["title"] == "pictures"
    assert config["data"]["class_names"] == ["10", "circle", "square"]
    (record,) = read_records(run)
    assert record["real"]["dataset"] == "pictures"
    assert {"frechet_pixels", "fd_pictures16"} < set(record["scores"])
    assert (run / "best").is_dir()
    text = (road / "runs" / "compare_pictures" / "compare.md").read_text()
    assert text.startswith("# Comparison on pictures,")
    assert "| parallel |" in text
    assert "| uvit |" in text
    assert "| mix |" not in text


def test_labels_go_by_their_names(road, capsys):
    run = load(road / "runs" / "pictures")
    by_name = run.sample(2, labels="circle", seed=1)
    np.testing.assert_array_equal(by_name, run.sample(2, labels=1, seed=1))
    mixed = run.sample(2, labels=("square", 0), seed=1)
    np.testing.assert_array_equal(mixed, run.sample(2, labels="2,10", seed=1))
    with pytest.raises(InputError, match=r"10, circle, square.*'cirle'.*'circle'"):
        run.sample(2, labels="cirle")
    with np.load(road / "runs" / "pictures" / "samples.npz") as samples:
        assert samples["class_names"].tolist() == ["10", "circle", "square"]
        assert samples["labels"].tolist() == [0, 1, 2, 0, 1, 2]


def test_a_flat_folder_trains_and_names_files_that_exist(tmp_path, capsys):
    source, data = write_pictures(tmp_path / "flat", "."), tmp_path / "data"
    told = [f"--source={source}", f"--data_dir={data}", "--image_size=8"]
    assert prepare(["folder", *told, "--num_workers=0"]) == EXIT_DONE
    printed = shlex.split(capsys.readouterr().out.splitlines()[-1])
    flags = [f"--config.{key}={value}" for key, value in FLAGS["train"].items()]
    workdir = f"--workdir={tmp_path / 'run'}"
    # Everything that cannot be is said at once, and nothing is written.
    refused = [
        "--config.training.keep_best=label_accuracy",
        "--config.evaluation.features=classifier",
        "--config.sample.labels=3",
    ]
    assert main([*printed[3:-1], workdir, *flags, *refused]) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert "3 things cannot work" in said
    assert "needs images with two labels" in said
    assert "Available: frechet_pixels." in said
    assert not (tmp_path / "run").exists()
    assert main([*printed[3:-1], workdir, *flags]) == EXIT_DONE
    (record,) = read_records(tmp_path / "run")
    assert set(record["scores"]) == {"frechet_pixels", "copied_share"}
    for name in re.findall(r"\w+\.(?:png|jsonl)", capsys.readouterr().out):
        assert (tmp_path / "run" / name).exists(), name


def test_several_ways_of_preparing_are_told_apart(tmp_path, capsys):
    source, data = write_pictures(tmp_path / "both", ".", number=12), tmp_path / "data"
    told = ["folder", f"--source={source}", f"--data_dir={data}", "--num_workers=0"]
    for size in ("--image_size=8", "--image_size=12"):
        assert prepare([*told, size]) == EXIT_DONE
    printed = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert "--config.data.image_size=12" in printed
    _, config, _ = parse(printed[3:], MODES)
    assert create_experiment(config).data.image_shape == (12, 12, 3)
    with pytest.raises(InputError, match=r"several ways.*8,8.*12,12|12,12.*8,8"):
        parse([w for w in printed[3:] if "config.data.image" not in w], MODES)
    few = [word for word in printed[3:] if "config.data.channels" not in word]
    with pytest.raises(InputError, match=r"has no such images\. Prepared there"):
        parse([*few, "--config.data.image_size=9"], MODES)
    pasted = r"none in it\. To prepare one:\n.* '--data_dir=.*/my own'"
    with pytest.raises(InputError, match=pasted):
        parse([*few, f"--config.data.data_dir={tmp_path}/my own"], MODES)


def test_a_comparison_is_refused_whole_and_leaves_nothing(tmp_path, capsys):
    source, data = write_pictures(tmp_path / "flat", "."), tmp_path / "data"
    told = ["folder", f"--source={source}", f"--data_dir={data}", "--test_share=0"]
    assert prepare([*told, "--image_size=8", "--num_workers=0"]) == EXIT_DONE
    capsys.readouterr()
    workdir = tmp_path / "compare"
    config = ROOT / "configs" / "compare_folder.py"
    flags = ["--mode=compare", f"--config={config}", f"--workdir={workdir}"]
    flags += [f"--config.base.data.data_dir={data}", "--config.compare.quality=fid"]
    assert main(flags) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert "2 things cannot work" in said
    assert "'parallel', 'dit', 'mix', 'uvit'" in said
    assert "losses on test images" in said
    assert "'fid' is no score of these runs. Available: copied_share, frech" in said
    assert not workdir.exists()
    assert main([*flags, "--variants=parallel,vit"]) == EXIT_BAD_INPUT
    assert "--variants must be different ones of dit, mix, parallel, uvit" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("sides", "patch"),
    [((64, 64), 4), ((32, 32), 2), ((8, 16), 2), ((8, 8), 2), ((50, 50), 5)],
)
def test_patches_fit_the_image(sides, patch):
    found = choose_patch_size(sides, doubled=True)
    assert found == patch
    assert all(side % (2 * found) == 0 for side in sides)
    assert 16 <= np.prod(sides) // found**2 <= 256


def test_a_prime_size_has_patches_too():
    assert choose_patch_size((17, 17), doubled=True) == 1

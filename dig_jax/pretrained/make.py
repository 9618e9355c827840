"""Make a model of the package from a trained run (for developers, in a checkout).

    python -m dig_jax.pretrained.make --name=digits --workdir=runs/digits \\
        --config=configs/digits.py [--data_dir=DIR] [--step=N] [--seeds=5] \\
        [--num_images=1000] [--out=FOLDER]

Draws and scores the run over seeds, as `--mode=evaluate` does, and goes on where it was
stopped. Then it writes dig_jax/pretrained/NAME: the averaged (EMA) parameters in
float32, configuration, card, picture, the classifier of the scores, their records. The
configuration must be the one that the run was trained with, and the code of a training
step the one that trained it: what the card says how to train is what was trained.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dig_jax.config import load_config_file, save_run_config, with_values
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from dig_jax.evaluation import append_record
from dig_jax.evaluation.score_run import create_evaluator, score_run
from dig_jax.experiment import check_same_run
from dig_jax.files.paths import write_whole
from dig_jax.files.pretrained import FOLDER
from dig_jax.files.shown import say
from dig_jax.pretrained import CLASSIFIER
from dig_jax.pretrained.card import pretrained_card
from dig_jax.reporting.images import write_png
from dig_jax.run import Run, load
from dig_jax.sampling.grid import sample_grid
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.storage.export_folder import (
    CONFIG,
    PARAMETERS,
    write_manifest,
    write_parameters,
)
from dig_jax.training.environment import CODE, COMPUTING_CODE, code_digest
from dig_jax.versions import package_versions

ROOT = FOLDER.parents[1]
CARD, PICTURE = "README.md", "examples.png"
DRAWN_BY_DEFAULT = 100
"""So that `--mode=sample` takes seconds."""
MACHINE = ("platform", "processor", "cores", "device", "mesh", "number of processes")
PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax")


def make_pretrained(
    name: str,
    run: Run,
    config_file: str,
    *,
    seeds: int,
    num_images: int,
    out: Path,
) -> str:
    """Score a run over seeds and write the folder of a model; returns what to say.

    Args:
        name: What comes after `pretrained:`.
        run: From a workdir that it was trained in.
        config_file: FILE.py[:VARIANT] that it was trained with, from the checkout.
        seeds: How many seeds are drawn and scored, from 0 on; at least two.
        num_images: How many are drawn of each.
        out: The folder, which is replaced.

    Raises:
        InputError: The run was trained with another configuration, or by other code
            than this; or too few seeds.
    """
    if seeds < 2:
        raise InputError(f"A deviation needs at least two seeds, got {seeds}.")
    assert run.workdir is not None
    written = load_config_file(config_file)
    check_same_run(run.config, written, run.workdir)
    training = describe_training(run, config_file)
    evaluator = create_evaluator(run.experiment)
    options = replace(run.experiment.sample, num_images=num_images)
    records = score_run(
        run.drawing(options), evaluator, run.workdir, seeds=range(seeds)
    )
    assert evaluator.features is not None, "scored without a classifier"
    data = run.experiment.data
    shipped = with_values(
        written,
        {
            "data.title": data.title,
            "data.class_names": data.class_names,
            "sample.num_images": DRAWN_BY_DEFAULT,
        },
    )
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        shutil.copyfile(evaluator.features.classifier_file, folder / CLASSIFIER)
        _write_model(folder, name, run, shipped, training, records)
        if out.exists():
            shutil.rmtree(out)
        shutil.copytree(folder, out)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return f"Wrote {out}: pretrained:{name}, {size / 1e6:.2f} MB."


def _write_model(
    folder: Path,
    name: str,
    run: Run,
    config: ConfigDict,
    training: Mapping[str, Any],
    records: Sequence[dict[str, Any]],
) -> None:
    """Write all of a model's files, the manifest last."""
    write_parameters(folder, run.params)
    save_run_config(config, folder)
    for record in records:
        append_record(folder, record)
    classes = max(run.experiment.backbone.num_classes, 1)
    count = 10 * classes
    labels = np.arange(count) % classes
    images = run.sample(count)
    names = run.experiment.data.class_names
    write_png(folder / PICTURE, sample_grid(images, labels, class_names=names))
    card = pretrained_card(name, run, training, records[-1], picture=PICTURE)
    write_whole(folder / CARD, card)
    backbone = run.experiment.backbone
    record = {
        "image_shape": backbone.image_shape,
        "num_classes": backbone.num_classes,
        "class_names": names,
        "step": run.step,
        "sigma_rel": run.sigma_rel,
        "init_from": run.init_from,
        "training": training,
        "parameters_digest": run.parameters_digest,
        "versions": package_versions(),
    }
    write_manifest(folder, [PARAMETERS, CONFIG, CARD, PICTURE, CLASSIFIER], record)


def describe_training(run: Run, config_file: str) -> dict[str, Any]:
    """How a run was trained, from its checkpoint and this checkout.

    Raises:
        InputError: Other code than this checkout's trained it, or that code is not
            committed.
    """
    assert run.workdir is not None
    with Checkpoints(run.workdir / "checkpoints", read_only=True) as checkpoints:
        meta = checkpoints.read_meta(run.step)
    environment, here = meta["environment"], code_digest()
    if environment[CODE] != here:
        raise InputError(
            f"{run.workdir} was trained by code with the digest {environment[CODE]}, "
            f"and this checkout's is {here}: check out the commit that trained it, or "
            "train again."
        )
    return {
        "config": config_file,
        "commit": _find_commit(config_file),
        "code": here,
        "seed": run.experiment.seed,
        "steps": run.step,
        "of_steps": run.experiment.training.num_steps,
        "batch_size": run.experiment.training.batch_size,
        "ema_decay": run.experiment.training.ema_decay,
        "data": meta["data"],
        "machine": {key: environment[key] for key in MACHINE if environment.get(key)},
        "versions": {key: environment[key] for key in PACKAGES},
    }


def _find_commit(config_file: str) -> str:
    """The newest commit that changed what a training with a configuration computes.

    Raises:
        InputError: Some of that is not committed, or this is no checkout.
    """
    paths = [f"dig_jax/{path}" for path in COMPUTING_CODE]
    paths.append(config_file.partition(":")[0])
    if changed := _git("status", "--porcelain", "--", *paths):
        raise InputError(
            f"What a training computes is not committed: {' '.join(changed.split())}."
        )
    return _git("log", "-1", "--format=%H", "--", *paths)


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(f"A checkout is needed, as for its commit: {done.stderr}")
    return done.stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dig_jax.pretrained.make",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--name", required=True)
    parser.add_argument("--workdir", required=True, metavar="RUN")
    parser.add_argument("--config", required=True, metavar="FILE.py[:VARIANT]")
    parser.add_argument("--data_dir", metavar="DIR", help="where the data set is now")
    parser.add_argument("--step", type=int, metavar="N", help="default: the newest")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--num_images", type=int, default=1000, metavar="N")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="default: dig_jax/pretrained/NAME"
    )
    options = parser.parse_args(arguments)
    try:
        run = _load(options.workdir, options.step, options.data_dir)
        said = make_pretrained(
            options.name,
            run,
            options.config,
            seeds=options.seeds,
            num_images=options.num_images,
            out=options.out or FOLDER / options.name,
        )
    except InputError as error:
        say(f"error: {error}", error=True)
        return EXIT_BAD_INPUT
    say(said)
    return EXIT_DONE


def _load(workdir: str, step: int | None, data_dir: str | None) -> Run:
    """A run, with its data set where it is now."""
    run = load(workdir, step=step)
    if data_dir is None:
        return run
    config = with_values(run.config, {"data.data_dir": data_dir})
    return load(workdir, step=run.step, config=config)


if __name__ == "__main__":
    sys.exit(main())

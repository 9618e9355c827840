"""What a training left, read from its workdir or an export: the parameters to use."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
from ml_collections import ConfigDict

from dig_jax.config import config_of
from dig_jax.devices.sharding import replicated
from dig_jax.errors import InputError
from dig_jax.experiment import (
    Experiment,
    check_run_keys,
    check_same_run,
    create_experiment,
)
from dig_jax.files.paths import BEST, AnyPath, open_workdir
from dig_jax.interfaces import Params
from dig_jax.options import SampleOptions
from dig_jax.sampling.guided import Guide
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.storage.export_folder import is_export, read_manifest, read_parameters
from dig_jax.storage.posthoc_ema import solve_posthoc_ema
from dig_jax.storage.run_config import restore_run_config


class Trained(NamedTuple):
    """The attributes of a `Run`, in its order."""

    experiment: Experiment
    params: Params
    step: int
    mesh: jax.sharding.Mesh
    sigma_rel: float | None
    workdir: AnyPath
    init_from: Mapping[str, Any] | None = None


def load_trained(
    workdir: AnyPath,
    *,
    step: int | Literal["best"] | None = None,
    config: ConfigDict | None = None,
    sigma_rel: float | None = None,
) -> Trained:
    """Read what `load` makes a `Run` of; its arguments and errors are the same."""
    manifest = read_manifest(workdir) if is_export(workdir) else None
    saved = restore_run_config(workdir, write=False)
    check_run_keys(saved, workdir)
    if config is not None:
        check_same_run(saved, config, workdir)
    experiment = create_experiment(saved if config is None else config)
    if sigma_rel is None:
        sigma_rel = experiment.sample.sigma_rel
    mesh = experiment.mesh
    abstract = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=replicated(mesh)),
        jax.eval_shape(experiment.backbone.init, jax.random.key(0)),
    )
    if manifest is not None:
        params, found = read_parameters(
            workdir, manifest, abstract, step=step, sigma_rel=sigma_rel
        )
        begun = manifest.get("init_from")
        return Trained(experiment, params, found, mesh, sigma_rel, workdir, begun)
    if sigma_rel is not None:
        if step == "best":
            raise InputError(
                "The best checkpoint was chosen with the average that the run kept: "
                "leave sigma_rel out, or name its step."
            )
        made = solve_posthoc_ema(workdir, abstract, sigma_rel, step)
        return Trained(experiment, made.params, made.step, mesh, sigma_rel, workdir)
    folder, step = _choose_checkpoint(workdir, step)
    with Checkpoints(folder, read_only=True) as checkpoints:
        meta = checkpoints.read_meta(step)
        if isinstance(meta.get("config"), dict):
            check_same_run(config_of(meta["config"]), experiment.config, workdir)
        params, found, meta = checkpoints.restore_ema(abstract, step)
    begun = meta.get("init_from")
    return Trained(experiment, params, found, mesh, None, workdir, begun)


def _choose_checkpoint(
    workdir: AnyPath, step: int | Literal["best"] | None
) -> tuple[AnyPath, int | None]:
    """The folder of a run's checkpoints, or of the best one, and the step in it.

    Raises:
        InputError: The best one is asked for, and there is none.
    """
    if step != "best":
        return workdir / "checkpoints", step
    if not (workdir / BEST).is_dir():
        raise InputError(
            f"{workdir} has no best checkpoint: train with training.keep_best and "
            "training.evaluate_every, or name a step."
        )
    return workdir / BEST, None


def load_guide(experiment: Experiment, options: SampleOptions) -> Guide:
    """The network that `options.guide` names, to guide the experiment's own.

    Raises:
        InputError: There is no such run or step, or it was trained on other images,
            labels, noise or targets.
    """
    run = load_trained(open_workdir(options.guide), step=options.guide_step)
    mine, other = experiment, run.experiment
    for what, here, there in (
        ("images", mine.backbone.image_shape, other.backbone.image_shape),
        ("num_classes", mine.backbone.num_classes, other.backbone.num_classes),
        ("sde", mine.sde, other.sde),
        ("prediction", mine.objective.prediction, other.objective.prediction),
    ):
        if here != there:
            raise InputError(
                f"A guide must be of the guided network's {what}, which is {here}; the "
                f"run in {options.guide} has {there}."
            )
    same = mine.backbone_options == other.backbone_options
    return Guide(run.params, None if same else other.backbone, run.step)

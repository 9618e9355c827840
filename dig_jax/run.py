"""A trained run: open its workdir, draw images with it."""

import hashlib
import json
from typing import Any, Literal, NamedTuple

import jax
from ml_collections import ConfigDict

from dig_jax.config import load_run_config
from dig_jax.devices.sharding import replicated
from dig_jax.errors import InputError
from dig_jax.experiment import Experiment, check_same_run, create_experiment
from dig_jax.files.paths import AnyPath, open_workdir
from dig_jax.interfaces import Params, UInt8Images
from dig_jax.keys import call_with_section
from dig_jax.options import SampleOptions
from dig_jax.sampling.label_rules import LabelRule
from dig_jax.sampling.sampler import (
    Guide,
    Sampler,
    check_sample_options,
)
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.storage.export_folder import is_export, read_manifest, read_parameters
from dig_jax.storage.fingerprint import fingerprints, named_leaves
from dig_jax.storage.posthoc_ema import solve_posthoc_ema
from dig_jax.training.storage import BEST


class Run(NamedTuple):
    """A trained run; `load` opens one.

    Attributes:
        experiment: Configuration, backbone, SDE.
        params: The averaged (EMA) parameters.
        step: Number of training steps behind them.
        mesh: The devices it draws on.
        sigma_rel: Relative width of the average, where it was made after training.
        workdir: Where it was opened.
    """

    experiment: Experiment
    params: Params
    step: int
    mesh: jax.sharding.Mesh
    sigma_rel: float | None = None
    workdir: AnyPath | None = None

    @property
    def config(self) -> ConfigDict:
        """The configuration it was trained with."""
        return self.experiment.config

    @property
    def parameters_digest(self) -> str:
        """16 hex digits of the parameters' bits, whatever devices they are on."""
        text = json.dumps(fingerprints(named_leaves(self.params)), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def sample(
        self,
        num_images: int = 1,
        *,
        labels: LabelRule = "balanced",
        seed: int = 0,
        **options: Any,
    ) -> UInt8Images:
        """Draw images, [num_images, row, col, rgb].

        Args:
            num_images: How many.
            labels: "balanced", one label or class name, or a tuple of them to go
                through in turn. A text is a class name where there is one of it, else
                a label in digits; a whole number is a label.
            seed: The same seed gives the same images.
            **options: Other attributes of `SampleOptions`; the run's own by default.

        Raises:
            InputError: An option or a label that does not exist.
        """
        section = {
            **self.experiment.section("sample"),
            **options,
            "num_images": num_images,
            "labels": labels if isinstance(labels, str | int) else tuple(labels),
            "seed": seed,
            "sigma_rel": self.sigma_rel,
        }
        checked = call_with_section("sample", SampleOptions, section)
        return self.sampler(checked).draw(self.params)

    def sampler(self, options: SampleOptions | None = None) -> Sampler:
        """What draws this run's images; the options are the run's own by default."""
        if options is None:
            options = self.experiment.sample
        check_sample_options(self.experiment, options)
        if options.sigma_rel != self.sigma_rel:
            raise InputError(
                f"This run was loaded with sigma_rel={self.sigma_rel}, and cannot draw "
                f"with sigma_rel={options.sigma_rel}: load it with that."
            )
        guide = load_guide(self.experiment, options) if options.guide else None
        return Sampler(self.experiment, options, self.mesh, guide)


def load(
    workdir: str | AnyPath,
    *,
    step: int | Literal["best"] | None = None,
    config: ConfigDict | None = None,
    sigma_rel: float | None = None,
) -> Run:
    """Open a trained run, or a folder that one was exported to.

    Args:
        workdir: Where it was trained, or the export: local, or gs://BUCKET/RUN.
        step: Which checkpoint, or with sigma_rel which snapshot; the newest by default.
            "best": the one that training.keep_best chose.
        config: Instead of the workdir's own: it may differ in ways to compute, to
            sample and to evaluate.
        sigma_rel: Relative width of the average of the parameters, 0.01 to 0.25, made
            now from the run's post-hoc EMA (arXiv:2312.02696); by default the
            configuration's, and without one the average that the run kept.

    Raises:
        InputError: No run, no finished checkpoint, or none of that step; or a
            configuration of another run; or a run without post-hoc EMA; or an export
            that is damaged or holds others.
    """
    workdir = open_workdir(workdir)
    manifest = read_manifest(workdir) if is_export(workdir) else None
    saved = load_run_config(workdir)
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
        return Run(experiment, params, found, mesh, sigma_rel, workdir)
    if sigma_rel is not None:
        if step == "best":
            raise InputError(
                "The best checkpoint was chosen with the average that the run kept: "
                "leave sigma_rel out, or name its step."
            )
        made = solve_posthoc_ema(workdir, abstract, sigma_rel, step)
        return Run(experiment, made.params, made.step, mesh, sigma_rel, workdir)
    folder = workdir / "checkpoints"
    if step == "best":
        folder, step = workdir / BEST, None
        if not folder.is_dir():
            raise InputError(
                f"{workdir} has no best checkpoint: train with training.keep_best and "
                "training.evaluate_every, or name a step."
            )
    with Checkpoints(folder, read_only=True) as checkpoints:
        params, found, _ = checkpoints.restore_ema(abstract, step)
    return Run(experiment, params, found, mesh, workdir=workdir)


def load_guide(experiment: Experiment, options: SampleOptions) -> Guide:
    """The network that `options.guide` names, to guide the experiment's own.

    Raises:
        InputError: There is no such run or step, or it was trained on other images,
            labels, noise or targets.
    """
    run = load(options.guide, step=options.guide_step)
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

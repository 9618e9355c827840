"""A trained run: open its workdir, draw images with it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
from absl import logging
from ml_collections import ConfigDict

from dig_jax.errors import InputError
from dig_jax.evaluation.score_run import choose_seeds, create_evaluator, score_run
from dig_jax.evaluation.told import tell_scores
from dig_jax.experiment import Experiment
from dig_jax.files.paths import AnyPath, open_out, open_workdir
from dig_jax.files.pretrained import place_for_outputs
from dig_jax.files.shown import say
from dig_jax.interfaces import Params, UInt8Images
from dig_jax.options import EvaluationOptions, SampleOptions
from dig_jax.options.keys import call_with_section
from dig_jax.sampling.choices import check_sample_options
from dig_jax.sampling.drawing import Drawing
from dig_jax.sampling.films import (
    Film,
    Picture,
    draw_between,
    draw_film,
    two_of,
    two_seeds,
)
from dig_jax.sampling.inpainting import (
    GivenImage,
    KnownPixels,
    check_inpainting,
    read_known,
)
from dig_jax.sampling.kept import KeptSamplers, draw_shown
from dig_jax.sampling.label_rules import LabelRule
from dig_jax.sampling.sampler import Sampler
from dig_jax.storage.fingerprint import digest_of
from dig_jax.trained import load_guide, load_trained


@dataclass(frozen=True, repr=False, eq=False)
class Run:
    """A trained run; `load` opens one.

    Attributes:
        experiment: Configuration, backbone, SDE.
        params: The averaged (EMA) parameters.
        step: Number of training steps behind them.
        mesh: The devices it draws on.
        sigma_rel: Relative width of the average, where it was made after training.
        workdir: Where it was opened.
        init_from: Where its first parameters were from, if from another run: its
            `workdir`, `step` and `parameters_digest`.
    """

    experiment: Experiment
    params: Params
    step: int
    mesh: jax.sharding.Mesh
    sigma_rel: float | None = None
    workdir: AnyPath | None = None
    init_from: Mapping[str, Any] | None = None
    _samplers: KeptSamplers = field(default_factory=KeptSamplers, init=False)

    def __repr__(self) -> str:
        name = self.experiment.backbone_options.name
        count = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        width = "" if self.sigma_rel is None else f", sigma_rel {self.sigma_rel}"
        where = "" if self.workdir is None else f", workdir {self.workdir}"
        size = f"{count / 1e6:.2f}M parameters"
        return f"<Run of {name}, {size}, step {self.step}{width}{where}>"

    @property
    def config(self) -> ConfigDict:
        """The configuration it was trained with."""
        return self.experiment.config

    @property
    def parameters_digest(self) -> str:
        """16 hex digits of the parameters' bits, whatever devices they are on."""
        return digest_of(self.params)

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
        chosen = self._drawn_with(num_images, labels, seed, options)
        return draw_shown(self.sampler(chosen), self.params)

    def show(
        self,
        num_images: int = 10,
        *,
        labels: LabelRule = "balanced",
        seed: int = 0,
        **options: Any,
    ) -> Picture:
        """Draw images as `sample` does, for a notebook to show.

        The arguments are those of `sample`.
        """
        chosen = self._drawn_with(num_images, labels, seed, options)
        sampler = self.sampler(chosen)
        images = draw_shown(sampler, self.params)
        return Picture(images, sampler.labels, sampler.class_names)

    def film(
        self,
        num_images: int = 10,
        *,
        labels: LabelRule = "balanced",
        seed: int = 0,
        num_frames: int | None = None,
        estimates: bool = False,
        **options: Any,
    ) -> Film:
        """The images of `sample` while they are drawn, for a notebook to show.

        The last frame is what `sample` gives. The arguments are those of `sample` and,
        for what is shown on the way, of `draw_film`.
        """
        sampler = self._one_group(num_images, labels, seed, options)
        shown = (self.experiment, sampler, self.params)
        return draw_film(*shown, num_frames=num_frames, estimates=estimates)

    def interpolate(
        self,
        num_images: int = 9,
        *,
        labels: LabelRule | None = None,
        seeds: int | tuple[int, int] = (0, 1),
        **options: Any,
    ) -> Picture:
        """Images from one noise to another, from one class to another, or both.

        At both ends are the first images of `sample` with that label and seed; what is
        between them says `draw_between`.

        Args:
            num_images: How many, both ends included.
            labels: One or two, from and to; the first label by default.
            seeds: One for the same noise throughout, or two, from and to.
            **options: Other attributes of `SampleOptions`; the run's own by default.

        Raises:
            InputError: An option, a label or a seed that does not exist.
        """
        if labels is None:
            labels = 0 if self.experiment.backbone.num_classes else "balanced"
        ends = labels if labels == "balanced" else two_of("labels", labels)
        chosen = two_seeds(seeds)
        sampler = self._one_group(num_images, ends, chosen[0], options)
        return draw_between(self.experiment, sampler, self.params, chosen)

    def inpaint(
        self,
        image: GivenImage,
        mask: GivenImage,
        num_images: int = 1,
        *,
        labels: LabelRule = "balanced",
        seed: int = 0,
        **options: Any,
    ) -> UInt8Images:
        """Draw an image's unknown pixels, [num_images, row, col, rgb]; keep the others.

        Args:
            image: uint8 [row, col, rgb], or [row, col] of grey, or a file.
            mask: [row, col], or a file: white (True, or 128 and more; 1, of 0 and 1)
                where to draw, black where the image is kept as it is.
            num_images: How many completions.
            labels: As of `sample`: "balanced" draws for each class in turn.
            seed: The same seed gives the same images.
            **options: Other attributes of `SampleOptions`, as in inpaint="repaint"; the
                run's own by default.

        Raises:
            InputError: An image or a mask that does not fit, an option or a label that
                does not exist, a solver that cannot, or a run on latents.
        """
        known = read_known(image, mask, self.experiment.data)
        chosen = self._drawn_with(num_images, labels, seed, options)
        return draw_shown(self.sampler(chosen, known), self.params)

    def evaluate(
        self,
        num_images: int | None = None,
        *,
        seeds: int | Sequence[int] = 1,
        metrics: Sequence[str] | None = None,
        sample: Mapping[str, Any] | None = None,
        keep: bool = True,
        out: str | AnyPath | None = None,
        silent: bool = True,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Score this run's images against its data set, as --mode=evaluate does.

        Args:
            num_images: How many are drawn; the configuration's number by default.
            seeds: How many, from sample.seed on; or which.
            metrics: Entries of METRICS; the configuration's own by default.
            sample: Other attributes of `SampleOptions`, as in {"solver": "ddim"}.
            keep: Whether images and records are kept in the workdir's eval/, so that a
                killed evaluation goes on, and the scores go where the configuration's
                logging.writers say; otherwise nothing is written.
            out: A folder in place of the workdir, as for one that cannot be written; of
                a model of the package, that is pretrained_NAME in the current folder.
            silent: Whether nothing is printed.
            **options: Other attributes of `EvaluationOptions`, as in features="none".

        Returns:
            A record of each seed as in eval/scores.jsonl, and then, of several, that of
            their mean and deviation: the last one is what to quote.

        Raises:
            InputError: An option that does not exist, images that cannot be scored, or
                another process that evaluates in this folder.
        """
        count = {} if num_images is None else {"num_images": num_images}
        chosen = {} if metrics is None else {"metrics": tuple(metrics)}
        section = self.experiment.section("evaluation") | chosen | options
        scored = call_with_section("evaluation", EvaluationOptions, section)
        drawn = self._sample_options({**(sample or {}), **count})
        folder = self.workdir and place_for_outputs(self.workdir)
        folder = folder if out is None else open_out(out)
        folder = folder if keep else None
        records = score_run(
            self.drawing(drawn),
            create_evaluator(self.experiment, scored, silent=silent),
            folder,
            seeds=choose_seeds(seeds, drawn.seed),
            silent=silent,
        )
        if folder is not None:
            told = logging.info if silent else say
            tell_scores(self.experiment, records[-1], folder, told)
        return records

    def _drawn_with(
        self, num_images: int, labels: LabelRule, seed: int, options: Mapping[str, Any]
    ) -> SampleOptions:
        """How that many images are drawn."""
        if not isinstance(labels, str | Iterable | int):
            raise InputError(
                "labels must be a label, a class name, several of either, or one of "
                f"balanced, uniform and training, got {labels!r}."
            )
        labels = labels if isinstance(labels, str | int) else tuple(labels)
        given = {"num_images": num_images, "labels": labels, "seed": seed}
        return self._sample_options({**options, **given})

    def _one_group(self, *given: Any) -> Sampler:
        """A sampler whose batches are the smallest: one program for any number."""
        return self.sampler(replace(self._drawn_with(*given), batch_size=1))

    def _sample_options(self, options: Mapping[str, Any]) -> SampleOptions:
        """The run's own, but for some."""
        section = {
            **self.experiment.section("sample"),
            **options,
            "sigma_rel": self.sigma_rel,
        }
        return call_with_section("sample", SampleOptions, section)

    def drawing(
        self, options: SampleOptions | None = None, known: KnownPixels | None = None
    ) -> Drawing:
        """What draws this run's images and says all that they depend on."""
        return Drawing(
            self.experiment,
            self.sampler(options, known),
            self.params,
            self.step,
            self.parameters_digest,
        )

    def sampler(
        self, options: SampleOptions | None = None, known: KnownPixels | None = None
    ) -> Sampler:
        """What draws this run's images; the options are the run's own by default.

        Samplers of one program, which other seeds, labels and numbers of images up to
        a batch share, are compiled once; the newest few are kept.
        """
        if options is None:
            options = self.experiment.sample
        check_sample_options(self.experiment, options)
        if known is not None:
            check_inpainting(options, self.experiment.sde)
        if options.sigma_rel != self.sigma_rel:
            raise InputError(
                f"This run was loaded with sigma_rel={self.sigma_rel}, and cannot draw "
                f"with sigma_rel={options.sigma_rel}: load it with that."
            )

        def make() -> Sampler:
            guide = load_guide(self.experiment, options) if options.guide else None
            return Sampler(self.experiment, options, self.mesh, guide)

        return self._samplers.find_or_make(options, self.mesh, make, known)


def load(
    workdir: str | AnyPath,
    *,
    step: int | Literal["best"] | None = None,
    config: ConfigDict | None = None,
    sigma_rel: float | None = None,
) -> Run:
    """Open a trained run, or a folder that one was exported to.

    Args:
        workdir: Where it was trained, or the export: local, or gs://BUCKET/RUN; or
            pretrained:NAME, a model that comes with the package.
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
    given = {"step": step, "config": config, "sigma_rel": sigma_rel}
    return Run(*load_trained(open_workdir(workdir), **given))

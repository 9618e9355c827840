"""The sections of a configuration that say how images are drawn and scored."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from dig_jax.options.keys import drawing, harmless, inpainting
from dig_jax.options.limits import BatchSize, ImageCount, SolverSteps
from dig_jax.options.words import Words

Network: TypeAlias = Literal["inception", "classifier"]
Resize: TypeAlias = Literal["tf1", "torch"]


@dataclass(frozen=True)
class SampleOptions:
    """How images are drawn."""

    solver: str = drawing(
        "euler_maruyama", "What takes images out of the noise, step by step."
    )
    num_steps: SolverSteps = drawing(
        1000, "Steps of the solver; for dpm_solver the evaluations of the network."
    )
    order: Literal[1, 2, 3] | None = drawing(
        None,
        "Highest order of a step, for solvers that have several; None for the solver's "
        "own.",
    )
    eta: float | None = drawing(
        None, "Share of new noise, for solvers that may have some; None for their own."
    )
    churn: NonNegativeFloat | None = drawing(
        None, "Noise that heun adds on the way and takes away again (EDM's S_churn)."
    )
    churn_interval: tuple[float, float] | None = drawing(
        None, "(least, greatest) sigma / alpha to do so at; None for heun's own."
    )
    churn_noise: float | None = drawing(
        None, "Standard deviation of that noise (EDM's S_noise); None for heun's own."
    )
    variance: Literal["posterior", "learned"] | None = drawing(
        None,
        "Of ancestral's steps: that of DDPM's posterior, or as the network has learned "
        "it (backbone.learned_variance); None for posterior.",
    )
    integrand: Literal["eps", "x0"] | None = drawing(
        None,
        "What dpm_solver integrates: estimates of the noise, or of the image "
        "(DPM-Solver++); None for eps.",
    )
    inner_times: Literal["logsnr", "uniform"] | None = drawing(
        None,
        "What dpm_solver places the evaluations within a step by; None for logsnr. "
        "With uniform the grid spaces evaluations, not steps.",
    )
    time_grid: str = drawing(
        "auto",
        "How the times of the solver's steps are spaced; auto for what suits it.",
    )
    t_start: float = drawing(1.0, "Time at which the solver starts.")
    t_end: float = drawing(1e-3, "Time at which it stops.")
    guidance: float = drawing(
        1.0, "Scale w of guidance, D_worse + w (D - D_worse); 1 for none."
    )
    guidance_interval: tuple[float, float] = drawing(
        (0.0, 1.0), "(least, greatest) time at which to guide."
    )
    guidance_schedule: Literal["constant", "power_cosine"] = drawing(
        "constant", "constant or power_cosine."
    )
    guidance_power: PositiveFloat = drawing(4.0, "Exponent of power_cosine.")
    guidance_offset: float = drawing(
        0.0,
        "Taken off the time in power_cosine: 0.001 for networks whose 1,000 steps "
        "count from 0.",
    )
    guidance_channels: PositiveInt | None = drawing(
        None,
        "How many channels are guided, the first ones (3 in the code of DiT and "
        "DiffiT, also of latents); None for all.",
    )
    guide: str = drawing(
        "",
        "Workdir of a worse run to guide by (autoguidance); '' to guide by this "
        "network without labels.",
    )
    guide_step: NonNegativeInt | None = drawing(
        None, "The guide's checkpoint; None for its newest."
    )
    sigma_rel: PositiveFloat | None = drawing(
        None,
        "Relative width of the average of the parameters, made after training from a "
        "run's post-hoc EMA; None for the average that the run kept.",
    )
    inpaint: Literal["moments", "repaint"] = inpainting(
        "moments",
        "How unknown pixels are drawn (--known and --mask, or run.inpaint): by the "
        "denoiser given the known ones, from its first two moments (moments; with "
        "every solver), or by putting the known ones into each step, with jumps back "
        "(repaint; ancestral, ddim, euler_maruyama and ode_euler).",
    )
    inpaint_iterations: PositiveInt = inpainting(
        4, "Of moments: derivatives of the network in each evaluation of it."
    )
    inpaint_jump: PositiveInt = inpainting(
        10, "Of repaint: how many steps a jump goes back."
    )
    inpaint_resamplings: PositiveInt = inpainting(
        10, "Of repaint: how often each stretch of a jump is drawn; 1 for no jumps."
    )
    num_images: ImageCount = harmless(
        100, "How many to draw; fewer are the first of more."
    )
    labels: str | int | tuple[int | str, ...] = drawing(
        "balanced",
        "balanced (each class in turn), uniform (at random), training (at random, as "
        "often as among the training images), one label or class name, or several to "
        "go through in turn: a tuple, or text such as 0,3,5 or cat,dog. Text is a "
        "class name where there is one of it, and else a label in digits.",
    )
    seed: NonNegativeInt = drawing(0, "The same seed gives the same images.")
    batch_size: BatchSize = harmless(
        64, "Images in one call of the device; changes no image."
    )
    decode_batch: PositiveInt = harmless(
        8, "Latents that each device decodes at a time, as memory allows."
    )
    keep_latents: bool = harmless(
        False, "Whether --mode=sample writes latents.npz beside the decoded samples."
    )


@dataclass(frozen=True)
class EvaluationOptions:
    """What images are scored by."""

    metrics: Words | None = harmless(
        None, "Scores from pixels, by name; None for all of them."
    )
    features: Literal["auto", "inception", "classifier", "none"] = harmless(
        "auto",
        "Network whose features are compared: inception, classifier (a small one, "
        "trained on the data set itself), none, or auto: Inception where its weights "
        "are named, else the classifier where images have labels.",
    )
    inception_weights: str = harmless("", "File of Inception's weights.")
    resize: Resize = harmless(
        "tf1",
        "How images become Inception's input: tf1 as the published scores, or torch.",
    )
    reference: str = harmless(
        "",
        "File of reference statistics, of this program, pytorch-fid or the ADM "
        "evaluator; '' for those of the data set itself, made when they are missing.",
    )
    reference_split: str = harmless("train", "Of which part of the data set.")
    num_held: NonNegativeInt = harmless(
        10_000, "Images whose features are kept, for KID, precision and recall."
    )
    allow_few_images: bool = harmless(
        False,
        "Score sets with fewer images than features; Frechet distances are then biased "
        "upwards by much.",
    )
    allow_other_reference: bool = harmless(
        False, "Use statistics of other images, weights or resizing."
    )
    cache_dir: str = harmless(
        "",
        "Where statistics and the classifier are kept; '' for a folder beside the data "
        "set.",
    )

    def choose_network(self, num_classes: int) -> Network | None:
        """The network that features come from; None for none.

        Args:
            num_classes: Labels of the data set.
        """
        if self.features == "auto":
            if self.inception_weights:
                return "inception"
            return "classifier" if num_classes > 1 else None
        return None if self.features == "none" else self.features

"""The sections of a configuration that say what a run is and how it is trained."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Annotated, Any, Literal, TypeAlias, get_args

import numpy as np
from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from dig_jax.errors import InputError
from dig_jax.options.keys import harmless, learning, network, rounding_step
from dig_jax.options.limits import BatchSize, ImageCount, ImageSize
from dig_jax.options.words import split_words

GradientDType: TypeAlias = Literal["float32", "bfloat16"]
CoarseTargets: TypeAlias = Literal["unit_variance", "average"]
LossSpace: TypeAlias = Literal["eps", "x0", "v", "flow", "edm", "min_snr"]
Prediction: TypeAlias = Literal["eps", "x0", "v", "flow", "edm"]
ScaleWeights: TypeAlias = Literal["area", "finest"]
TimeSampling: TypeAlias = Literal[
    "uniform", "steps", "stratified", "log_normal", "logit_normal"
]


Writers: TypeAlias = Annotated[
    tuple[Literal["tensorboard", "wandb"], ...], BeforeValidator(split_words)
]


@dataclass(frozen=True)
class NamedOptions:
    """A section whose keys depend on the name in it: backbone and sde.

    Attributes:
        keywords: All of the named constructor's keys, checked.
    """

    name: str = network(
        MISSING, "Which of those that are listed; the other keys are what it takes."
    )
    keywords: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataOptions:
    """The images, and how they are read.

    Attributes:
        keywords: All further keys of the data set's own constructor, checked.
    """

    name: str = network(MISSING, "Which data set.")
    image_size: ImageSize = network(
        MISSING, "Side, or (rows, cols), in pixels; a data set may have its own."
    )
    channels: Literal[1, 3, 4] = network(
        3, "1 or 3, or 4 for latents; a data set may have its own."
    )
    data_dir: str = harmless("", "Where the data set is kept; TFDS's folder for ''.")
    random_flip: bool = learning(
        False, "Mirror each training image left to right with probability 1/2."
    )
    num_threads: NonNegativeInt = harmless(4, "Threads that read ahead.")
    num_workers: NonNegativeInt = harmless(0, "Processes that read ahead; 0 for none.")
    autoencoder: str = harmless(
        "",
        "Where images are latents, the file of the autoencoder that decodes them "
        "(python -m dig_jax.interop.convert --autoencoder).",
    )
    latent_scale: PositiveFloat = network(
        0.18215, "What the autoencoder's latents are multiplied by."
    )
    max_damaged_share: Annotated[float, Field(ge=0, le=1)] = harmless(
        0.001,
        "Share of a split's records that may be damaged: they are named, and the next "
        "ones taken instead.",
    )
    title: str = harmless(
        "",
        "What scores call the data set, if not by its name; training writes it down.",
    )
    class_names: tuple[str, ...] = harmless(
        (),
        "A name for each label, if not the label in digits; training writes it down.",
    )
    keywords: Mapping[str, Any] = field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(row, col, rgb)."""
        size = self.image_size
        rows, cols = (size, size) if isinstance(size, int) else size
        return rows, cols, self.channels

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(row, col, byte) of a record: that of its image, or of a latent's moments."""
        moments = self.keywords.get("moments")
        if moments is None:
            return self.image_shape
        rows, cols, channels = self.image_shape
        return rows, cols, 4 * channels * np.dtype(moments).itemsize


@dataclass(frozen=True)
class Objective:
    """What is learned, and how its error is measured; the two are free of each other.

    Below sigma_tilde = sigma / alpha is the noise of an image scaled back to its size.
    """

    prediction: Prediction = network(
        "eps",
        "What the network predicts: the noise eps; the image x0; v = alpha eps - sigma "
        "x0 (arXiv:2202.00512); the velocity eps - x0 of a straight path "
        "(arXiv:2210.02747); or EDM's F around a scaled x_t (arXiv:2206.00364, Eq. 7), "
        "the only one whose input is scaled.",
    )
    loss_space: LossSpace = learning(
        "eps",
        "What the squared error is measured in: one of those, or min_snr, the error in "
        "x0 times min(SNR, min_snr_gamma) (arXiv:2303.09556). L_simple is that of eps.",
    )
    times: TimeSampling = learning(
        "uniform",
        "uniform; steps: one of 1/1000, 2/1000, ..., 1, as chains of 1,000 steps are "
        "trained; stratified: one in each of as many intervals as there are images; "
        "log_normal: log(sigma_tilde) is normal, as in EDM; logit_normal: log(t / (1 - "
        "t)) is standard normal (arXiv:2403.03206), which on the straight path is "
        "log_normal with mean 0 and deviation 1.",
    )
    label_dropout: Annotated[float, Field(ge=0, lt=1)] = network(
        0.0,
        "Probability that an image is shown without its label, so that the network "
        "also learns to do without, as guidance needs.",
    )
    min_snr_gamma: PositiveFloat = learning(5.0, "Greatest weight of min_snr.")
    sigma_data: PositiveFloat = network(
        0.5, "Standard deviation of the pixels, for the edm prediction and space."
    )
    log_sigma_mean: float = learning(
        -1.2, "Mean of log(sigma_tilde) for log_normal times."
    )
    log_sigma_std: PositiveFloat = learning(1.2, "Its standard deviation.")
    variance_loss: NonNegativeFloat = learning(
        0.0,
        "Weight of L_vlb, by which a network with learned_variance learns the variance "
        "of ancestral's steps (arXiv:2102.09672, Eq. 16: 0.001); 0 leaves its channels "
        "alone. With times=steps and sde.name=vp_discrete of 1,000 steps.",
    )
    scale_weights: ScaleWeights = learning(
        "area",
        "How the errors of a network with predictions by scale are added up: each by "
        "its number of pixels over the image's (area), or that of the finest alone "
        "(finest). DiMR, arXiv:2406.09416, Sec. 4.1 and Table 2.",
    )
    coarse_targets: CoarseTargets = learning(
        "unit_variance",
        "What a coarser prediction should be: the target's sum over k x k pixels "
        "divided by k, which leaves noise at unit variance, or their average (Eq. 8 as "
        "printed).",
    )

    def __post_init__(self) -> None:
        _check_choice("prediction", self.prediction, get_args(Prediction))
        _check_choice("loss_space", self.loss_space, get_args(LossSpace))
        _check_choice("times", self.times, get_args(TimeSampling))
        _check_choice("scale_weights", self.scale_weights, get_args(ScaleWeights))
        _check_choice("coarse_targets", self.coarse_targets, get_args(CoarseTargets))
        if not 0 <= self.label_dropout < 1:
            raise InputError(
                f"label_dropout must be in [0, 1): without any label nothing "
                f"conditional is learned; got {self.label_dropout}."
            )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(
            f"Unknown {name} {value!r}. Available: {', '.join(sorted(choices))}."
        )


@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW, its learning rate along the run, and the clipping of gradients."""

    learning_rate: PositiveFloat = learning(2e-4, "After the warm-up.")
    warmup_steps: NonNegativeInt = learning(2500, "Steps of linear warm-up from 0.")
    schedule: Literal["constant", "cosine"] = learning(
        "constant",
        "constant after the warm-up, or cosine down to 0 at training.num_steps.",
    )
    weight_decay: NonNegativeFloat = learning(
        0.03, "Decoupled, times the learning rate."
    )
    betas: tuple[float, float] = learning(
        (0.99, 0.999), "Decay of the first and second moment, in [0, 1)."
    )
    max_grad_norm: NonNegativeFloat = learning(
        0.0, "Clip the gradient to this global norm; 0 switches clipping off."
    )

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"optimizer.betas must lie in [0, 1), got {self.betas}.")


@dataclass(frozen=True)
class TrainingOptions:
    """How long a run trains, and what it writes on the way."""

    batch_size: BatchSize = learning(128, "Images in a global batch, over all devices.")
    # With the cosine schedule it also has bits: the training's environment notes it.
    num_steps: PositiveInt = harmless(500_000, "Steps of the whole run.")
    microbatch: NonNegativeInt = rounding_step(
        0,
        "Images of the global batch that are computed at a time, with less memory; 0 "
        "for all of them. The result is the same to rounding.",
    )
    gradient_dtype: GradientDType = learning(
        "float32",
        "What gradients are added up in over devices, float32 or bfloat16: half the "
        "bytes, with bfloat16's rounding at each addition.",
    )
    ema_decay: NonNegativeFloat = learning(
        0.9999, "Decay of the average of the parameters, in [0, 1)."
    )
    init_from: str = learning(
        "",
        "Workdir or export of another run, whose averaged parameters this one begins "
        "with (fine-tuning); '' for new ones. --init_from=WORKDIR says the same.",
    )
    posthoc_ema: bool = learning(
        False,
        "Whether to keep two more averages and snapshots of them, from which one of "
        "any width is made after the run (arXiv:2312.02696).",
    )
    posthoc_every: PositiveInt = harmless(
        5000, "Steps between two such snapshots; the last step has one anyway."
    )
    log_every: PositiveInt = harmless(100, "Steps between two lines of metrics.")
    diversity_every: NonNegativeInt = harmless(
        1000, "Steps between two measurements of feature diversity; 0: never."
    )
    held_out_every: NonNegativeInt = harmless(
        0,
        "Steps between two measurements of the loss by noise level on a batch of test "
        "images; the last step has one too. 0: never.",
    )
    sample_every: NonNegativeInt = harmless(
        10_000, "Steps between two pictures of samples; 0: at the end alone."
    )
    samples_per_class: BatchSize = harmless(
        10, "Images of each class in such a picture."
    )
    checkpoint_every: PositiveInt = harmless(
        5000, "Steps between two checkpoints; the last step is saved anyway."
    )
    keep_checkpoints: PositiveInt = harmless(
        3,
        "Number of newest checkpoints kept, of those that were due. What a signal "
        "leaves between two of them is kept until there is a newer one.",
    )
    evaluate_every: NonNegativeInt = harmless(
        0,
        "Steps between two evaluations, as the evaluation section says; the last step "
        "has one too. 0: never.",
    )
    evaluate_images: ImageCount = harmless(1000, "Images drawn for one.")
    keep_best: str = harmless(
        "",
        "Score by which the best evaluated checkpoint is kept too, without its number "
        "of images, as in fid; '' for none.",
    )
    watchdog_seconds: NonNegativeFloat = harmless(
        600.0,
        "The process is ended, to be started again, when no step was done for so long; "
        "pictures and evaluations do not count. 0: never.",
    )

    def __post_init__(self) -> None:
        if self.ema_decay >= 1:
            raise InputError(
                f"config.training.ema_decay must lie in [0, 1), got {self.ema_decay}."
            )
        if self.keep_best and not self.evaluate_every:
            raise InputError(
                f"config.training.keep_best={self.keep_best!r} needs evaluations "
                f"during training: set config.training.evaluate_every."
            )


@dataclass(frozen=True)
class MeshOptions:
    """How many devices along each axis of the mesh; the batch is spread over both."""

    data: int = rounding_step(
        -1, "Groups of devices, each of which keeps the whole state; -1: the rest."
    )
    fsdp: int | None = rounding_step(
        None,
        "Devices of a group, over which parameters, their averages and the optimizer's "
        "state are spread; -1: the rest. None: with data=-1 the devices that a fast "
        "network joins (a TPU slice, a GPU host) up to 64 of them, on TPUs up to half "
        "of all; else 1, the state on every device.",
    )


@dataclass(frozen=True)
class LoggingOptions:
    """Where metrics, scores and sample pictures go beside the run's own workdir."""

    writers: Writers = harmless(
        (),
        "tensorboard: events in tensorboard_dir; wandb: Weights & Biases (pip install "
        "wandb); both: tensorboard,wandb. The workdir has metrics.jsonl and "
        "TensorBoard events of its own in any case.",
    )
    tensorboard_dir: str = harmless(
        "",
        "Folder, local or gs://BUCKET/NAME, in which each run that writes there gets a "
        "folder with the name of its workdir.",
    )
    wandb_project: str = harmless("dig_jax", "Project of Weights & Biases.")
    wandb_entity: str = harmless(
        "", "User or team that the project belongs to; '' for the account's own."
    )

    def __post_init__(self) -> None:
        if "tensorboard" in self.writers and not self.tensorboard_dir:
            raise InputError(
                "config.logging.writers has tensorboard, which needs "
                "config.logging.tensorboard_dir, the folder to write into."
            )
        if "wandb" in self.writers and not self.wandb_project:
            raise InputError(
                "config.logging.writers has wandb, which needs "
                "config.logging.wandb_project, got ''."
            )

"""What is learned and how its error is measured: the objective section of a config."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Field, PositiveFloat

from dig_jax.errors import InputError
from dig_jax.interfaces import SDE

Prediction: TypeAlias = Literal["eps", "x0", "v", "flow", "edm"]
LossSpace: TypeAlias = Literal["eps", "x0", "v", "flow", "edm", "min_snr"]
ScaleWeights: TypeAlias = Literal["area", "finest"]
CoarseTargets: TypeAlias = Literal["unit_variance", "average"]
TimeSampling: TypeAlias = Literal["uniform", "stratified", "log_normal", "logit_normal"]


@dataclass(frozen=True)
class Objective:
    """What is learned, and how its error is measured; the two are free of each other.

    With sigma_tilde = sigma / alpha, the noise of an image scaled back to its size:

    Attributes:
        prediction: What the network predicts: the noise eps; the image x0; v = alpha
            eps - sigma x0 (arXiv:2202.00512); the velocity eps - x0 of a straight path
            (arXiv:2210.02747); or EDM's F around a scaled x_t (arXiv:2206.00364, Eq.
            7), the only one whose input is scaled.
        loss_space: What the squared error is measured in: one of those, or min_snr,
            the error in x0 times min(SNR, min_snr_gamma) (arXiv:2303.09556). L_simple
            is that of eps.
        times: uniform; stratified: one in each of as many intervals as there are
            images; log_normal: log(sigma_tilde) is normal, as in EDM; logit_normal:
            log(t / (1 - t)) is standard normal (arXiv:2403.03206), which on the
            straight path is log_normal with mean 0 and deviation 1.
        label_dropout: Probability that an image is shown without its label, so that
            the network also learns to do without, as guidance needs.
        min_snr_gamma: Greatest weight of min_snr.
        sigma_data: Standard deviation of the pixels, for the edm prediction and space.
        log_sigma_mean: Mean of log(sigma_tilde) for log_normal times.
        log_sigma_std: Its standard deviation.
        scale_weights: How the errors of a network with predictions by scale are added
            up: each by its number of pixels over the image's (area), or that of the
            finest alone (finest). DiMR, arXiv:2406.09416, Sec. 4.1 and Table 2.
        coarse_targets: What a coarser prediction should be: the target's sum over
            k x k pixels divided by k, which leaves noise at unit variance, or their
            average (Eq. 8 as printed).
    """

    prediction: Prediction = "eps"
    loss_space: LossSpace = "eps"
    times: TimeSampling = "uniform"
    label_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    min_snr_gamma: PositiveFloat = 5.0
    sigma_data: PositiveFloat = 0.5
    log_sigma_mean: float = -1.2
    log_sigma_std: PositiveFloat = 1.2
    scale_weights: ScaleWeights = "area"
    coarse_targets: CoarseTargets = "unit_variance"

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


def check_objective(objective: Objective, sde: SDE) -> Objective:
    """Raise InputError for a prediction that an SDE's images are too large for."""
    if sde.prior_std > 1 and objective.prediction != "edm":
        raise InputError(
            f"Under this SDE images grow to a standard deviation of {sde.prior_std:g}, "
            f"which a network can take only scaled: it needs objective.prediction=edm, "
            f"got {objective.prediction!r}."
        )
    return objective


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(
            f"Unknown {name} {value!r}. Available: {', '.join(sorted(choices))}."
        )

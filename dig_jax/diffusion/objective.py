"""Which objectives an SDE and a network allow."""

from dig_jax.diffusion.discrete import VPDiscrete
from dig_jax.diffusion.loss import NUM_STEPS
from dig_jax.errors import InputError
from dig_jax.interfaces import SDE, Backbone
from dig_jax.options import Objective


def check_objective(objective: Objective, sde: SDE) -> Objective:
    """Raise InputError for a prediction that an SDE's images are too large for."""
    if sde.prior_std > 1 and objective.prediction != "edm":
        raise InputError(
            f"Under this SDE images grow to a standard deviation of {sde.prior_std:g}, "
            f"which a network can take only scaled: it needs objective.prediction=edm, "
            f"got {objective.prediction!r}."
        )
    return objective


def check_variance_loss(objective: Objective, sde: SDE, backbone: Backbone) -> None:
    """Raise InputError where a variance is to be learned that cannot be."""
    if not objective.variance_loss:
        return
    asked = f"objective.variance_loss={objective.variance_loss:g}"
    if backbone.with_variance is None:
        raise InputError(
            f"{asked} needs a network that says something of the variance: dico, "
            "diffit or dit with backbone.learned_variance=True."
        )
    if not isinstance(sde, VPDiscrete) or sde.num_steps != NUM_STEPS:
        raise InputError(
            f"{asked} is a bound for a chain of {NUM_STEPS} steps: set "
            f"sde.name=vp_discrete and sde.num_steps={NUM_STEPS}, got {sde}."
        )
    if objective.times != "steps":
        raise InputError(
            f"{asked} is taken at the steps of a chain: set objective.times=steps, got "
            f"{objective.times}."
        )

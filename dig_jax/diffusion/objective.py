"""Which objectives an SDE allows."""

from dig_jax.errors import InputError
from dig_jax.interfaces import SDE
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

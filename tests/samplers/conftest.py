"""Data whose diffusion is known in closed form."""

from typing import NamedTuple

import pytest

from dig_jax.diffusion import VPLinear, create_sde


class Gaussian(NamedTuple):
    """Independent pixels N(mean, std^2) under an SDE."""

    sde: VPLinear
    mean: float
    std: float

    def mean_at(self, t):
        return self.sde.alpha(t) * self.mean

    def variance_at(self, t):
        return self.sde.alpha(t) ** 2 * self.std**2 + self.sde.sigma(t) ** 2

    def denoise(self, x, t):
        """E[x0 | x_t], the exact denoiser."""
        gain = self.sde.alpha(t) * self.std**2 / self.variance_at(t)
        return self.mean + gain * (x - self.mean_at(t))


@pytest.fixture(scope="package")
def gaussian():
    return Gaussian(create_sde("vp_linear"), mean=0.5, std=2.0)

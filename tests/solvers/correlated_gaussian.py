"""Gaussian images of correlated pixels, some of them known: all in closed form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.interfaces import SDE

SHAPE = (2, 3, 1)
DRAWN = np.array([[0, 1, 1], [0, 0, 1]], bool)[..., None]
"""Three pixels are known, three are drawn."""


class Correlated(NamedTuple):
    """x0 ~ N(mean, cov) over the pixels of SHAPE, row by row."""

    sde: SDE
    mean: np.ndarray
    cov: np.ndarray

    @classmethod
    def create(cls, sde):
        """A law whose pixels depend on one another much: its correlations reach 0.8."""
        rng = np.random.default_rng(0)
        root = 0.4 * rng.normal(size=(6, 6))
        return cls(sde, rng.normal(size=6) / 3, root @ root.T + 0.1 * np.eye(6))

    def denoise(self, x, t):
        """E[x0 | x_t], the exact denoiser."""
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        gain = (
            alpha
            * self.cov
            @ jnp.linalg.inv(alpha**2 * self.cov + sigma**2 * jnp.eye(6))
        )
        flat = x.reshape(len(x), -1)
        return (self.mean + (flat - alpha * self.mean) @ gain.T).reshape(x.shape)

    def given(self, values):
        """Mean and covariance of the drawn pixels given the values of the others."""
        drawn, known = DRAWN.ravel(), ~DRAWN.ravel()
        gain = self.cov[np.ix_(drawn, known)] @ np.linalg.inv(
            self.cov[np.ix_(known, known)]
        )
        mean = self.mean[drawn] + gain @ (values - self.mean[known])
        return mean, self.cov[np.ix_(drawn, drawn)] - gain @ self.cov[
            np.ix_(known, drawn)
        ]


def known_image():
    """[row, col, rgb]; what it is at drawn pixels must not matter."""
    rng = np.random.default_rng(1)
    return np.where(DRAWN, 1e6, rng.normal(size=SHAPE))


def end_law(solver, denoise, times, mean, cov):
    """Mean and covariance of the pixels at times[-1], without sampling error.

    Of solvers whose steps are affine in x and in two draws of noise and remember
    nothing: the first is 0, unit vectors give each step's coefficients.

    Args:
        mean: Of all pixels at times[0]; likewise cov.
    """
    size, num_steps = len(mean), len(times) - 1
    units = np.eye(3 * size)
    none = np.zeros((1, *SHAPE))

    def images(block):
        columns = units[:, block * size : (block + 1) * size]
        return jnp.concatenate([none, columns.reshape(-1, *SHAPE)])

    def step(law, now):
        mean, cov = law
        t, s, is_last = now
        x, _ = solver.step(
            denoise,
            images(0),
            solver.init(none),
            t,
            s,
            lambda index=0: jnp.where(is_last, 0, images(1 + index)),
        )
        x = x.reshape(len(x), -1)
        offset, slopes = x[0], (x[1:] - x[0]).T
        of_x, of_noise = slopes[:, :size], slopes[:, size:]
        return (
            of_x @ mean + offset,
            of_x @ cov @ of_x.T + of_noise @ of_noise.T,
        ), None

    is_last = jnp.arange(num_steps) == num_steps - 1
    steps = jnp.asarray(times[:-1]), jnp.asarray(times[1:]), is_last
    start = jnp.asarray(mean), jnp.asarray(cov)
    (mean, cov), _ = jax.jit(lambda law, steps: jax.lax.scan(step, law, steps))(
        start, steps
    )
    return np.asarray(mean), np.asarray(cov)

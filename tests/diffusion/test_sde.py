"""The VP-SDE's closed forms against the equations that define them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from dig_jax.diffusion import SDES, create_sde
from dig_jax.errors import InputError

BETAS = [(0.1, 20.0), (0.5, 0.5), (1e-3, 4.0)]
NEAR_DATA = np.concatenate([[0.0], np.logspace(-12, -2, 21)])
TIMES = np.concatenate([NEAR_DATA, np.linspace(0.02, 1, 99)])
# Four roundings, of exp, expm1, the squares and their sum.
ROUNDINGS = 4


@pytest.fixture(params=BETAS, ids=str)
def sde(request):
    beta_min, beta_max = request.param
    return create_sde("vp_linear", beta_min=beta_min, beta_max=beta_max)


def integrate_log_alpha_squared(sde, t):
    """-int_0^t beta by adaptive quadrature in float64."""

    def beta(u):
        return sde.beta_min + u * (sde.beta_max - sde.beta_min)

    return -quad(beta, 0, t, epsabs=0)[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_variance_is_preserved(sde, dtype):
    with jax.enable_x64(dtype == "float64"):
        t = jnp.asarray(TIMES, dtype)
        total = np.asarray(sde.alpha(t) ** 2 + sde.sigma(t) ** 2)
    assert total.dtype == dtype
    np.testing.assert_allclose(total, 1, rtol=0, atol=ROUNDINGS * np.finfo(dtype).eps)


def test_closed_forms_are_the_integrals_of_beta(sde):
    with jax.enable_x64(True):
        t = jnp.asarray(TIMES)
        ours = [np.asarray(f(t)) for f in (sde.log_alpha, sde.alpha, sde.sigma)]
    log_alpha_squared = np.array([integrate_log_alpha_squared(sde, t) for t in TIMES])
    expected = (
        log_alpha_squared / 2,
        np.exp(log_alpha_squared / 2),
        np.sqrt(-np.expm1(log_alpha_squared)),
    )
    for got, want in zip(ours, expected, strict=True):
        # quad's own estimate is 1e-14 on a polynomial of degree one.
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=0)


def test_sigma_keeps_its_digits_near_data(sde):
    t = NEAR_DATA[1:].astype(np.float32)
    exact = np.sqrt(
        -np.expm1([integrate_log_alpha_squared(sde, t) for t in t.astype(np.float64)])
    )
    # sqrt(1 - alpha^2) written out would be wrong by 100% below t = 1e-6 here; float32
    # has 6e-8 a rounding.
    np.testing.assert_allclose(sde.sigma(jnp.asarray(t)), exact, rtol=1e-6)


def test_logsnr_is_the_log_of_the_ratio_and_falls_strictly(sde):
    with jax.enable_x64(True):
        t = jnp.asarray(TIMES[1:])
        logsnr = np.asarray(sde.logsnr(t))
        ratio = np.asarray(sde.alpha(t) ** 2 / sde.sigma(t) ** 2)
    assert (np.diff(logsnr) < 0).all()
    # Around 0 the logarithm keeps the absolute, not the relative, error of the ratio.
    np.testing.assert_allclose(logsnr, np.log(ratio), rtol=1e-12, atol=1e-13)


def test_logsnr_is_infinite_at_data(sde):
    assert sde.logsnr(jnp.zeros(())) == jnp.inf


def test_drift_and_diffusion_move_the_marginals(sde):
    """d log(alpha)/dt = f, and d sigma^2/dt = 2 f sigma^2 + g^2 (Fokker-Planck)."""
    with jax.enable_x64(True):
        t = jnp.asarray(TIMES)
        d_log_alpha = jax.vmap(jax.grad(lambda t: sde.log_alpha(t)))(t)
        # sigma^2, not sigma: the square root has no derivative at t = 0.
        d_variance = jax.vmap(jax.grad(lambda t: -jnp.expm1(2 * sde.log_alpha(t))))(t)
        variance, f, g = sde.sigma(t) ** 2, sde.drift(t), sde.diffusion(t)
        # Derivatives by automatic differentiation: rounding alone.
        np.testing.assert_allclose(d_log_alpha, f, rtol=1e-13)
        np.testing.assert_allclose(
            d_variance, 2 * f * variance + g**2, rtol=1e-12, atol=1e-13
        )


def test_simulated_forward_process_has_the_stated_moments():
    sde = create_sde("vp_linear")
    x0, num_paths, num_steps = 0.8, 20_000, 400
    rng = np.random.default_rng(0)
    times = np.linspace(0, 1, num_steps + 1)
    x = np.full(num_paths, x0)
    for index, (t, dt) in enumerate(zip(times, np.diff(times), strict=False), 1):
        # Drift and diffusion in the middle of a step: an error of dt^2, 1e-5 here.
        middle = jnp.float32(t + dt / 2)
        f, g = float(sde.drift(middle)), float(sde.diffusion(middle))
        noise = rng.standard_normal(num_paths)
        x = x * np.exp(f * dt) + g * np.sqrt(dt) * noise * np.exp(f * dt / 2)
        if index % 100 == 0:
            now = jnp.float32(times[index])
            alpha, sigma = float(sde.alpha(now)), float(sde.sigma(now))
            # Four standard errors of a mean and of a variance.
            tolerance = 4 / np.sqrt(num_paths)
            assert abs(x.mean() - alpha * x0) < tolerance * sigma
            assert abs(x.var() / sigma**2 - 1) < tolerance * np.sqrt(2)


def test_an_unknown_name_is_refused_with_the_choices():
    with pytest.raises(InputError, match=r"'vp_linaer'.*Available: .*vp_linear"):
        create_sde("vp_linaer")


@pytest.mark.parametrize("name", SDES)
def test_betas_that_fall_are_refused_with_both_values(name):
    with pytest.raises(InputError, match=r"beta_max .*0\.2.*got 0\.1"):
        create_sde(name, beta_min=0.2, beta_max=0.1)

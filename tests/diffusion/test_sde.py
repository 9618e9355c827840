"""The SDEs' closed forms against the equations that define them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from dig_jax.diffusion import SDES, create_sde
from dig_jax.errors import InputError
from dig_jax.interfaces import SDE
from dig_jax.options.keys import call_with_section

VPS = [
    create_sde("vp_linear"),
    create_sde("vp_linear", beta_min=0.5, beta_max=0.5),
    create_sde("vp_linear", beta_min=1e-3, beta_max=4.0),
    create_sde("vp_cosine"),
    create_sde("vp_cosine", offset=0.05, logsnr_min=-18.0),
    create_sde("vp_discrete"),
    create_sde("vp_discrete", betas="linear", beta_min=1e-4, beta_max=0.02),
]
OTHERS = [
    create_sde("flow"),
    create_sde("edm"),
    create_sde("edm", sigma_min=0.02, sigma_max=5.0, rho=3.0),
]
NEAR_DATA = np.concatenate([[0.0], np.logspace(-12, -2, 21)])
TIMES = np.concatenate([NEAR_DATA, np.linspace(0.02, 1, 99)])
INSIDE = TIMES[1:-1]
# Four roundings, of exp, expm1, the squares and their sum.
ROUNDINGS = 4

each_sde = pytest.mark.parametrize("sde", VPS + OTHERS, ids=str)
each_vp = pytest.mark.parametrize("sde", VPS, ids=str)


def in_float64(function, t):
    with jax.enable_x64(True):
        return np.asarray(function(jnp.asarray(t, jnp.float64)))


def published_vp_linear(sde, t):
    log_alpha = -(t**2) * (sde.beta_max - sde.beta_min) / 4 - t * sde.beta_min / 2
    return np.exp(log_alpha), np.sqrt(-np.expm1(2 * log_alpha))


def published_vp_cosine(sde, t):
    """arXiv:2102.09672, Eq. 17, cut where the ratio is logsnr_min."""

    def alpha_bar(u):
        s = sde.offset
        angle, start = (np.pi / 2 * (v + s) / (1 + s) for v in (u, 0.0))
        return (np.cos(angle) / np.cos(start)) ** 2

    def logsnr(u):
        return np.log(alpha_bar(u) / (1 - alpha_bar(u)))

    end = brentq(lambda u: logsnr(u) - sde.logsnr_min, 0.5, 1 - 1e-9, xtol=1e-15)
    return np.sqrt(alpha_bar(t * end)), np.sqrt(1 - alpha_bar(t * end))


def published_vp_discrete(sde, t):
    """alpha bar by its product, and log alpha linear between t = n / 1000."""
    if sde.betas == "linear":
        betas = np.linspace(sde.beta_min, sde.beta_max, 1000)
    else:
        betas = np.linspace(np.sqrt(sde.beta_min), np.sqrt(sde.beta_max), 1000) ** 2
    alpha_bar = np.concatenate([[1.0], np.cumprod(1 - betas)])
    log_alpha = np.interp(t, np.arange(1001) / 1000, np.log(alpha_bar) / 2)
    return np.exp(log_alpha), np.sqrt(-np.expm1(2 * log_alpha))


def published_flow(sde, t):
    return 1 - t, t


def published_edm(sde, t):
    """arXiv:2206.00364, Eq. 5, with the step's number from the other end."""
    low, high = sde.sigma_min ** (1 / sde.rho), sde.sigma_max ** (1 / sde.rho)
    return np.ones_like(t), (high + (1 - t) * (low - high)) ** sde.rho


PUBLISHED = {
    "VPLinear": published_vp_linear,
    "VPCosine": published_vp_cosine,
    "VPDiscrete": published_vp_discrete,
    "Flow": published_flow,
    "EDM": published_edm,
}


@each_sde
def test_alpha_and_sigma_are_the_published_ones(sde):
    alpha, sigma = PUBLISHED[type(sde).__name__](sde, TIMES)
    # brentq's 1e-15 in time is 1e-11 of alpha where that is 1e-4; sqrt(1 - alpha^2)
    # loses all digits that the closed form keeps near data, hence the times from 0.01.
    np.testing.assert_allclose(in_float64(sde.alpha, TIMES), alpha, rtol=1e-10)
    far = TIMES >= 0.01
    np.testing.assert_allclose(in_float64(sde.sigma, TIMES)[far], sigma[far], rtol=1e-9)


@pytest.mark.parametrize("name", SDES)
def test_sampling_starts_from_the_noise_that_training_ends_in(name):
    sde = create_sde(name)
    assert isinstance(sde, SDE)
    if name == "vp_discrete":
        # As published: 7% of the image is left. Together they keep a variance of 1.
        assert in_float64(sde.alpha, 1.0) == pytest.approx(0.0682, abs=5e-4)
        assert sde.prior_std == 1
        return
    # What is left of the image, with pixels in [-1, 1], is under 1% of the noise.
    assert in_float64(sde.sigma, 1.0) == pytest.approx(sde.prior_std, rel=1e-4)
    if sde.prior_std == 1:
        assert in_float64(sde.alpha, 1.0) < 0.01


@each_sde
def test_float32_keeps_its_digits_at_both_ends(sde):
    t = np.concatenate([NEAR_DATA[1:], 1 - NEAR_DATA[1:][::-1]]).astype(np.float32)
    for function in (sde.alpha, sde.sigma):
        # Seven roundings in the exponent of EDM's seventh power, or of alpha(1) =
        # exp(-5) and exp(-9); 1 - alpha^2 written out would be wrong by 100% here.
        exact = in_float64(function, t)
        np.testing.assert_allclose(function(jnp.asarray(t)), exact, rtol=2e-6)


@each_vp
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_variance_is_preserved(sde, dtype):
    with jax.enable_x64(dtype == "float64"):
        t = jnp.asarray(TIMES, dtype)
        total = np.asarray(sde.alpha(t) ** 2 + sde.sigma(t) ** 2)
    assert total.dtype == dtype
    np.testing.assert_allclose(total, 1, rtol=0, atol=ROUNDINGS * np.finfo(dtype).eps)


@each_sde
def test_logsnr_is_the_log_of_the_ratio_and_falls_strictly(sde):
    logsnr = in_float64(sde.logsnr, INSIDE)
    ratio = in_float64(lambda t: sde.alpha(t) ** 2 / sde.sigma(t) ** 2, INSIDE)
    assert (np.diff(logsnr) < 0).all()
    # Around 0 the logarithm keeps the absolute, not the relative, error of the ratio.
    np.testing.assert_allclose(logsnr, np.log(ratio), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("dtype", "atol"), [("float64", 1e-13), ("float32", 1e-6)])
@each_sde
def test_time_of_logsnr_is_the_inverse(sde, dtype, atol):
    with jax.enable_x64(dtype == "float64"):
        t = jnp.asarray(TIMES[1:] if sde in VPS else INSIDE, dtype)
        back = np.asarray(sde.time_of_logsnr(sde.logsnr(t)))
    assert back.dtype == dtype
    # A rounding of logsnr, about 10, moves t by a tenth of it or less.
    np.testing.assert_allclose(back, np.asarray(t), rtol=0, atol=atol)


@each_sde
def test_drift_and_diffusion_are_the_derivatives(sde):
    """alpha' = f alpha, and (sigma^2)' = 2 f sigma^2 + g^2 (Fokker-Planck)."""
    with jax.enable_x64(True):
        t = jnp.asarray(INSIDE)
        alpha, d_alpha = jax.jvp(sde.alpha, (t,), (jnp.ones_like(t),))
        sigma, d_sigma = jax.jvp(sde.sigma, (t,), (jnp.ones_like(t),))
        f, g = sde.drift(t), sde.diffusion(t)
        # Derivatives by automatic differentiation: rounding alone.
        np.testing.assert_allclose(d_alpha, f * alpha, rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(
            2 * sigma * d_sigma, 2 * f * sigma**2 + g**2, rtol=1e-9, atol=1e-12
        )


@each_sde
def test_the_moment_equations_lead_to_alpha_and_sigma(sde):
    """m' = f m and V' = 2 f V + g^2, solved by quadrature from t = 0."""
    # Four Gauss points in each thousandth: the discrete chain's rates jump between.
    nodes, weights = np.polynomial.legendre.leggauss(4)
    u = (np.arange(990)[:, None] + (nodes + 1) / 2) / 1000  # [cell, node]
    with jax.enable_x64(True):
        f, g = (np.asarray(rate(jnp.asarray(u))) for rate in (sde.drift, sde.diffusion))
        alpha_at_u = np.asarray(sde.alpha(jnp.asarray(u)))

    def integral(values):
        return np.cumsum((values * weights / 2000).sum(axis=1))

    start = in_float64(sde.sigma, 0.0) ** 2
    alpha = np.exp(integral(f))
    variance = alpha**2 * (start + integral((g / alpha_at_u) ** 2))
    cells = np.array([100, 500, 900, 990])
    ends, reached = cells / 1000, cells - 1
    # The pole of 1 / (1 - t) is ten cells away from the last.
    np.testing.assert_allclose(in_float64(sde.alpha, ends), alpha[reached], rtol=1e-9)
    np.testing.assert_allclose(
        in_float64(sde.sigma, ends) ** 2, variance[reached], rtol=1e-8
    )


@pytest.mark.parametrize("sde", [*VPS, create_sde("flow")], ids=str)
def test_at_data_there_is_no_noise(sde):
    zero = jnp.zeros(())
    assert sde.alpha(zero) == pytest.approx(1, abs=1e-7)  # one rounding
    assert sde.sigma(zero) == 0
    assert sde.logsnr(zero) == jnp.inf
    assert sde.time_of_logsnr(jnp.float32(jnp.inf)) == 0


def test_at_noise_a_straight_path_has_no_signal():
    flow, one = create_sde("flow"), jnp.ones(())
    assert (flow.alpha(one), flow.sigma(one)) == (0, 1)
    assert flow.logsnr(one) == -jnp.inf
    assert flow.time_of_logsnr(jnp.float32(-jnp.inf)) == 1


@pytest.mark.parametrize("logsnr_min", [-10.0, -3.0])
def test_cosine_ends_at_its_least_ratio(logsnr_min):
    sde = create_sde("vp_cosine", logsnr_min=logsnr_min)
    assert sde.logsnr(jnp.ones(())) == pytest.approx(logsnr_min, rel=1e-6)


def test_edm_times_are_the_papers_noise_levels():
    """The first noise levels of the paper's 18 steps, as its code prints them."""
    t = 1 - np.arange(5) / 17
    sigma = in_float64(create_sde("edm").sigma, t)
    np.testing.assert_allclose(sigma, [80, 57.586, 40.786, 28.375, 19.352], atol=1e-3)


def test_an_unknown_name_is_refused_with_the_choices():
    with pytest.raises(InputError, match=r"'vp_linaer'.*Available: .*vp_linear"):
        create_sde("vp_linaer")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vp_linear", {"beta_min": 0.2, "beta_max": 0.1}, r"beta_max .*0\.2.*got 0\.1"),
        ("vp_cosine", {"logsnr_min": 1.0}, r"logsnr_min must be less than 0, got 1\.0"),
        ("vp_cosine", {"logsnr_min": -40.0}, r"logsnr_min must be .* -18, got -40"),
        ("edm", {"sigma_min": 2.0, "sigma_max": 1.0}, r"sigma_max .*2\.0, got 1\.0"),
        ("vp_discrete", {"betas": "cosine"}, r"betas must be 'scaled_linear' or"),
        ("vp_discrete", {"beta_min": 0.02}, r"beta_max .* 0\.02, got 0\.012"),
        ("vp_discrete", {"beta_max": 1.0}, r"beta_max must be less than 1, got 1"),
        ("edm", {"rho": 0.5}, r"rho must be greater than or equal to 1, got 0\.5"),
        ("flow", {"beta_min": 0.1}, r"Unknown key config\.sde\.beta_min"),
    ],
)
def test_options_out_of_range_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        call_with_section("sde", SDES[name], options)

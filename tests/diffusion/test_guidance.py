"""Guidance against closed forms, and what it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.diffusion import (
    Guidance,
    Objective,
    check_guidance,
    create_sde,
    make_autoguided_denoiser,
    make_denoiser,
    make_guided_denoiser,
    make_guided_variance_denoiser,
    make_variance_denoiser,
)
from dig_jax.diffusion.prediction import per_image, prediction_target
from dig_jax.errors import InputError
from dig_jax.interfaces import Backbone
from dig_jax.options.keys import call_with_section

SDE = create_sde("vp_linear")
EPS = Objective("eps")
NULL = 2
LABEL = jnp.asarray([0, 1, 1])
X = jax.random.normal(jax.random.key(0), (3, 2, 2, 1))
PARAMS = jnp.asarray([[0.3, -0.2], [0.5, 0.1], [-0.4, 0.7]])  # [label, (gain, shift)]


def apply(params, x, t, label):
    """A network with a gain and a shift for each label; linear in its parameters."""
    gain, shift = (jnp.eye(3)[label] @ params).T  # the only product
    return per_image(gain) * x + per_image(shift * t)


def denoiser(label=LABEL, params=PARAMS):
    return make_denoiser(apply, params, SDE, EPS, label)


def guided(**options):
    return make_guided_denoiser(
        apply, PARAMS, SDE, EPS, LABEL, null_label=NULL, guidance=Guidance(**options)
    )


def autoguided(guide_params, **options):
    guidance = Guidance(**options)
    return make_autoguided_denoiser(
        apply, PARAMS, guide_params, SDE, EPS, LABEL, guidance=guidance
    )


def num_products(denoise, t=0.4):
    """Products in the compiled-for program: each forward here is one."""
    jaxpr = str(jax.make_jaxpr(denoise)(X, jnp.float32(t)))
    return jaxpr.count("dot_general[")


@pytest.mark.parametrize("schedule", ["constant", "power_cosine"])
def test_scale_one_is_no_guidance_to_the_last_bit(schedule):
    t = jnp.float32(0.4)
    denoise = guided(scale=1.0, schedule=schedule)
    np.testing.assert_array_equal(denoise(X, t), denoiser()(X, t))


def test_guidance_is_linear_in_the_scale():
    t = jnp.float32(0.4)
    main, worse = denoiser()(X, t), denoiser(jnp.full_like(LABEL, NULL))(X, t)
    for scale in (0.0, 0.5, 2.0, 7.5):
        # The same products in a batch of another size: float32's roundings.
        np.testing.assert_allclose(
            guided(scale=scale)(X, t), worse + scale * (main - worse), rtol=1e-5
        )


# Pixels are N(-0.5, 0.3^2) in class 0 and N(0.4, 0.6^2) in class 1, as (mean, std).
CLASSES = [(-0.5, 0.3), (0.4, 0.6)]


def log_densities(x, alpha, sigma):
    """log p_t(x | class) of each pixel, [class, ...], short of a constant."""
    moments = [(alpha * m, (alpha * s) ** 2 + sigma**2) for m, s in CLASSES]
    return jnp.stack([-((x - m) ** 2) / (2 * v) - jnp.log(v) / 2 for m, v in moments])


def posterior_means(x, alpha, sigma):
    """E[x0 | x_t] for each class and, last, without one, [3, ...]."""
    gains = [alpha * s**2 / ((alpha * s) ** 2 + sigma**2) for _, s in CLASSES]
    means = jnp.stack(
        [m + g * (x - alpha * m) for (m, _), g in zip(CLASSES, gains, strict=True)]
    )
    share = jax.nn.softmax(log_densities(x, alpha, sigma), axis=0)
    return jnp.concatenate([means, (share * means).sum(0, keepdims=True)])


def of_label(values, label):
    """values[label] for each image, from [label, batch, row, col, rgb]."""
    return values[label, jnp.arange(len(label))]


def guided_log_density(x, alpha, sigma, label, scale):
    """log p(x) + w (log p(x | label) - log p(x)), summed over pixels."""
    each = log_densities(x, alpha, sigma)
    anything = jax.nn.logsumexp(each, axis=0)
    return (anything + scale * (of_label(each, label) - anything)).sum()


@pytest.mark.parametrize(
    ("name", "prediction"),
    [("vp_linear", "eps"), ("vp_cosine", "v"), ("flow", "flow"), ("edm", "edm")],
)
def test_the_guided_score_is_that_of_the_guided_density(name, prediction):
    sde, objective, scale = create_sde(name), Objective(prediction), 2.5

    def network(params, x, t, label):
        alpha, sigma = per_image(sde.alpha(t)), per_image(sde.sigma(t))
        if prediction == "edm":
            x = x * jnp.sqrt((alpha * objective.sigma_data) ** 2 + sigma**2)
        x0 = of_label(posterior_means(x, alpha, sigma), label)
        return prediction_target(objective, sde, x0, (x - alpha * x0) / sigma, t)

    guidance = Guidance(scale=scale)

    @jax.jit
    def both_scores(x, t):
        denoise = make_guided_denoiser(
            network, None, sde, objective, LABEL, null_label=NULL, guidance=guidance
        )
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        expected = jax.grad(guided_log_density)(x, alpha, sigma, LABEL, scale)
        return (alpha * denoise(x, t) - x) / sigma**2, expected

    with jax.enable_x64(True):
        for t in (0.2, 0.5, 0.8):
            score, expected = both_scores(X.astype(jnp.float64), jnp.float64(t))
            # float64; at sigma = 0.03 the division by sigma^2 costs three digits.
            np.testing.assert_allclose(score, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("t", "inside"),
    [
        (0.2, False),
        (0.29999, False),
        (0.3, True),
        (0.5, True),
        (0.6, True),
        (0.61, False),
    ],
)
def test_outside_its_interval_nothing_is_guided(t, inside):
    t = jnp.float32(t)
    denoise = guided(scale=3.0, interval=(0.3, 0.6))
    expected, other = guided(scale=3.0)(X, t), denoiser()(X, t)
    if not inside:
        expected, other = other, expected
    # A branch is compiled as a whole, which rounds otherwise than its operations.
    np.testing.assert_allclose(denoise(X, t), expected, rtol=1e-5)
    assert (jnp.abs(denoise(X, t) - other).max() > 0.01).all()


def test_each_image_may_have_its_own_time():
    t = jnp.asarray([0.1, 0.5, 0.8])
    options = dict(scale=3.0, interval=(0.3, 0.6), schedule="power_cosine")
    together = guided(**options)(X, t)
    for image, time in enumerate(t):
        alone = guided(**options)(X, time)
        # Products in a batch of another size: float32's roundings.
        np.testing.assert_allclose(together[image], alone[image], rtol=1e-5, atol=1e-6)


def test_both_sides_are_one_forward():
    assert num_products(denoiser()) == 1
    assert num_products(guided(scale=3.0)) == 1
    assert num_products(autoguided(2 * PARAMS, scale=3.0)) == 1


def test_outside_the_interval_the_network_sees_its_batch_once():
    jaxpr = jax.make_jaxpr(guided(scale=3.0, interval=(0.3, 0.6)))(X, jnp.float32(0.4))
    (switch,) = [e for e in jaxpr.eqns if e.primitive.name == "cond"]
    plain, both = (str(branch) for branch in switch.params["branches"])
    assert plain.count("dot_general[") == both.count("dot_general[") == 1
    assert "f32[6,2]" not in plain
    assert "f32[6,2]" in both


def test_power_cosine_is_that_of_mdt_and_diffit():
    """scale_step of their forward_with_cfg, with t the step's number of 1000."""
    steps = np.arange(0, 1001, 50)
    scale_step = (1 - np.cos((1 - steps / 1000) ** 4.0 * np.pi)) / 2
    expected = (4.6 - 1) * scale_step + 1
    guidance = Guidance(scale=4.6, schedule="power_cosine", power=4.0)
    weight = 1 + np.asarray(guidance.push(jnp.asarray(steps / 1000, jnp.float32)))
    # 1 - cos of a small angle in float32.
    np.testing.assert_allclose(weight, expected, atol=1e-6)
    assert (np.diff(weight) <= 0).all()


def test_the_offset_is_for_steps_that_count_from_0():
    """DiffiT's network is shown n - 1 of t = n / 1000, and so is its scale_step."""
    guidance = Guidance(scale=4.4, schedule="power_cosine", offset=1e-3)
    shown = np.array([999, 500, 100, 0])
    weight = 1 + np.asarray(guidance.push(jnp.asarray((shown + 1) / 1000, jnp.float32)))
    np.testing.assert_allclose(weight, [1, 1.0327, 3.50, 4.4], atol=5e-3)
    expected = 1 + 3.4 * (1 - np.cos(np.pi * (1 - shown / 1000) ** 4)) / 2
    np.testing.assert_allclose(weight, expected, atol=1e-5)


RGBA = jax.random.normal(jax.random.key(1), (3, 2, 2, 4))


def with_variance(params, x, t, label):
    """The variance depends on the label, too."""
    output = apply(params, x, t, label)
    return output, jnp.cos(3 * output)


def test_the_first_channels_alone_may_be_guided():
    """forward_with_cfg of DiT and DiffiT: eps[:, :3], the rest and the variance not."""
    t, guidance = jnp.float32(0.4), Guidance(scale=3.0, channels=3)
    denoise = make_guided_denoiser(
        apply, PARAMS, SDE, EPS, LABEL, null_label=NULL, guidance=guidance
    )
    times = jnp.full(3, 0.4)
    eps, variance = with_variance(PARAMS, RGBA, times, LABEL)
    without = apply(PARAMS, RGBA, times, jnp.full_like(LABEL, NULL))
    guided_eps = without[..., :3] + 3.0 * (eps - without)[..., :3]
    eps = jnp.concatenate([guided_eps, eps[..., 3:]], axis=-1)
    expected = (RGBA - SDE.sigma(t) * eps) / SDE.alpha(t)
    # Products in a batch of another size: float32's roundings.
    np.testing.assert_allclose(denoise(RGBA, t), expected, rtol=1e-5, atol=1e-6)

    both = make_guided_variance_denoiser(
        with_variance, PARAMS, SDE, EPS, LABEL, null_label=NULL, guidance=guidance
    )
    x0, said = both.with_variance(RGBA, t)
    np.testing.assert_allclose(x0, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(said, variance, rtol=1e-5, atol=1e-6)
    assert num_products(both) == 1


def test_a_guided_variance_is_that_with_the_label():
    t, guidance = jnp.float32(0.4), Guidance(scale=3.0, interval=(0.3, 0.6))
    both = make_guided_variance_denoiser(
        with_variance, PARAMS, SDE, EPS, LABEL, null_label=NULL, guidance=guidance
    )
    plain = make_variance_denoiser(with_variance, PARAMS, SDE, EPS, LABEL)
    np.testing.assert_allclose(both(X, t), guided(scale=3.0)(X, t), rtol=1e-5)
    late = jnp.float32(0.8)
    for time in (t, late):
        said, alone = (d.with_variance(X, time)[1] for d in (both, plain))
        np.testing.assert_allclose(said, alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(both(X, late), plain(X, late), rtol=1e-5)


def test_autoguidance_by_itself_is_no_guidance():
    t = jnp.float32(0.4)
    # A product over both parameter trees rounds like one over each, or nearly.
    np.testing.assert_allclose(
        autoguided(PARAMS, scale=3.0)(X, t), denoiser()(X, t), rtol=1e-6
    )


def test_autoguidance_extrapolates_from_the_guide():
    """The network is linear in its parameters, so guiding it is moving them."""
    t, guide, scale = jnp.float32(0.4), PARAMS[::-1], 1.7
    moved = guide + scale * (PARAMS - guide)
    expected = denoiser(params=moved)(X, t)
    np.testing.assert_allclose(
        autoguided(guide, scale=scale)(X, t), expected, rtol=1e-5, atol=1e-6
    )


def test_the_guide_may_be_another_network():
    def smaller(params, x, t, label):
        return params * x

    t, guidance = jnp.float32(0.4), Guidance(scale=2.0)
    denoise = make_autoguided_denoiser(
        apply,
        PARAMS,
        0.2,
        SDE,
        EPS,
        LABEL,
        guidance=guidance,
        guide_apply=smaller,
    )
    main, worse = denoiser()(X, t), make_denoiser(smaller, 0.2, SDE, EPS)(X, t)
    np.testing.assert_allclose(denoise(X, t), 2 * main - worse, rtol=1e-5, atol=1e-6)


def test_parameters_of_another_network_need_its_apply():
    with pytest.raises(InputError, match="needs its own guide_apply"):
        autoguided(PARAMS[:2], scale=2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": -1.0}, r"scale must be 0 or more \(1 for none\), got -1\.0"),
        ({"power": 0.0}, r"power must be above 0, got 0\.0"),
        ({"schedule": "cosine"}, r"'cosine'\. Available: constant, power_cosine"),
        ({"interval": (0.5, 0.5)}, r"ascending times in \[0, 1\], got \(0\.5, 0\.5\)"),
        ({"interval": (0.2, 1.5)}, r"ascending times in \[0, 1\], got \(0\.2, 1\.5\)"),
    ],
)
def test_guidance_out_of_range_is_refused(options, message):
    # Not through the constructor, where tests check the types of arguments first.
    guidance = Guidance()
    for name, value in options.items():
        object.__setattr__(guidance, name, value)
    with pytest.raises(InputError, match=message):
        guidance.__post_init__()
    with pytest.raises(InputError, match=next(iter(options))):
        call_with_section("guidance", Guidance, options)


def backbone(num_classes, null_label):
    return Backbone(
        lambda key, places=None: None,
        apply,
        apply,
        (2, 2, 1),
        num_classes,
        None,
        null_label,
    )


def test_a_network_that_needs_its_label_cannot_be_guided():
    guidance = Guidance(scale=3.0)
    assert check_guidance(guidance, backbone(2, True)) is guidance
    check_guidance(Guidance(), backbone(2, False))
    with pytest.raises(InputError, match=r"label_dropout=0.*must be 1, got 3"):
        check_guidance(guidance, backbone(2, False))
    with pytest.raises(InputError, match=r"Images of 1 channels have no 3"):
        check_guidance(Guidance(scale=3.0, channels=3), backbone(2, True))
    with pytest.raises(InputError, match=r"unconditional.*must be 1, got 3"):
        check_guidance(guidance, backbone(0, False))

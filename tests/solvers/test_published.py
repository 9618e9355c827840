"""Every solver beside its published algorithm, in NumPy and float64.

On any denoiser, not an exact one: the algorithms are the same whatever it says.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_laws import solve

from dig_jax.diffusion import create_sde
from dig_jax.diffusion.prediction import WithVariance
from dig_jax.errors import InputError
from dig_jax.solvers import create_solver, create_times, solver_times

T_END = 1e-3


def assert_same(got, expected):
    # The same formulas in two orders of operations, in float64; D is of order 1.
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def denoise(x, t, xp=jnp):
    return xp.tanh(x * (1 + t)) + 0.3 * xp.cos(3 * x - t)


def log_alpha(t):
    return -(0.1 * t + 19.9 * t**2 / 2) / 2


def alpha(t):
    return np.exp(log_alpha(t))


def sigma(t):
    return np.sqrt(-np.expm1(2 * log_alpha(t)))


def lamb(t):
    """lambda, half the logSNR (arXiv:2206.00927)."""
    return np.log(alpha(t) / sigma(t))


def time_of_lamb(value):
    """t_lambda of the linear schedule (arXiv:2206.00927, App. D)."""
    log = np.log1p(np.exp(-2 * value))
    return 2 * log / (np.sqrt(0.1**2 + 2 * 19.9 * log) + 0.1)


def x0_model(x, t):
    return denoise(x, t, np)


def eps_model(x, t):
    return (x - alpha(t) * x0_model(x, t)) / sigma(t)


def start(rng):
    return rng.standard_normal((2, 3, 4, 1))


def drawn(name, num_steps, x, noise=None, grid="uniform", **options):
    with jax.enable_x64(True):
        sde = create_sde("vp_linear")
        solver = create_solver(name, sde, num_steps, **options)
        times = create_times(grid, sde, len(solver.evaluations), t_end=T_END)
        return np.asarray(solve(solver, denoise, times, x, noise))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_its_equation_12(eta, rng):
    times = np.linspace(1, T_END, 7)
    x = start(rng)
    noise = rng.standard_normal((6, *x.shape))
    expected = x
    for t, s, z in zip(times[:-1], times[1:], noise, strict=True):
        a, b = alpha(t) ** 2, alpha(s) ** 2  # the paper's alpha_t, alpha_{t-1}
        eps = eps_model(expected, t)
        new = eta * np.sqrt((1 - b) / (1 - a)) * np.sqrt(1 - a / b)
        x0 = (expected - np.sqrt(1 - a) * eps) / np.sqrt(a)
        expected = np.sqrt(b) * x0 + np.sqrt(1 - b - new**2) * eps + new * z
    assert_same(drawn("ddim", 6, x, noise, eta=eta), expected)


def test_ancestral_is_the_posterior_of_ddpm(rng):
    """Mean and variance of q(x_{t-1} | x_t, x0) (arXiv:2006.11239, Eq. 7)."""
    times = np.linspace(1, T_END, 7)
    x = start(rng)
    noise = rng.standard_normal((6, *x.shape))
    expected = x
    for t, s, z in zip(times[:-1], times[1:], noise, strict=True):
        bar, bar_before = alpha(t) ** 2, alpha(s) ** 2
        a, b = bar / bar_before, 1 - bar / bar_before  # alpha_t, beta_t
        mean = np.sqrt(bar_before) * b / (1 - bar) * x0_model(expected, t)
        mean += np.sqrt(a) * (1 - bar_before) / (1 - bar) * expected
        expected = mean + np.sqrt((1 - bar_before) / (1 - bar) * b) * z
    assert_same(drawn("ancestral", 6, x, noise), expected)


def edm_sampler(x, sigmas, churn=0.0, interval=(0.0, np.inf), std=1.0, noise=None):
    """arXiv:2206.00364, Alg. 2; without churn, Alg. 1 with s = 1.

    The last step is Euler's and adds no noise, as where it ends at sigma = 0.
    """
    num_steps = len(sigmas) - 1
    for i, (a, b) in enumerate(pairwise(sigmas)):
        if noise is not None and interval[0] <= a <= interval[1] and i < num_steps - 1:
            raised = a * (1 + min(churn / num_steps, np.sqrt(2) - 1))
            x = x + np.sqrt(raised**2 - a**2) * std * noise[i]
            a = raised
        slope = (x - denoise(x, a, np)) / a
        end = x + (b - a) * slope
        if i < num_steps - 1:
            end_slope = (end - denoise(end, b, np)) / b
            end = x + (b - a) * (slope + end_slope) / 2
        x = end
    return x


def by_edm(name, num_steps, x, rho, noise=None, **options):
    """A solver on EDM's own schedule; returns the end and the schedule's sigmas."""
    with jax.enable_x64(True):
        sde = create_sde("edm", rho=rho)
        solver = create_solver(name, sde, num_steps, **options)
        times = create_times("uniform", sde, num_steps, t_end=0.0)
        end = solve(solver, lambda x, t: denoise(x, sde.sigma(t)), times, x, noise)
    low, high = 0.002 ** (1 / rho), 80 ** (1 / rho)
    steps = np.arange(num_steps + 1) / num_steps
    return np.asarray(end), (high + steps * (low - high)) ** rho  # Eq. 5


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_heun_is_algorithm_1_of_edm(rho, rng):
    x = start(rng) * 80
    got, sigmas = by_edm("heun", 17, x, rho)
    assert_same(got, edm_sampler(x, sigmas))


@pytest.mark.parametrize("rho", [1.0, 7.0])
def test_ode_euler_is_eulers_method_in_sigma(rho, rng):
    x = start(rng) * 80
    got, sigmas = by_edm("ode_euler", 17, x, rho)
    for a, b in pairwise(sigmas):
        x = x + (b - a) * (x - denoise(x, a, np)) / a
    assert_same(got, x)


@pytest.mark.parametrize(
    ("churn", "interval", "std"),
    [(0.5, (0.05, 50.0), 1.003), (40.0, (0.05, 50.0), 1.0), (40.0, (0.0, 1e9), 1.007)],
)
def test_heun_with_churn_is_algorithm_2_of_edm(churn, interval, std, rng):
    x = start(rng) * 80
    noise = rng.standard_normal((17, *x.shape))
    options = {"churn": churn, "churn_interval": interval, "churn_noise": std}
    got, sigmas = by_edm("heun", 17, x, 7.0, noise, **options)
    assert_same(got, edm_sampler(x, sigmas, churn, interval, std, noise))


def test_heun_and_its_churn_see_only_the_ratio_of_noise_to_image(rng):
    """x / alpha goes the same way on every path between the same sigma / alpha."""
    ratios = np.geomspace(50.0, 0.02, 13)
    x, noise = start(rng), rng.standard_normal((12, 2, 3, 4, 1))
    ends = {}
    for name in ("vp_linear", "vp_cosine", "flow", "edm"):
        with jax.enable_x64(True):
            sde = create_sde(name)
            times = np.asarray(sde.time_of_logsnr(jnp.asarray(-2 * np.log(ratios))))
            first = float(sde.alpha(jnp.asarray(times[0])))
            last = float(sde.alpha(jnp.asarray(times[-1])))
            solver = create_solver("heun", sde, 12, churn=3.0)
            end = solve(
                solver,
                lambda x, t, sde=sde: denoise(
                    x / sde.alpha(t), jnp.exp(-sde.logsnr(t) / 2)
                ),
                times,
                50 * first * x,
                noise,
            )
            ends[name] = np.asarray(end) / last
    for end in ends.values():
        # Times are found by the inverse of logSNR, to some 1e-12.
        np.testing.assert_allclose(end, ends["edm"], rtol=1e-7, atol=1e-7)


def dpm_solver_fast(x, num_evaluations, order):
    """DPM-Solver-fast (arXiv:2206.00927, Alg. 1, 2 and App. D)."""
    n, k = num_evaluations, num_evaluations // 3 + 1
    if order == 3:
        ends = {0: [2, 1], 1: [1], 2: [2]}[n % 3]
        orders = [3] * (k - len(ends)) + ends
    else:
        orders = [order] * (n // order) + [1] * (n % order)
    values = np.linspace(lamb(1.0), lamb(T_END), len(orders) + 1)
    times = time_of_lamb(values)
    times[0], times[-1] = 1, T_END
    for t, s, order in zip(times[:-1], times[1:], orders, strict=True):
        h = lamb(s) - lamb(t)
        eps = eps_model(x, t)
        keep = alpha(s) / alpha(t)
        if order == 1:
            x = keep * x - sigma(s) * np.expm1(h) * eps
        elif order == 2:
            s1 = time_of_lamb(lamb(t) + h / 2)
            u = alpha(s1) / alpha(t) * x - sigma(s1) * np.expm1(h / 2) * eps
            x = keep * x - sigma(s) * np.expm1(h) * eps_model(u, s1)
        else:
            r1, r2 = 1 / 3, 2 / 3
            s1, s2 = time_of_lamb(lamb(t) + r1 * h), time_of_lamb(lamb(t) + r2 * h)
            u1 = alpha(s1) / alpha(t) * x - sigma(s1) * np.expm1(r1 * h) * eps
            d1 = eps_model(u1, s1) - eps
            u2 = alpha(s2) / alpha(t) * x - sigma(s2) * np.expm1(r2 * h) * eps
            u2 -= sigma(s2) * r2 / r1 * (np.expm1(r2 * h) / (r2 * h) - 1) * d1
            d2 = eps_model(u2, s2) - eps
            x = keep * x - sigma(s) * np.expm1(h) * eps
            x -= sigma(s) / r2 * (np.expm1(h) / h - 1) * d2
    return x


@pytest.mark.parametrize(
    ("num_steps", "order"),
    [(2, 3), (9, 3), (10, 3), (9, 2)],
)
def test_dpm_solver_is_its_algorithm(num_steps, order, rng):
    x = start(rng)
    got = drawn("dpm_solver", num_steps, x, grid="logsnr", order=order)
    assert_same(got, dpm_solver_fast(x, num_steps, order))


def chain(spacing, low, high):
    """log alpha in t through the points n / 1000 of a discrete chain."""
    if spacing == "linear":
        betas = np.linspace(low, high, 1000)
    else:
        betas = np.linspace(np.sqrt(low), np.sqrt(high), 1000) ** 2
    alpha_bar = np.concatenate([[1.0], np.cumprod(1 - betas)])
    points = np.arange(1001) / 1000
    return betas, alpha_bar, lambda t: np.interp(t, points, np.log(alpha_bar) / 2)


def dpm_solver_pp_singlestep(x, num_evaluations, log_alpha):
    """The sampler of U-ViT's and DiMR's latents: DPM-Solver++, order 3, uniform t.

    Returns the end, and the times of all evaluations.
    """
    grid = np.linspace(1, 1e-3, num_evaluations + 1)
    whole, rest = divmod(num_evaluations, 3)
    orders = {0: [3] * (whole - 1) + [2, 1], 1: [3] * whole + [1]}.get(
        rest, [3] * whole + [2]
    )

    def of(t):
        a = np.exp(log_alpha(t))
        b = np.sqrt(1 - a**2)
        return a, b, np.log(a / b)

    i, seen = 0, []

    def data(x, t):
        seen.append(t)
        return x0_model(x, t)

    for k in orders:
        (_, b0, l0), (a, b, l1) = of(grid[i]), of(grid[i + k])
        h = l1 - l0
        d = data(x, grid[i])
        if k == 1:
            x = b / b0 * x - a * np.expm1(-h) * d
        else:
            a1, b1, l_1 = of(grid[i + 1])
            r1 = (l_1 - l0) / h
            u = b1 / b0 * x - a1 * np.expm1(-r1 * h) * d
            d1 = data(u, grid[i + 1])
        if k == 2:
            x = b / b0 * x - a * np.expm1(-h) * (d + (d1 - d) / (2 * r1))
        if k == 3:
            a2, b2, l_2 = of(grid[i + 2])
            r2 = (l_2 - l0) / h
            u = b2 / b0 * x - a2 * np.expm1(-r2 * h) * d
            u += r2 / r1 * a2 * (np.expm1(-r2 * h) / (r2 * h) + 1) * (d1 - d)
            d2 = data(u, grid[i + 2])
            x = b / b0 * x - a * np.expm1(-h) * d
            x += a / r2 * (np.expm1(-h) / h + 1) * (d2 - d)
        i += k
    return x, seen


@pytest.mark.parametrize("num_steps", [9, 10, 50])
def test_dpm_solver_of_data_is_that_of_published_latent_models(num_steps, rng):
    x, seen = start(rng), []
    log_alpha = chain("scaled_linear", 0.00085, 0.012)[2]
    expected, times = dpm_solver_pp_singlestep(x, num_steps, log_alpha)

    def noting(x, t):
        jax.debug.callback(lambda t: seen.append(float(t)), t)
        return denoise(x, t)

    with jax.enable_x64(True):
        sde = create_sde("vp_discrete")
        solver = create_solver(
            "dpm_solver", sde, num_steps, integrand="x0", inner_times="uniform"
        )
        got = solve(solver, noting, solver_times("uniform", sde, solver), x)
        jax.effects_barrier()
    assert_same(got, expected)
    np.testing.assert_allclose(sorted(seen), sorted(times), rtol=1e-6)  # in float32


def said_of_variance(x, t, xp=jnp):
    """Also beyond [-1, 1], as a network may."""
    return 1.5 * xp.sin(2 * x + t)


@pytest.mark.parametrize("spacing", ["linear", "scaled_linear"])
def test_ancestral_with_learned_variance_is_that_of_adm(spacing, rng):
    """GaussianDiffusion with LEARNED_RANGE, respaced to 12 steps that count from 0."""
    kept = [round(i * 999 / 11) for i in range(12)]
    alpha_bar = chain(spacing, 1e-4, 0.02)[1][1:][kept]
    before = np.append(1.0, alpha_bar[:-1])
    betas = 1 - alpha_bar / before
    posterior = betas * (1 - before) / (1 - alpha_bar)
    least = np.log(np.append(posterior[1], posterior[1:]))
    x = start(rng)
    noise = rng.standard_normal((12, *x.shape))
    noise[-1] = 0
    expected = x
    for i, z in zip(range(11, -1, -1), noise, strict=True):
        t = (kept[i] + 1) / 1000
        share = (said_of_variance(expected, t, np) + 1) / 2
        log_variance = share * np.log(betas[i]) + (1 - share) * least[i]
        mean = (
            betas[i] * np.sqrt(before[i]) / (1 - alpha_bar[i]) * x0_model(expected, t)
        )
        mean += (
            (1 - before[i]) * np.sqrt(1 - betas[i]) / (1 - alpha_bar[i])
        ) * expected
        expected = mean + np.exp(log_variance / 2) * z
    with jax.enable_x64(True):
        sde = create_sde("vp_discrete", betas=spacing, beta_min=1e-4, beta_max=0.02)
        solver = create_solver("ancestral", sde, 12, variance="learned")
        times = create_times("respaced", sde, 12, t_end=0.0)
        both = WithVariance(lambda x, t: (denoise(x, t), said_of_variance(x, t)))
        got = solve(solver, both, times, x, noise)
    assert_same(got, expected)


def test_a_learned_variance_needs_a_network_that_learns_it(rng):
    sde = create_sde("vp_discrete")
    solver = create_solver("ancestral", sde, 2, variance="learned")
    with pytest.raises(InputError, match="learned_variance=True"):
        solve(solver, denoise, create_times("uniform", sde, 2), start(rng))


def dpm_solver_pp_multistep(x, times, order, num_final):
    """DPM-Solver++(2M) (arXiv:2211.01095, Alg. 2), and 3M as its authors' code has it.

    But for a factor 2 before phi3: without it the quadratic's second derivative counts
    half, and the order is 2.
    """
    past = []
    num_steps = len(times) - 1
    for i, (t, s) in enumerate(pairwise(times)):
        past = [(lamb(t), x0_model(x, t)), *past[:2]]
        now = min(order, i + 1, num_steps - i if num_final else order)
        h = lamb(s) - lamb(t)
        phi1 = np.expm1(-h)
        phi2 = phi1 / h + 1
        phi3 = phi2 / h - 1 / 2
        d0 = past[0][1]
        x = sigma(s) / sigma(t) * x - alpha(s) * phi1 * d0
        if now == 1:
            continue
        r0 = (past[0][0] - past[1][0]) / h
        d10 = (d0 - past[1][1]) / r0
        if now == 2:
            x -= alpha(s) * phi1 / 2 * d10
            continue
        r1 = (past[1][0] - past[2][0]) / h
        d11 = (past[1][1] - past[2][1]) / r1
        d1 = d10 + r0 / (r0 + r1) * (d10 - d11)
        d2 = (d10 - d11) / (r0 + r1)
        x += alpha(s) * phi2 * d1 - 2 * alpha(s) * phi3 * d2
    return x


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("num_steps", [6, 10])
def test_dpm_solver_pp_is_its_algorithm(order, num_steps, rng):
    """Of lower order at the end in fewer than 10 steps."""
    x = start(rng)
    times = np.linspace(1, T_END, num_steps + 1)
    expected = dpm_solver_pp_multistep(x, times, order, num_steps < 10)
    got = drawn("dpm_solver_pp", num_steps, x, order=order)
    assert_same(got, expected)


def test_dpm_solver_pp_with_noise_is_its_sde_algorithm(rng):
    """SDE-DPM-Solver++(2M) (arXiv:2211.01095)."""
    times = np.linspace(1, T_END, 11)
    x = start(rng)
    noise = rng.standard_normal((10, *x.shape))
    expected, last = x, None
    for t, s, z in zip(times[:-1], times[1:], noise, strict=True):
        h = lamb(s) - lamb(t)
        x0 = x0_model(expected, t)
        expected = sigma(s) / sigma(t) * np.exp(-h) * expected
        expected += alpha(s) * (1 - np.exp(-2 * h)) * x0
        if last is not None:
            r = (lamb(t) - lamb(last[0])) / h
            expected += alpha(s) * (1 - np.exp(-2 * h)) / 2 * (x0 - last[1]) / r
        expected += sigma(s) * np.sqrt(1 - np.exp(-2 * h)) * z
        last = t, x0
    got = drawn("dpm_solver_pp", 10, x, noise, eta=1.0)
    assert_same(got, expected)


def unipc_multistep(x, times, order, variant):
    """UniPC (arXiv:2302.04867, Alg. 1-2) in data prediction."""
    past = [(times[0], x0_model(x, times[0]))]
    num_steps = len(times) - 1
    for i, s in enumerate(times[1:]):
        p = min(order, i + 1, num_steps - i)
        t, d0 = past[0]
        h = lamb(s) - lamb(t)
        nodes = [(lamb(u) - lamb(t)) / h for u, _ in past[1:p]]
        slopes = [(d - d0) / r for (_, d), r in zip(past[1:p], nodes, strict=True)]
        r = np.array([*nodes, 1.0])
        b_of_h = -h if variant == "bh1" else np.expm1(-h)
        phi, factorial, b = np.expm1(-h) / -h - 1, 1, []
        for k in range(1, p + 1):
            b.append(phi * factorial / b_of_h)
            factorial *= k + 1
            phi = phi / -h - 1 / factorial
        system = np.array([r**k for k in range(p)])
        rho_p = np.linalg.solve(system[:-1, :-1], b[:-1]) if p != 2 else [0.5]
        rho_c = np.linalg.solve(system, b) if p != 1 else [0.5]
        base = sigma(s) / sigma(t) * x - alpha(s) * np.expm1(-h) * d0
        change = sum(w * d for w, d in zip(rho_p, slopes, strict=True))
        x = base - alpha(s) * b_of_h * change
        if i == num_steps - 1:
            return x
        past = [(s, x0_model(x, s)), *past]
        slopes.append(past[0][1] - d0)
        change = sum(w * d for w, d in zip(rho_c, slopes, strict=True))
        x = base - alpha(s) * b_of_h * change
    raise AssertionError("no steps")


@pytest.mark.parametrize(
    ("order", "variant"), [(1, "bh1"), (2, "bh1"), (1, "bh2"), (2, "bh2"), (3, "bh2")]
)
def test_unipc_is_its_algorithm(order, variant, rng):
    x = start(rng)
    times = np.linspace(1, T_END, 8)
    got = drawn("unipc", 7, x, order=order, variant=variant)
    expected = unipc_multistep(x, times, order, variant)
    assert_same(got, expected)


@pytest.mark.parametrize("sde_name", ["vp_linear", "flow", "edm"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ddim", {}), ("dpm_solver", {"order": 1})),
        (("ddim", {}), ("dpm_solver_pp", {"order": 1})),
        (("ddim", {"eta": 0.6}), ("dpm_solver_pp", {"order": 1, "eta": 0.6})),
        (("ddim", {"eta": 1.0}), ("ancestral", {})),
        (("dpm_solver_pp", {"order": 1, "eta": 1.0}), ("ancestral", {})),
    ],
)
def test_solvers_that_are_the_same_on_every_path(one, other, sde_name, rng):
    """From t = 1, also where nothing of the image is left there."""
    x = start(rng)
    noise = rng.standard_normal((6, *x.shape))
    with jax.enable_x64(True):
        sde = create_sde(sde_name)
        times = create_times("uniform", sde, 6)
        results = [
            solve(create_solver(name, sde, 6, **options), denoise, times, x, noise)
            for name, options in (one, other)
        ]
    assert_same(*results)

"""DPM-Solvers and UniPC beside their published algorithms, in NumPy and float64."""

from itertools import pairwise

import jax
import numpy as np
import pytest
from known_laws import solve
from published import (
    T_END,
    alpha,
    assert_same,
    chain,
    denoise,
    drawn,
    eps_model,
    sigma,
    start,
    x0_model,
)

from dig_jax.diffusion import create_sde
from dig_jax.solvers import create_solver, create_times, solver_times


def lamb(t):
    """lambda, half the logSNR (arXiv:2206.00927)."""
    return np.log(alpha(t) / sigma(t))


def time_of_lamb(value):
    """t_lambda of the linear schedule (arXiv:2206.00927, App. D)."""
    log = np.log1p(np.exp(-2 * value))
    return 2 * log / (np.sqrt(0.1**2 + 2 * 19.9 * log) + 0.1)


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

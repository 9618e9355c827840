"""Numbers of a release that the next is compared with: solvers, and small backbones.

    python tests/models/golden_numbers.py    # tells what moved, and writes it down

Laws, closed forms and independent implementations are what is right, and the other
tests compare with them; these numbers are what was, so that none changes unseen. They
are in tests/golden. Whoever changes them on purpose renews them, and says why.
"""

import inspect
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import (
    Any,
    Literal,
    NamedTuple,
    TypeAlias,
    get_args,
    get_origin,
    get_type_hints,
)

import jax
import jax.numpy as jnp
import numpy as np
from test_backbones import create_tiny

from dig_jax.diffusion import SDES, create_sde, make_denoiser
from dig_jax.diffusion.prediction import prediction_target
from dig_jax.interfaces import SDE, Backbone
from dig_jax.models import BACKBONES
from dig_jax.options import Objective, Prediction
from dig_jax.solvers import (
    SOLVERS,
    create_solver,
    create_times,
    default_time_grid,
    sample,
)

Numbers: TypeAlias = list[float]
Case: TypeAlias = Callable[[], Numbers]

FOLDER = Path(__file__).parents[1] / "golden"
COMMAND = f"python {Path(__file__).relative_to(FOLDER.parents[1])}"
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)
NUM_STEPS = 5  # the fewest in which a step of order 3 is followed by one of 2
# Between these times logSNR is finite on every path.
BOUNDS = {"t_start": 0.98, "t_end": 1e-3}
OF_OPTIONS = "vp_linear"
"""The SDE on which solvers' options are tried, one at a time."""

# Of options that are numbers, beside the default; choices are tried one by one.
VALUES = {"churn": 4.0, "eta": 0.5}


class Golden(NamedTuple):
    """Some cases and what they are compared by.

    Attributes:
        file: Name of their file in FOLDER.
        tolerance: How far numbers may be from the golden ones, over the largest.
        digits: That are written down.
        cases: By name, each a computation.
    """

    file: str
    tolerance: float
    digits: int
    cases: Mapping[str, Case]

    @property
    def path(self) -> Path:
        return FOLDER / self.file

    def read(self) -> dict[str, Numbers]:
        """The golden numbers by case."""
        if not self.path.exists():
            return {}
        return json.loads(self.path.read_text(encoding="utf-8"))

    def write(self, numbers: Mapping[str, Numbers]) -> None:
        """Write a case a line, in order, so that a diff shows what moved."""
        lines = [
            f"{json.dumps(name)}: [{', '.join(self._text(x) for x in values)}]"
            for name, values in sorted(numbers.items())
        ]
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        self.path.write_text(text, encoding="utf-8")

    def _text(self, number: float) -> str:
        return f"{number:.{self.digits}g}"

    def compare(self, name: str, golden: Numbers | None, now: Numbers) -> str:
        """What has changed, in words; "" for nothing beyond the tolerance."""
        if golden is None:
            return f"{name}: no golden numbers"
        if len(golden) != len(now):
            return f"{name}: {len(golden)} golden numbers, {len(now)} now"
        if not np.all(np.isfinite(now)):
            return f"{name}: not finite"
        moved = np.max(np.abs(np.subtract(now, golden))) / np.max(np.abs(golden))
        if moved <= self.tolerance:
            return ""
        return (
            f"{name}: moved by {moved:.1e} of the largest number, more than "
            f"{self.tolerance:g}"
        )


def posterior_mean(sde: SDE, x: jax.Array, t: jax.Array) -> jax.Array:
    """E[x0 | x_t] where each pixel has two values of its own, blurred by 0.2."""
    alpha, variance = sde.alpha(t), 0.04 * sde.alpha(t) ** 2 + sde.sigma(t) ** 2
    center = jnp.linspace(-0.3, 0.3, x[0].size).reshape(x.shape[1:])[..., None]
    modes = center + jnp.array([-0.6, 0.5])  # [row, col, rgb, mode]
    offset = x[..., None] - alpha * modes
    share = jax.nn.softmax(-(offset**2) / (2 * variance), axis=-1)
    return jnp.sum(share * (modes + 0.04 * alpha / variance * offset), axis=-1)


class Denoiser:
    """That of networks which are wrong by a wave, an image for each prediction."""

    def __init__(self, sde: SDE) -> None:
        self._sde = sde
        self._objectives = [Objective(prediction=name) for name in PREDICTIONS]

    def __call__(self, x: jax.Array, t: jax.Array) -> jax.Array:
        x0 = posterior_mean(self._sde, x, t)
        eps = (x - self._sde.alpha(t) * x0) / self._sde.sigma(t)
        denoised = [
            self._denoise(objective, x[i : i + 1], t, x0[i : i + 1], eps[i : i + 1])
            for i, objective in enumerate(self._objectives)
        ]
        return jnp.concatenate(denoised)

    def _denoise(
        self,
        objective: Objective,
        x: jax.Array,
        t: jax.Array,
        x0: jax.Array,
        eps: jax.Array,
    ) -> jax.Array:
        def apply(params: Any, x: jax.Array, t: jax.Array, label: Any) -> jax.Array:
            right = prediction_target(objective, self._sde, x0, eps, t)
            return right + 0.1 * jnp.sin(3 * x)

        return make_denoiser(apply, None, self._sde, objective)(x, t)

    def with_variance(self, x: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The same, and a variance as of a network that learns it, in [-1, 1]."""
        return self(x, t), jnp.cos(2 * x)


def draw(solver_name: str, options: Mapping[str, Any], sde_name: str) -> Numbers:
    """Pixels of an image for each prediction, all from the same noise, in float64.

    Step by step: to compile so many programs would take three times as long.
    """
    with jax.enable_x64(True), jax.disable_jit():
        sde = create_sde(sde_name)
        solver = create_solver(solver_name, sde, NUM_STEPS, **options)
        grid = default_time_grid(solver_name, sde, **BOUNDS)
        times = create_times(grid, sde, len(solver.evaluations), **BOUNDS)
        keys = jax.random.split(jax.random.key(0), 1)
        images = sample(
            Denoiser(sde),
            solver,
            times,
            jnp.repeat(keys, len(PREDICTIONS)),
            (2, 3, 1),
            sde=sde,
            dtype="float64",
        )
        return np.ravel(images).tolist()


def solver_options(name: str) -> Iterator[dict[str, Any]]:
    """No option, and then each one changed: every choice, or a value of VALUES."""
    yield {}
    annotations = get_type_hints(SOLVERS[name])
    for key, parameter in inspect.signature(SOLVERS[name]).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        choices = (VALUES[key],) if key in VALUES else ()
        if get_origin(annotations[key]) is Literal:
            choices = get_args(annotations[key])
        if annotations[key] is bool:
            choices = (True, False)
        yield from ({key: value} for value in choices if value != parameter.default)


def solver_cases() -> Iterator[tuple[str, Case]]:
    """Every solver on every SDE, and its options on one."""
    for name in sorted(SOLVERS):
        for options in solver_options(name):
            said = "".join(f" {key}={value}" for key, value in options.items())
            for sde in sorted(SDES) if not options else (OF_OPTIONS,):
                case = f"{name}{said} on {sde}"
                yield case, lambda n=name, o=options, s=sde: draw(n, o, s)


def fixed_params(backbone: Backbone) -> Any:
    """Parameters that depend on their names and shapes alone."""

    def fixed(path: Any, leaf: Any) -> np.ndarray:
        name = "/".join(str(part.key) for part in path)
        # Of the old generator, whose numbers NumPy keeps for ever.
        stream = np.random.RandomState(zlib.crc32(name.encode()))
        scale = 0.5 / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        return (scale * stream.normal(size=leaf.shape)).astype(leaf.dtype)

    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(fixed, shapes)


def predict(name: str) -> Numbers:
    """A small backbone's predictions: three images, each of its time and label."""
    backbone = create_tiny(name)
    stream = np.random.RandomState(0)
    x = jnp.asarray(stream.normal(size=(3, 8, 8, 1)), jnp.float32)
    t, label = jnp.array([0.0, 0.4, 1.0]), jnp.array([2, 0, 1])
    output = jax.jit(backbone.apply)(fixed_params(backbone), x, t, label)
    return np.ravel(output).astype(float).tolist()


# Compiled or step by step, the solvers' numbers differ by 4e-12 at most (float64); with
# XLA's optimizations or without, the networks' by 4e-7 (float32).
GOLDEN = {
    "solvers": Golden("solvers.json", 1e-9, 12, dict(solver_cases())),
    "backbones": Golden(
        "backbones.json",
        1e-5,
        7,
        {name: lambda n=name: predict(n) for name in sorted(BACKBONES)},
    ),
}


def main() -> int:
    """Compute everything, print what is new, gone or moved, and write it down."""
    jax.config.update("jax_disable_most_optimizations", True)
    FOLDER.mkdir(exist_ok=True)
    for kind, golden in GOLDEN.items():
        old, kept = golden.read(), {}
        for name, compute in golden.cases.items():
            now = compute()
            change = golden.compare(name, old.get(name), now)
            # What did not move keeps its digits, and does not creep.
            kept[name] = now if change else old[name]
            if change:
                print(f"new: {name}" if name not in old else f"now: {change}")
        for name in sorted({*old} - {*kept}):
            print(f"gone: {name}")
        golden.write(kept)
        print(f"{len(kept)} {kind} in {golden.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

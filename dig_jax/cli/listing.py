"""`dig_jax list WHAT`: what can be chosen, a line each.

Of each kind that alone is imported which has its table.
"""

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from dig_jax.cli.flag_table import MODE_HELP
from dig_jax.errors import InputError
from dig_jax.files.shipped import shipped_configs


def _backbones() -> dict[str, str]:
    from dig_jax.models import BACKBONES

    return _first_lines(BACKBONES)


def _configs() -> dict[str, str]:
    texts = {name: path.read_text("utf-8") for name, path in shipped_configs().items()}
    return {
        name: (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
        for name, text in texts.items()
    }


def _datasets() -> dict[str, str]:
    from dig_jax.data import DATASETS

    return _first_lines(DATASETS)


def _metrics() -> dict[str, str]:
    from dig_jax.metrics import FEATURE_METRICS, METRICS

    of_features = {name: metric.score for name, metric in FEATURE_METRICS.items()}
    return _first_lines(METRICS) | _first_lines(of_features)


def _sdes() -> dict[str, str]:
    from dig_jax.diffusion import SDES

    return _first_lines(SDES)


def _sections() -> dict[str, str]:
    from dig_jax.cli.key_entries import sections

    return sections()


def _solvers() -> dict[str, str]:
    from dig_jax.solvers import SOLVERS

    return _first_lines(SOLVERS)


def _time_grids() -> dict[str, str]:
    from dig_jax.solvers import TIME_GRIDS

    return _first_lines(TIME_GRIDS)


KINDS: dict[str, Callable[[], Mapping[str, str]]] = {
    "backbones": _backbones,
    "configs": _configs,
    "datasets": _datasets,
    "metrics": _metrics,
    "modes": lambda: MODE_HELP,
    "sdes": _sdes,
    "sections": _sections,
    "solvers": _solvers,
    "time_grids": _time_grids,
}


def list_kind(words: list[str]) -> str:
    """A line for each thing of a kind: its name, and what it is.

    Args:
        words: The kind, as in KINDS.

    Raises:
        InputError: No kind, several, or one that there is not.
    """
    kind = " ".join(words)
    if kind not in KINDS:
        raise InputError(
            f"dig_jax list WHAT needs one of {', '.join(KINDS)}; got {kind or 'none'}."
        )
    found = KINDS[kind]()
    width = max(map(len, found))
    return "\n".join(f"{name:<{width}}  {said}" for name, said in found.items())


def _first_lines(table: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: (inspect.getdoc(entry) or "").partition("\n")[0]
        for name, entry in sorted(table.items())
    }

"""Imports point down only, and a few things are imported nowhere."""

import ast
from pathlib import Path

import pytest

import dig_jax

ROOT = Path(dig_jax.__file__).parent
# From the bottom to the top; parts of one line do not know each other.
LAYERS = (
    ("errors", "npz_arrays"),
    ("files",),
    ("graphs", "config", "versions", "mirror"),
    ("roll_call", "target", "compilation_cache", "device_errors"),
    ("distributed",),
    ("command_line",),
    ("interfaces",),
    ("models", "diffusion", "data", "metrics", "images", "sharding", "label_rules"),
    ("samplers", "figures"),
    ("experiment",),
    ("generation", "summary"),
    ("evaluation",),
    ("training", "count_tables"),
    ("exported", "compiled"),
    ("run", "prepare"),
    ("comparison", "interop"),
    ("modes",),
    ("main", "__init__"),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
MODULES = sorted(ROOT.rglob("*.py"))


def part_of(module: Path) -> str:
    return module.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_names(module: Path) -> set[str]:
    """Everything that a module imports, also inside functions, with its full name."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_under(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def any_under(names: set[str], package: str) -> bool:
    return any(is_under(name, package) for name in names)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(ROOT)))
def test_imports_point_down(module):
    mine = part_of(module)
    assert mine in LEVEL, f"{mine} has no layer yet: add it to LAYERS"
    for name in imported_names(module):
        if is_under(name, "dig_jax"):
            other = [*name.split("."), "__init__"][1]
            other = other if other in LEVEL else "__init__"
            below = LEVEL[other] < LEVEL[mine]
            assert below or other == mine, f"{mine} may not import {name}"


def test_only_models_knows_flax():
    knows = {part_of(m) for m in MODULES if any_under(imported_names(m), "flax")}
    assert knows <= {"models"}


@pytest.mark.parametrize("package", ["tensorflow", "pickle"])
def test_nothing_imports(package):
    assert not [m for m in MODULES if any_under(imported_names(m), package)]


def test_only_the_conversion_of_weights_knows_torch():
    knows = [m for m in MODULES if any_under(imported_names(m), "torch")]
    assert knows == [ROOT / "metrics" / "convert.py"]
    at_its_top = ast.parse(knows[0].read_text(encoding="utf-8")).body
    assert not any(
        "torch" in ast.unparse(node)
        for node in at_its_top
        if isinstance(node, ast.Import | ast.ImportFrom)
    )


def test_nothing_runs_code_from_data():
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else None
                assert called not in ("eval", "exec"), f"{module}:{node.lineno}"
                assert not [
                    keyword
                    for keyword in node.keywords
                    if keyword.arg == "allow_pickle"
                    and not (
                        isinstance(keyword.value, ast.Constant)
                        and keyword.value.value is False
                    )
                ], f"{module}:{node.lineno} allows pickle"

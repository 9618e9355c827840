"""Imports point down only, and a few things are imported nowhere."""

import ast
from pathlib import Path

import pytest

import dig_jax
from dig_jax.options import SECTIONS
from dig_jax.training.environment import COMPUTING_CODE

ROOT = Path(dig_jax.__file__).parent
# Folders from the bottom to the top, those of one line from left to right, and beside
# them the modules at the door: each part knows those that stand before it.
LAYERS = (
    (
        "errors versions options",
        "files devices graphs",
        "config interfaces",
        "ops",
    ),
    ("diffusion models solvers data metrics storage reporting", "from_data experiment"),
    ("sampling evaluation prepare",),
    ("training costs", "trained run"),
    ("comparison export report demo cli interop pretrained", "main __init__ __main__"),
)
ORDER = [part for line in LAYERS for parts in line for part in parts.split()]
LEVEL = {part: level for level, part in enumerate(ORDER)}
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


def test_every_part_has_a_layer():
    assert {part_of(module) for module in MODULES} == set(LEVEL)


def test_imports_point_down():
    upward = []
    for module in MODULES:
        mine = part_of(module)
        for name in imported_names(module):
            if is_under(name, "dig_jax"):
                other = [*name.split("."), "__init__"][1]
                other = other if other in LEVEL else "__init__"
                if other != mine and LEVEL[other] > LEVEL[mine]:
                    upward.append(f"{module.relative_to(ROOT)} imports {name}")
    assert not upward


def test_the_code_that_computes_is_where_its_list_says():
    missing = [name for name in COMPUTING_CODE if not (ROOT / name).exists()]
    assert not missing


def test_only_models_knows_flax():
    knows = {part_of(m) for m in MODULES if any_under(imported_names(m), "flax")}
    assert knows <= {"models"}


@pytest.mark.parametrize("package", ["tensorflow", "pickle"])
def test_nothing_imports(package):
    assert not [m for m in MODULES if any_under(imported_names(m), package)]


def test_only_the_conversion_of_weights_knows_torch():
    knows = [m for m in MODULES if any_under(imported_names(m), "torch")]
    assert knows == [ROOT / "interop" / "files.py", ROOT / "metrics" / "convert.py"]
    for module in knows:
        at_its_top = ast.parse(module.read_text(encoding="utf-8")).body
        assert not any(
            "torch" in ast.unparse(node)
            for node in at_its_top
            if isinstance(node, ast.Import | ast.ImportFrom)
        )


def test_below_the_door_nobody_reads_a_configuration():
    """Sections come typed, in an experiment: a default is written in one place."""
    names = ("config/__init__", "config/comparison", "experiment/__init__", "from_data")
    door = {ROOT / f"{name}.py" for name in names}
    door.add(ROOT / "cli" / "command_line.py")  # it writes a flag's value into one
    keys = {*SECTIONS, "get", "seed"}
    readers = []
    for module in set(MODULES) - door:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Subscript | ast.Attribute):
                continue
            reads = isinstance(node, ast.Subscript) or node.attr in keys
            if reads and is_config(node.value):
                readers.append(f"{module}:{node.lineno}")
    assert not readers


def is_config(node: ast.expr) -> bool:
    """Whether an expression is called config, or something's config."""
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name == "config"


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

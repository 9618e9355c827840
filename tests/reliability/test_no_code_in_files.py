"""No file that dig_jax reads is run as code: nothing in the package could do it."""

import ast
from pathlib import Path

import pytest

import dig_jax

PACKAGE = Path(next(iter(dig_jax.__path__)))
FORBIDDEN_MODULES = {
    *("pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal"),
    *("shelve", "yaml", "code", "codeop"),
}
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "execfile"),
    *("extractall", "unpack_archive"),  # archives are read, never unpacked
    *("run_path", "run_module", "import_module", "run_code"),
    *("system", "popen", "spawnl", "execv"),
}
# What may be done all the same, and why.
ALLOWED = {
    ("config/__init__.py", "run_path"): "--config=FILE.py is the user's own program",
    ("__init__.py", "import_module"): "names from a table in that file, loaded late",
}


def name_of(function):
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def findings(source, file="a.py"):
    """What a file imports or calls that could run code from data."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                modules = [alias.name for alias in node.names]
            case ast.ImportFrom():
                modules = [node.module or ""]
            case _:
                modules = []
        yield from (m for m in modules if m.partition(".")[0] in FORBIDDEN_MODULES)
        if not isinstance(node, ast.Call):
            continue
        name, given = name_of(node.func), {k.arg: k.value for k in node.keywords}
        method = isinstance(node.func, ast.Attribute)
        of = name_of(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        # jax's lowered.compile() and re.compile() compile no Python.
        if name in FORBIDDEN_CALLS and not (name == "compile" and method):
            yield name
        pickled = given.get("allow_pickle")
        if pickled is not None and ast.literal_eval(pickled) is not False:
            yield "allow_pickle"
        if (of, name) in (("np", "load"), ("format", "read_array")) and pickled is None:
            yield f"{of}.{name}"
        safe = given.get("weights_only")
        if (of, name) == ("torch", "load") and (
            safe is None or ast.literal_eval(safe) is not True
        ):
            yield "torch.load"


def test_no_module_can_run_what_a_file_says():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    found = {
        (str(file.relative_to(PACKAGE)), what)
        for file in files
        for what in findings(file.read_text(encoding="utf-8"))
    }
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from pickle import loads", ["pickle"]),
        ("import yaml.constructor", ["yaml.constructor"]),
        ("def f():\n    import marshal", ["marshal"]),
        ("eval('1')", ["eval"]),
        ("builtins.exec(x)", ["exec"]),
        ("compile(x, '', 'exec')", ["compile"]),
        ("lowered.compile()", []),
        ("np.load(x, allow_pickle=True)", ["allow_pickle"]),
        ("np.load(x)", ["np.load"]),
        ("np.load(x, allow_pickle=False)", []),
        ("np.lib.format.read_array(x)", ["format.read_array"]),
        ("torch.load(x)", ["torch.load"]),
        ("torch.load(x, weights_only=False)", ["torch.load"]),
        ("torch.load(x, weights_only=True)", []),
        ("tar.extractall()", ["extractall"]),
        ("os.system(x)", ["system"]),
    ],
)
def test_what_it_looks_for_is_found(source, found):
    assert list(findings(source)) == found

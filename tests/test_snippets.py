"""What README, docs and CONTRIBUTING tell people to type is there and works."""

import ast
import builtins
import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dig_jax
from dig_jax.cli.command_line import parse
from dig_jax.cli.modes import MODES
from dig_jax.config import load_config_file, save_run_config
from dig_jax.solvers import create_times, sample

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
# But own_images.md, whose commands tests/test_own_images.py runs: they need its data.
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += [page for page in DOCS if page.name != "own_images.md"]
MODULES = {
    "dig_jax.prepare": "dig_jax/prepare/command.py",
    "dig_jax.interop.convert": "dig_jax/interop/convert.py",
    "dig_jax.metrics.convert": "dig_jax/metrics/convert.py",
    "dig_jax.pretrained.make": "dig_jax/pretrained/make.py",
    "dig_jax.pretrained.check": "dig_jax/pretrained/check.py",
}


def blocks(page, language):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands():
    """Every command of every page, in words, without what is set for it."""
    for page in PAGES:
        for block in blocks(page, "(?:bash|sh)"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                while words and re.match(r"[A-Z_]+=", words[0]):
                    words = words[1:]
                if words[:2] == ["docker", "run"]:  # of an image whose entry point runs
                    words = words[words.index("IMAGE") + 1 :]
                if words:
                    yield pytest.param(words, id=f"{page.name}: {' '.join(words)[:50]}")


@pytest.mark.parametrize("words", [*commands()])
def test_a_command_is_one_that_works(words, tmp_path, monkeypatch):
    match words:
        case ["python", "-m", "dig_jax.main" | "dig_jax", *flags]:
            monkeypatch.chdir(tmp_path)  # configurations come along
            run = [f.partition("=")[2] for f in flags if f.startswith("--workdir=")]
            if run and not any(f.startswith("--config=") for f in flags):
                digits = load_config_file("configs/digits.py")
                Path(run[0]).mkdir(parents=True)
                save_run_config(digits, run[0])
            parse(flags, MODES)
        case ["python", "-m", module, *flags]:
            path = ROOT / MODULES[module]
            other = path.parent / f"{flags[0]}.py"
            if other.is_file() and "add_argument(" in other.read_text():
                path = other  # with options of its own
            known = path.read_text(encoding="utf-8")
            for flag in flags:
                name = flag.partition("=")[0]
                if name == "--config":
                    load_config_file(flag.partition("=")[2])
                elif name.startswith("--") and not name.startswith("--config."):
                    assert f'"{name}"' in known, flag
        case ["python" | "bash", file, *_]:
            assert (ROOT / file).is_file()
        case ["pip", "install", *wanted]:
            known = (ROOT / "setup.py").read_text(encoding="utf-8")
            for extra in re.findall(r"\[(.*?)\]", " ".join(wanted)):
                for name in extra.split(","):
                    assert f'"{name}": [' in known
        case ["export", setting]:
            assert "=" in setting
        case _:
            pytest.fail(f"nobody tries {words}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_snippets_import_what_they_use(page):
    known = {*dir(builtins)}
    for block in blocks(page, "python"):
        tree = ast.parse(block)
        imports: list[ast.stmt] = [
            n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)
        ]
        exec(compile(ast.Module(imports, []), page.name, "exec"), {})
        used = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                known |= {(a.asname or a.name).partition(".")[0] for a in node.names}
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                known.add(node.name)
            elif isinstance(node, ast.arg):
                known.add(node.arg)
            elif isinstance(node, ast.Name):
                bound = isinstance(node.ctx, ast.Store)
                (known if bound else used).add(node.id)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "dig_jax" or node.attr in dig_jax.__all__
        assert used <= known, f"{page.name}: {used - known}"


def test_the_readme_draws(trained_runs, without_optimizations, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(trained_runs.workdir())
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(ROOT / "README.md", "python")
    done = {}
    until = block.partition("\n*")[0]  # an evaluation has tests of its own
    exec(compile(until, "README.md", "exec"), done)
    assert (done["images"].shape, done["images"].dtype) == ((16, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def templates():
    """What the four templates of CONTRIBUTING.md define."""
    defined = {}
    for block in blocks(ROOT / "CONTRIBUTING.md", "python"):
        exec(compile(block, "CONTRIBUTING.md", "exec"), defined)
    return defined


@pytest.mark.parametrize("num_classes", [0, 2])
def test_the_template_of_a_backbone_is_one(templates, num_classes):
    backbone = templates["create_my_network"](
        image_shape=(4, 4, 3), num_classes=num_classes, width=8
    )
    params = jax.eval_shape(backbone.init, jax.random.key(0))
    x, t = jnp.ones((2, 4, 4, 3)), jnp.full(2, 0.5)
    label = jnp.arange(2) if num_classes else None
    predicted = jax.eval_shape(backbone.apply, params, x, t, label)
    features = jax.eval_shape(backbone.features, params, x, t, label)
    assert (predicted.shape, features.shape) == (x.shape, (1, 2, 16, 8))


def test_the_template_of_a_solver_solves(templates):
    """All mass at one image: the solver ends there, by any number of steps."""
    sde = dig_jax.create_sde("vp_linear")
    solver = templates["my_solver"](sde, 3)
    times = create_times("uniform", sde, 3, t_start=1.0, t_end=1e-3)
    keys = jax.random.split(jax.random.key(0), 2)
    drawn = sample(
        lambda x, t: jnp.full_like(x, 0.5), solver, times, keys, (4, 4, 1), sde=sde
    )
    noise = float(sde.sigma(jnp.float32(1e-3)))
    assert np.max(np.abs(drawn - 0.5)) < 6 * noise


def test_the_templates_of_data_set_and_metric_are_such(templates):
    source = templates["create_my_images"]()
    assert isinstance(source, dig_jax.ImageSource)
    images = np.stack([source[i]["image"] for i in range(len(source))])
    labels = np.array([source[i]["label"] for i in range(len(source))])
    bright = dig_jax.LabelledImages(images[labels == 1], labels[labels == 1])
    metric = templates["my_score"]
    assert isinstance(metric, dig_jax.Metric)
    every = dig_jax.LabelledImages(images, labels)
    assert metric(bright, every) == {"brightness_difference": 127.5}

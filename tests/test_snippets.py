"""What README, docs and CONTRIBUTING tell people to type is there and works."""

import ast
import builtins
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dig_jax
from dig_jax.cli.command_line import parse
from dig_jax.cli.commands import answer
from dig_jax.cli.modes import MODES
from dig_jax.config import load_config_file, save_run_config
from dig_jax.metrics.extraction import FeatureSpace
from dig_jax.metrics.feature_scores import scores_from_features
from dig_jax.metrics.feature_summary import FeatureSummary
from dig_jax.metrics.moments import moments_of
from dig_jax.prepare.command import main as prepare
from dig_jax.prepare.sources import SOURCES, PreparedSource
from dig_jax.solvers import create_times, sample

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
JOURNAL = sorted((ROOT / "docs" / "notes").glob("*.md"))
REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
# But own_images.md, whose commands tests/test_own_images.py runs: they need its data.
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += [page for page in DOCS if page.name != "own_images.md"]
# Pages whose lines of Python are run, from the first to the last.
RUN = ["evaluation", "first_pictures", "graph", "relational"]
FEWER = {"1000": "40", "digits1k": "digits40"}  # images, and the scores' names
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
        case ["dig_jax", command, what, ">", _]:
            assert answer([command, what])
        case ["mkdir", "-p", _]:
            pass
        case ["python", "-m", "dig_jax.main" | "dig_jax", *flags]:
            monkeypatch.chdir(tmp_path)  # configurations come along
            run = [f.partition("=")[2] for f in flags if f.startswith("--workdir=")]
            if run and not any(f.startswith("--config=") for f in flags):
                digits = load_config_file("configs/digits.py")
                Path(run[0]).mkdir(parents=True)
                save_run_config(digits, Path(run[0]))
            assert answer(flags) or parse(flags, MODES)
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


@pytest.fixture
def beside_a_run(trained_runs, without_optimizations, tmp_path, monkeypatch):
    """The working folder has a run in runs/digits."""
    shutil.copytree(trained_runs.workdir(), tmp_path / "runs" / "digits")
    monkeypatch.chdir(tmp_path)


def test_the_readme_draws(beside_a_run):
    (block,) = blocks(ROOT / "README.md", "python")
    done = {}
    until = block.partition("\n*")[0]  # an evaluation has tests of its own
    exec(compile(until, "README.md", "exec"), done)
    assert (done["images"].shape, done["images"].dtype) == ((16, 8, 8, 1), np.uint8)


@pytest.mark.parametrize("name", RUN)
def test_every_line_of_python_runs(name, beside_a_run):
    page, done = ROOT / "docs" / f"{name}.md", {}
    for block in blocks(page, "python"):
        for number, fewer in FEWER.items():
            block = block.replace(number, fewer)
        exec(compile(block, page.name, "exec"), done)
    if name == "graph":
        assert (done["added"].sum(), done["added"].max()) == (8, 1)
        assert done["out"].nodes.shape == (16, 4)
        assert np.array_equal(done["back"].adjacency(), done["cylinder"].adjacency())


def headings(page):
    """The anchors of a page, as code hosts and the site make them of its headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles}


@pytest.mark.parametrize(
    "page",
    [*PAGES[:2], ROOT / "CHANGELOG.md", *DOCS, *JOURNAL, *REFERENCE],
    ids=lambda page: page.name,
)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        assert there.is_file(), target
        assert not anchor or anchor in headings(there), target


def test_every_page_is_in_a_table_of_contents():
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    tables = "".join(re.findall(r"^```{toctree}\n(.*?)^```$", text, re.M | re.S))
    listed = set(re.findall(r"\w+(?=>?$)", tables, re.MULTILINE))
    assert {page.stem for page in DOCS} - {"index"} <= listed


def test_the_reference_has_every_public_name():
    text = "".join(page.read_text(encoding="utf-8") for page in REFERENCE)
    shown = set(re.findall(r"\bdig_jax\.(\w+)", text))
    assert {*dig_jax.__all__} - {"__version__"} <= shown


@pytest.fixture(scope="module")
def templates():
    """What the templates of CONTRIBUTING.md define."""
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


def test_the_template_of_a_prepared_set_is_read_as_it_was(
    templates, tmp_path, monkeypatch, capsys
):
    source = PreparedSource(templates["open_my_set"], image_size=8)
    monkeypatch.setitem(SOURCES, "my_set", source)
    assert prepare(["--help"]) == 0
    assert "\n  my_set      The folder of train.npz and" in capsys.readouterr().out
    rng, labels = np.random.default_rng(0), np.arange(6) % 2
    images = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    for split in ("train", "test"):
        np.savez(tmp_path / split, images=images, labels=labels)
    data = tmp_path / "data"
    assert prepare(["my_set", f"--source={tmp_path}", f"--data_dir={data}"]) == 0
    said = re.findall(r"--config\.data\.(\w+)=(\S+)", capsys.readouterr().out)
    flags: dict[str, Any] = {k: int(v) if v.isdecimal() else v for k, v in said}
    read = dig_jax.create_dataset(**flags)
    assert (read.name, read.class_names) == ("my_set", ("dark", "bright"))
    assert not read.may_flip
    records = [read[index] for index in range(len(read))]  # in an order of their own
    found = {(r["image"].tobytes(), int(r["label"])) for r in records}
    pairs = zip(images, labels.tolist(), strict=True)
    assert len(read) == 6
    assert found == {(image.tobytes(), label) for image, label in pairs}


def test_the_template_of_a_metric_of_features_is_one(templates):
    space = FeatureSpace("network", "weights", "none", 2, domain="digits")
    mine, real = (
        FeatureSummary(space, moments_of(np.array([[x, 0.0], [x, 2.0]], np.float32)))
        for x in (3.0, 7.0)
    )
    (score,) = scores_from_features(
        mine, real, force=True, metrics=[templates["MEAN_GAP"]]
    )
    assert (score.family, score.value, score.num_images) == ("mean_gap", 4.0, 2)

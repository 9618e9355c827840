"""Tables of counts: every row of the paper builds, and its document is up to date."""

import inspect
import json
import math
import runpy
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from dig_jax import main as command_line
from dig_jax.config import load_config_file, read_config_file
from dig_jax.costs.count_tables import (
    MARKERS,
    count_record,
    count_tables,
    format_tables,
    write_tables,
)
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from dig_jax.experiment import create_experiment
from dig_jax.models import BACKBONES

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
PAPER_TABLES = CONFIGS / "paper_tables.py"
PUBLISHED = runpy.run_path(str(PAPER_TABLES))["get_config"]().tables
ROWS = sorted({row[2] for _, rows in PUBLISHED for row in rows})
VARIANTS = [
    f"{path.name}:{variant}"
    for path in sorted(CONFIGS.glob("*.py"))
    for variant in runpy.run_path(str(path)).get("VARIANTS", ())
]
LATENT = (
    "imagenet256.py",
    "imagenet512.py",
)  # sizes of other papers, by their own names
# Not from the configuration, or None by default, which no flag could change.
NOT_IN_A_SECTION = {"image_shape", "null_label", "hubs"}
TINY = """
import runpy

def get_config(width="16"):
    config = runpy.run_path({digits!r})["get_config"]()
    config.backbone.update(
        width=int(width), depth=2, hops=1, patch_sizes=(2,), **{more!r}
    )
    return config
"""


@pytest.fixture
def tables(tmp_path):
    """A table of one small network, for an edit by each test."""
    text = TINY.format(digits=str(CONFIGS / "digits.py"), more={})
    (tmp_path / "tiny.py").write_text(text)
    rows = (("Digits", "A", "tiny.py"),)
    return ConfigDict(dict(folder=str(tmp_path), batch=10, tables=(("T", rows),)))


@pytest.fixture(scope="module")
def paper():
    """The paper's tables, counted."""
    return count_tables(read_config_file(str(PAPER_TABLES)).to_dict())


def as_published(row):
    """Millions of parameters and tera-MACs by the habits of the paper's counter.

    fvcore's: 5 operations a value for a LayerNorm, 4 for one without scale and bias.
    The decoder runs on every token. A fixed table of positions is a parameter.
    """
    config = load_config_file(str(CONFIGS / row.published.config))
    section, costs = config.backbone, row.costs
    width = section.width
    sizes = section.get("patch_sizes") or (section.patch_size,)
    patches = [(config.data.image_size // size) ** 2 for size in sizes]
    if section.name == "dit":
        norms = (2 * section.depth + 1) * patches[0] * width * 4
        return costs.params + patches[0] * width, costs.macs + norms
    tokens = sum(patches) + (2 if section.num_classes else 1)
    norms = (2 * (section.depth + 1) + 1) * tokens * width * 5
    decoder = (tokens - patches[0]) * width * sizes[0] ** 2 * 3
    return costs.params, costs.macs + norms + decoder


def own_counts(path):
    """Parameters as the leaves have them."""
    backbone = create_experiment(load_config_file(str(path))).backbone
    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def cells_of(text, row):
    """The cells of a table's row, by the heads of their columns."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads, cells = ([c.strip() for c in lines[i].split("|")] for i in (0, 2 + row))
    return dict(zip(heads[1:-1], cells[1:-1], strict=True))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_complete_and_accepted(name):
    config = load_config_file(str(CONFIGS / name))
    section = set(config.backbone) - {"name"}
    keywords = set(inspect.signature(BACKBONES[config.backbone.name]).parameters)
    assert section - NOT_IN_A_SECTION == keywords - NOT_IN_A_SECTION
    assert create_experiment(config).backbone.image_shape == (
        *(config.data.image_size,) * 2,
        config.data.channels,
    )


def test_a_variants_name_says_its_backbone_and_patches():
    others = (*LATENT, "fashion_mnist.py")
    of_the_paper = [name for name in VARIANTS if not name.startswith(others)]
    for name in of_the_paper:
        section = load_config_file(str(CONFIGS / name)).backbone
        sizes = section.get("patch_sizes") or (section.patch_size,)
        conv = section.get("conv", "sage")
        said = "_".join([section.name, *map(str, sizes)])
        assert name.partition(":")[2] == said + (f"_{conv}" if conv != "sage" else "")


def test_every_row_has_a_variant():
    assert set(ROWS) <= set(VARIANTS)
    assert [len(rows) for _, rows in PUBLISHED][:3] == [12, 16, 6]


def test_an_unknown_variant_gets_one_line_with_the_choices(capsys):
    code = command_line.main(
        [f"--config={CONFIGS / 'cifar10.py'}:dig_mix", "--mode=summary"]
    )
    out, err = capsys.readouterr()
    assert (code, out) == (EXIT_BAD_INPUT, "")
    assert err.startswith("error: ")
    assert "'dig_mix'" in err
    assert "dig_mix_2_4_8" in err
    assert err.count("\n") == 1


def test_the_papers_document_has_what_the_command_gives(paper):
    document = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    begin, end = MARKERS
    _, _, rest = document.partition(begin)
    written, _, _ = rest.partition(end)
    assert written.strip() == format_tables(paper), (
        "Run: python -m dig_jax.main --mode=summary --config=configs/paper_tables.py "
        "--out=docs/paper.md"
    )


def test_transformers_and_the_shifted_mix_fit_the_paper_to_its_last_digit(paper):
    shifted = [*paper.tables.values()][-1][:3]
    rows = [row for rows in paper.tables.values() for row in rows]
    rows = [row for row in rows if "iT/" in row.published.label] + shifted
    assert len(rows) == 6 + 8 + 3
    for row in rows:
        params, macs = as_published(row)
        assert abs(params / 1e6 - row.published.params) <= 0.005, row
        giga = row.published.macs < 0.1  # printed as 96.41G, else as 1.45T
        last_digit = 1e-5 if giga else 1e-2
        assert abs(macs * paper.batch / 1e12 - row.published.macs) <= last_digit / 2, (
            row
        )


def test_residuals_are_ours_over_the_papers(tables, tmp_path):
    small, large = (own_counts(tmp_path / name) for name in ("tiny.py", "tiny.py:24"))
    rows = (
        ("Digits", "A", "tiny.py", small / 1e6, 1.0),
        ("Digits", "B", "tiny.py:24", large / 2e6, None, 7.5),
    )
    tables.tables = (("T", rows),)
    counted = count_tables(tables.to_dict())
    first, second = (cells_of(format_tables(counted), row) for row in range(2))
    assert first["Parameters (M): residual"] == "+0.0%"
    assert second["Parameters (M): residual"] == "+100.0%"
    assert first["Tera-MACs x 10: residual"] == "-100.0%"
    assert second["Tera-MACs x 10: paper"] == "-"
    assert (first["FID: paper"], second["FID: paper"]) == ("-", "7.5")
    record = count_record(counted)
    assert json.loads(json.dumps(record)) == record
    assert [row["params"] for row in record["tables"]["T"]] == [small, large]


def test_a_column_without_a_figure_is_left_out(tables):
    heads = set(cells_of(format_tables(count_tables(tables.to_dict())), 0))
    assert heads == {
        *("Images", "Backbone", "Configuration"),
        *("Parameters (M): ours", "Tera-MACs x 10: ours"),
    }


def test_counts_do_not_depend_on_how_the_network_is_run(tables, tmp_path):
    more = dict(aggregation="dense", unroll=0, remat=True)
    text = TINY.format(digits=str(CONFIGS / "digits.py"), more=more)
    (tmp_path / "other.py").write_text(text)
    rows = (("Digits", "A", "tiny.py"), ("Digits", "A", "other.py"))
    tables.tables = (("T", rows),)
    first, second = count_tables(tables.to_dict()).tables["T"]
    assert first.costs == second.costs


def test_tables_go_between_the_markers_of_a_file(tables, tmp_path):
    counted = count_tables(tables.to_dict())
    path = tmp_path / "new" / "counts.md"
    write_tables(path, counted)
    alone = path.read_text()
    assert format_tables(counted) in alone
    begin, end = MARKERS
    path.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    for _ in range(2):  # the second time changes nothing
        write_tables(path, counted)
        assert path.read_text() == f"before\n{alone.rstrip()}\nafter\n"


def test_a_file_without_markers_is_not_overwritten(tables, tmp_path):
    path = tmp_path / "notes.md"
    path.write_text("notes\n")
    with pytest.raises(InputError, match=r"notes\.md must have the lines '<!-- counts"):
        write_tables(path, count_tables(tables.to_dict()))
    assert path.read_text() == "notes\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(batch=0), r"batch: Input should be greater than 0"),
        (dict(tables=(("T", (("A",),)),)), r"tables\.0\.1\.0"),
        (dict(tables=(("T", (("A", "B", "tiny.py", -1.0),)),)), r"got -1\.0"),
        (dict(tables=(("T", (("A", "B", "none.py"),)),)), r"none\.py"),
        (dict(tables=(("T", (("A", "B", "tiny.py:0"),)),)), r"width must"),
    ],
)
def test_tables_that_do_not_work_are_refused(tables, change, said):
    tables.unlock()
    tables.update(change)
    with pytest.raises(InputError, match=said):
        count_tables(tables.to_dict())


def test_the_command_prints_and_writes_tables(tables, tmp_path, capsys):
    path = tmp_path / "tables.py"
    path.write_text(
        "from ml_collections import ConfigDict\n"
        f"def get_config(): return ConfigDict({tables.to_dict()!r})\n"
    )
    expected = format_tables(count_tables(tables.to_dict()))
    summary = ["--mode=summary", f"--config={path}"]
    assert command_line.main(summary) == EXIT_DONE
    assert capsys.readouterr().out.strip() == expected
    assert command_line.main([*summary, "--json"]) == EXIT_DONE
    record = json.loads(capsys.readouterr().out)
    assert record == count_record(count_tables(tables.to_dict()))
    out = tmp_path / "counts.md"
    assert command_line.main([*summary, f"--out={out}"]) == EXIT_DONE
    assert expected in out.read_text()
    capsys.readouterr()
    for other in ("train", "evaluate"):
        arguments = [f"--mode={other}", f"--config={path}", f"--workdir={tmp_path}"]
        assert command_line.main(arguments) == EXIT_BAD_INPUT
        assert capsys.readouterr().err.startswith("error: ")

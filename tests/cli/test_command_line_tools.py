"""What the command line says without a run: lists, keys, the reference, completion."""

import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from dig_jax import main as command_line
from dig_jax.cli.completion import SCRIPTS, completion
from dig_jax.cli.explain import explain
from dig_jax.cli.flag_table import MODE_HELP
from dig_jax.cli.key_entries import all_entries, marks_words
from dig_jax.cli.listing import KINDS, list_kind
from dig_jax.cli.reference import reference
from dig_jax.cli.type_words import PLAIN, type_words
from dig_jax.data import DATASETS
from dig_jax.diffusion import SDES
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE
from dig_jax.experiment import FREE_KEYS, TABLES
from dig_jax.files.shipped import shipped_configs
from dig_jax.metrics import FEATURE_METRICS, METRICS
from dig_jax.models import BACKBONES
from dig_jax.options import SECTIONS
from dig_jax.options.drawing import SampleOptions
from dig_jax.options.keys import Marks, documented, keys_of
from dig_jax.options.limits import ImageSize
from dig_jax.solvers import SOLVERS, TIME_GRIDS

ROOT = Path(__file__).parents[2]
LISTED = {
    "backbones": BACKBONES,
    "configs": shipped_configs(),
    "datasets": DATASETS,
    "metrics": METRICS | FEATURE_METRICS,
    "modes": MODE_HELP,
    "sdes": SDES,
    "sections": SECTIONS,
    "solvers": SOLVERS,
    "time_grids": TIME_GRIDS,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_has_a_line_for_each_thing_that_says_what_it_is(kind):
    lines = [line.split(maxsplit=1) for line in list_kind([kind]).splitlines()]
    assert {name for name, _ in lines} == set(LISTED[kind])
    assert all(len(said) > 10 for _, said in lines)


def test_commands_stand_before_flags(capsys):
    assert command_line.main(["list", "solvers"]) == EXIT_DONE
    assert "unipc" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list"], "one of backbones, .* got none"),
        (["list", "backbone"], "one of backbones, .* got backbone"),
        (["lists"], "Unknown command 'lists'.*list, completion, reference"),
        (["completion", "csh"], "one of bash, zsh, fish; got csh"),
        (["reference", "backbone"], "takes nothing, got backbone"),
        (["--explain"], "--explain=backbone.hops"),
        (["--explain=seed", "--mode=sample"], "stands alone .*got also --mode=sample"),
        (["--mode=sample", "--explain", "seed"], "stands alone .*also --mode=sample"),
        (["--explain=seed", "--explain=sde"], "takes one key, got also --explain=sde"),
        (["--explain=backbone.hop"], "Perhaps backbone.hops"),
        (["--explain=bakbone"], "Perhaps backbone"),
        (["--explain=learningrate"], r"Perhaps .*optimizer\.learning_rate"),
        (["--explain=quux"], "No key and no section 'quux'. Sections: backbone, "),
    ],
)
def test_a_misspelt_word_is_one_line_with_the_choices(arguments, said, capsys):
    assert command_line.main(arguments) == EXIT_BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said, line)


def rows(text):
    """The rows of one explained key."""
    flat = re.sub(r"\n {12}", " ", text)
    return dict(re.findall(r"^  (\w+) +(.*)$", flat, re.M))


def test_a_key_is_explained_by_its_section_type_default_meaning_and_names():
    found = explain("backbone.hops")
    assert found.splitlines()[0] == "backbone.hops"
    assert rows(found) == {
        "type": "a whole number above 0",
        "default": "2",
        "of": "dig_mix, dig_parallel",
        "meaning": documented(BACKBONES["dig_mix"])["hops"],
        "changing": "A run may not go on with another value, which changes what a "
        "training step computes, and images.",
        "written": "--config.backbone.hops=VALUE",
    }
    assert explain("config.backbone.hops") == explain("hops") == found


def test_a_name_is_explained_with_its_choices():
    assert rows(explain("sample.solver"))["choices"] == ", ".join(sorted(SOLVERS))
    assert rows(explain("backbone.name"))["choices"] == ", ".join(sorted(BACKBONES))


@pytest.mark.parametrize("key", [k for k in keys_of(SampleOptions) if "inpaint" in k])
def test_what_changes_inpainted_images_is_told_so(key):
    changing = rows(explain(f"sample.{key}"))["changing"]
    assert "changes the images that are drawn around known pixels" in changing


def test_defaults_are_explained_by_name_where_names_differ():
    assert "8 (digits)" in rows(explain("data.image_size"))["default"]


def test_a_section_is_explained_by_its_keys_and_names():
    found = explain("sde")
    for word in (*SDES, *(key for made in SDES.values() for key in keys_of(made))):
        assert re.search(rf"^  {word}  ", found, re.M)


@pytest.mark.parametrize("section", TABLES)
def test_every_constructor_says_what_its_keywords_mean(section):
    for constructor in TABLES[section].values():
        for name, key in keys_of(constructor).items():
            assert key.meaning, (constructor, name)


def test_every_key_is_explained_with_a_meaning_and_its_marks():
    entries = all_entries()
    paths = {entry.path for entry in entries}
    assert {*FREE_KEYS, "seed", "compare.budget"} < paths
    for entry in entries:
        assert len(entry.meaning) > 4, entry
        assert entry.type
        assert entry.defaults
        if entry.marks is not None:
            may = entry.path in FREE_KEYS
            assert (" may go on" in marks_words(entry.marks)) == may, entry.path


def test_marks_are_told_apart():
    said = {
        marks_words(Marks(free, bits, images))
        for free in (True, False)
        for bits in (True, False)
        for images in (True, False)
    }
    assert len(said) == 8


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, PLAIN[bool]),
        (ImageSize, "above 0, up to 4096, or 2 values, each a whole number above 0"),
        (keys_of(SampleOptions)["order"].type, "one of 1, 2, 3, or None"),
        (keys_of(SampleOptions)["seed"].type, "a whole number from 0 on"),
        (tuple[float, float], "2 values, each a number"),
        (tuple[str, ...] | None, "several values, each text, or None"),
    ],
)
def test_types_are_told_in_words(annotation, words):
    assert words in type_words(annotation)


def test_the_committed_reference_is_the_one_that_is_printed():
    committed = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert committed == reference() + "\n", (
        "docs/configuration.md is not what the package says now; write it again with "
        "python -m dig_jax reference > docs/configuration.md"
    )


def test_the_reference_has_every_key_of_every_section():
    page = reference()
    for entry in all_entries():
        assert f"| `{entry.key}` |" in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    cells = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
    assert "\\`" not in page  # code is shown as such
    assert cells == {3, 5, 7}  # of names, of a comparison's keys, of all other keys


SHOW = {
    "bash": "dig_jax() { printf '<%s>' \"$@\"; echo; }",
    "zsh": "dig_jax() { printf '<%s>' \"$@\"; echo }",
}
STARTED = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
TYPED = {
    "dig_jax --mode=ev\t": "<--mode=evaluate>",
    "dig_jax comp\tba\t": "<completion><bash>",
    "dig_jax list sol\t": "<list><solvers>",
    "dig_jax --config.samp\tseed=3": "<--config.sample.seed=3>",
    "dig_jax --config.backbone.hop\t3": "<--config.backbone.hops=3>",
    "dig_jax --config.backbone.name=dig_r\t --dry\t": (
        "<--config.backbone.name=dig_relational><--dry_run>"
    ),
    "dig_jax --config.logging.wandb_p\tx": "<--config.logging.wandb_project=x>",
    "dig_jax --config=configs/imagenet6\t": "<--config=configs/imagenet64.py>",
    "dig_jax --workdir=fol\tins\t": "<--workdir=folder/inside>",
    "dig_jax --workdir=pre\tdig\t": "<--workdir=pretrained:digits>",
    "dig_jax --init_from=pretrained:fa\t": "<--init_from=pretrained:fashion_mnist>",
}


class Terminal:
    """A shell with a terminal of its own, in which one can type."""

    def __init__(self, shell, folder):
        self._end, theirs = pty.openpty()
        self._shell = subprocess.Popen(
            STARTED[shell],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb"},
        )
        os.close(theirs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._shell.kill()
        self._shell.wait()
        os.close(self._end)

    def type(self, text, shows):
        """Type a line; returns the last match of a pattern among what comes."""
        os.write(self._end, f"{text}\n".encode())
        came, deadline = "", time.monotonic() + 60
        while not (found := re.findall(shows, came)):
            assert time.monotonic() < deadline, came
            if select.select([self._end], [], [], 1)[0]:
                came += os.read(self._end, 2**16).decode(errors="replace")
        return found[-1]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """A folder with the scripts, and with one to be completed."""
    folder = tmp_path_factory.mktemp("completed")
    (folder / "folder").mkdir()
    (folder / "folder" / "inside").touch()
    for shell in SCRIPTS:
        (folder / shell).write_text(completion([shell]))
    return folder


@pytest.mark.parametrize("shell", STARTED)
def test_tab_completes_in_a_real_shell(shell, scripts):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    starts = "autoload -U compinit; compinit -u -D; " if shell == "zsh" else ""
    with Terminal(shell, scripts) as terminal:
        terminal.type(
            f"{starts}source ./{shell}; {SHOW[shell]}; echo rea''dy", r"ready\r?\n"
        )
        for typed, given in TYPED.items():
            assert terminal.type(typed, r"((?:<[^>]*>)+)\r?\n") == given


def test_fish_completes_the_same(scripts):
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    for typed, given in TYPED.items():
        first = typed.split("\t")[0]
        found = subprocess.run(
            ["fish", "--no-config", "-c", f"source fish; complete -C '{first}'"],
            cwd=scripts,
            env={"PATH": os.environ["PATH"], "HOME": str(scripts)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        words = re.findall("<(.*?)>", given)
        wanted = words[len(first.split()) - 2]
        assert any(wanted.startswith(word) for word in found), (typed, found)


def test_a_tab_starts_no_python(scripts):
    for shell in SCRIPTS:
        script = (scripts / shell).read_text()
        calls = [line for line in script.splitlines() if not line.startswith("#")]
        assert not [line for line in calls if "python" in line]

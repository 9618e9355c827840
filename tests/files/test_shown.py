"""Text of files is shown as text: in a terminal, in Markdown, in HTML."""

import ast
from pathlib import Path

import pytest
from absl import logging

import dig_jax
from dig_jax.files.shown import (
    LINE_END,
    in_markdown,
    printable,
    say,
    spell_out_logs,
)

PACKAGE = Path(next(iter(dig_jax.__path__)))
# What prints by itself: `say`, and the script that is copied beside an export.
PRINTERS = {"files/shown.py", "export/standalone.py"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, é and 中", "plain, é and 中"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\rb\nc\x85d\u2028e", r"a\rb\nc\x85d\u2028e"),
        ("\u202eevil\u200b", r"\u202eevil\u200b"),
        ("\ud800", r"\ud800"),
        (3, "3"),
    ],
)
def test_what_is_no_visible_character_is_spelled_out(text, shown):
    assert printable(text) == shown
    assert all(c.isprintable() for c in printable(text))


def test_line_ends_stay_where_they_are_meant():
    assert printable("a\n\x1bb", keep=LINE_END) == "a\n\\x1bb"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("frechet_pixels 0.5", "frechet_pixels 0.5"),
        ("<img src=x onerror=y>", "&lt;img src=x onerror=y&gt;"),
        ("[a](http://b) `c`", r"\[a\](http://b) \`c\`"),
        ("a | b\n| c", r"a \| b\\n\| c"),
        ("_a_ *b* # c & d", r"\_a\_ \*b\* \# c &amp; d"),
    ],
)
def test_text_is_no_markup(text, shown):
    assert in_markdown(text) == shown


def test_what_is_said_and_logged_recolours_no_terminal(capsys, caplog):
    say("class \x1b[31mcat\nend")
    assert capsys.readouterr().out == "class \\x1b[31mcat\nend\n"
    spell_out_logs()
    logging.warning("%s is damaged: %s", "a\x07b", "\x1b[2J")
    assert caplog.messages[-1] == "a\\x07b is damaged: \\x1b[2J"


def test_the_package_prints_through_one_door():
    """Text of files is in much of what is printed; JSON escapes by itself."""
    printed = {
        (str(file.relative_to(PACKAGE)), ast.unparse(node.args[0]))
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    }
    assert {file for file, _ in printed} >= PRINTERS
    others = {said for file, said in printed if file not in PRINTERS}
    assert others <= {"json.dumps(record)"}

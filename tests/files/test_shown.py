"""Text of files is shown as text: in a terminal, in Markdown, in HTML."""

import pytest

from dig_jax.files.shown import LINE_END, in_markdown, printable


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

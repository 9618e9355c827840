"""How Sphinx makes the site of these pages: `bash launch/docs.sh`."""

import importlib
import inspect
import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import dig_jax

project, author = "dig_jax", "the authors of dig_jax"
version = release = dig_jax.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
]

html_theme = "sphinx_book_theme"
html_title = "dig_jax"
html_favicon = "_static/graph.svg"
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "navbar_persistent": [],  # one field to search in, beside the pages
}
html_show_copyright = html_show_sourcelink = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = [
    "myst.header",  # CONTRIBUTING.md and CHANGELOG.md are included below their titles
]

# A docstring puts code between single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 72
nitpicky = True
nitpick_ignore_regex = [
    # Types of other packages, and names of axes: there is no page to link to.
    (r"py:.*", r"(?!dig_jax\b).*"),
    # A type of an inner module that has no entry; one that has is linked.
    (r"py:class", r"dig_jax\.\w+\.\w+.*"),
]


class Choices(SphinxDirective):
    """`.. choices:: dig_jax.BACKBONES`: the entries of a table, and each one's page."""

    required_arguments = 1

    def run(self) -> list[Any]:
        """A table of names and first lines, then what is a function in full."""
        module, name = self.arguments[0].rsplit(".", 1)
        entries = getattr(importlib.import_module(module), name)
        lines = [".. list-table::", "   :widths: 25 75", ""]
        for key, entry in entries.items():
            first = (inspect.getdoc(entry) or "").partition("\n")[0]
            lines += [f"   * - ``{key}``", f"     - {first}"]
        for entry in entries.values():
            if inspect.isfunction(entry):
                where = f"{entry.__module__}.{entry.__qualname__}"
                lines += ["", f".. autofunction:: {where}"]
        return self.parse_text_to_nodes("\n".join(lines))


NAMES = {"Gt(gt=0)": "Positive", "Ge(ge=0)": "NonNegative"}
HOMES = r"~?\b(?:typing|annotated_types|collections\.abc|jaxlib\._jax)\."
WORDS = [(HOMES, ""), (r"Path \| Path", "Path"), ("<factory>", "...")]


def shorten(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, shown: str, returned: str
) -> tuple[str, str]:
    """A signature without the words that pydantic's bounds are made of."""
    return plain(shown), plain(returned)


def plain(signature: str) -> str:
    """`Annotated[int, Gt(gt=0)]` as PositiveInt; other marks of a type left out."""
    if not signature:
        return signature
    for pattern, short in WORDS:
        signature = re.sub(pattern, short, signature)
    while "Annotated[" in signature:
        # The last one has no other inside.
        before, _, rest = signature.rpartition("Annotated[")
        depth, stop, commas = 1, 0, []
        for stop, letter in enumerate(rest):
            depth += (letter in "[(") - (letter in "])")
            if depth == 0:
                break
            if depth == 1 and letter == ",":
                commas.append(stop)
        kind, mark = rest[: commas[0]], rest[commas[0] + 1 : stop].strip()
        named = kind in ("int", "float") and mark in NAMES
        kind = f"{NAMES[mark]}{kind.capitalize()}" if named else kind
        signature = before + kind + rest[stop + 1 :]
    return signature


def setup(app: Sphinx) -> None:
    """Add what the pages need."""
    app.add_directive("choices", Choices)
    app.connect("autodoc-process-signature", shorten)

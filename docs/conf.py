"""Sphinx configuration: `make docs` builds the site into build/docs, without a network."""

import dataclasses
import html
import itertools
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

project = "genray"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = "genray"
html_show_copyright = False
smartquotes = False  # they would make a dash of the two hyphens of an option
html_static_path = ["_static"]
html_css_files = ["site.css", "layout.css"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
autoclass_content = "both"  # parameters are in the docstring of `__init__`
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
# Pages link to source files of the repository, which are not part of the site.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]
# Sphinx's default renderer loads a script from another site. Browsers show MathML without one.
html_math_renderer = "mathml"


def setup(app: Sphinx) -> None:
    """Register the renderer of formulas, and what turns docstrings into pages."""
    app.add_html_math_renderer("mathml", (show_inline, None), (show_block, None))
    app.connect("autodoc-process-docstring", docstring_as_rst)
    app.connect("autodoc-process-signature", short_signature)


def show_inline(page: HTML5Translator, node: nodes.math) -> None:
    """Write an inline formula as MathML."""
    page.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def show_block(page: HTML5Translator, node: nodes.math_block) -> None:
    """Write a displayed formula as MathML."""
    page.body.append(f'<div class="formula">{mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def mathml(node: nodes.Element, *, as_block: bool) -> str:
    """Translate a node's LaTeX to MathML. A formula that cannot be translated is a warning, with
    which the strict build fails.
    """
    formula = node.astext()
    known = re.sub(r"\\([bB]ig)(?![a-zA-Z])", r"\\\1l", formula)  # docutils lacks \big
    known = re.sub(r"frac(\d)(\w)", r"frac{\1}{\2}", known)  # docutils reads \frac12 as 12 / …
    try:
        return tex2mathml(known, as_block=as_block)
    except MathError as error:
        logging.getLogger(__name__).warning("%s: %s", formula, error, location=node)
        return html.escape(formula)


# -- the API reference -----------------------------------------------------------------------------

NAMES = re.compile(r"(    \w[\w, *]*( \([^\n]*\))?: [^\n]*\n?(     +[^\n]*\n?)*)+")
"""An indented block that explains one name after another, such as parameters or exceptions."""


def docstring_as_rst(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Turn a docstring, which is plain text, into reStructuredText, in place.

    Words in backticks become code, indented blocks become lists of names or literal blocks, and
    characters that reStructuredText would interpret are escaped.
    """
    blocks: list[str] = []
    for literal, some in itertools.groupby(lines, lambda line: line.startswith("    ")):
        block = "\n".join(some)
        if literal and NAMES.fullmatch(block):
            joined = re.sub(r"\n {5,}", " ", block)
            names = re.sub(r"^    (\w[^\n:]*):", r"\n* `\1`:", joined, flags=re.MULTILINE)
            blocks.append(f"{escaped(names)}\n")
        elif literal and block.strip():
            blocks.append(f"\n::\n\n{block}\n")
        else:
            blocks.append(escaped(re.sub(r"::$", ":", block, flags=re.MULTILINE)))
    lines[:] = "\n".join(blocks).split("\n")


def escaped(text: str) -> str:
    """Return plain text as reStructuredText, with what is in backticks as code."""
    words = re.split(r"(`[^`]+`)", text)
    words[::2] = [re.sub(r"((?<!\n)[*]|[\\|`]|_(?!\w))", r"\\\1", word) for word in words[::2]]
    # Code may touch other characters: an escaped space, which is not shown, divides them.
    words[1::2] = [rf"\ `{code}`\ " for code in words[1::2]]
    return "".join(words)


def short_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    """Leave out the long signature of a configuration: its fields are listed below it."""
    if what == "class" and dataclasses.is_dataclass(thing) and len(dataclasses.fields(thing)) > 4:
        return "(**fields)", ""
    return None

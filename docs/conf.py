"""Sphinx configuration: `make docs` builds the site into build/docs, without a network."""

import dataclasses
import html
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
html_static_path = ["_static"]
html_css_files = ["formulas.css", "layout.css"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
autoclass_content = "both"  # parameters are in the docstring of `__init__`
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


def docstring_as_rst(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Turn a docstring, which is plain text, into reStructuredText, in place.

    Words in backticks become code, indented blocks become literal blocks, and characters that
    reStructuredText would interpret are escaped.
    """
    text, literal = [], False
    for line in lines:
        if line.startswith("    ") and line.strip():
            if not literal:
                text += ["", "::", ""]
            literal = True
            text.append(line)
            continue
        if line.strip() and literal:
            text.append("")
        literal = literal and not line.strip()  # an empty line does not end a literal block
        line = re.sub(r"::$", ":", line)
        parts = re.split(r"(`[^`]+`)", line)
        text.append(
            "".join(
                f"`{part}`"
                if part.startswith("`")
                else re.sub(r"([\\*|]|_(?!\w)|`)", r"\\\1", part)
                for part in parts
            )
        )
    lines[:] = text


def short_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    """Leave out the long signature of a configuration: its fields are listed below it."""
    if what == "class" and dataclasses.is_dataclass(thing) and len(dataclasses.fields(thing)) > 4:
        return "(**fields)", ""
    return None

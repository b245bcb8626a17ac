"""Sphinx configuration: `make docs` builds the site into build/docs, without a network."""

import html
import re
import sys
from pathlib import Path

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
html_static_path = ["_static"]
html_css_files = ["formulas.css"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
# Docstrings are plain text, so autodoc shows them as they are written.
autodoc_member_order = "bysource"
# Pages link to source files of the repository, which are not part of the site.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]
# Sphinx's default renderer loads a script from another site. Browsers show MathML without one.
html_math_renderer = "mathml"


def setup(app: Sphinx) -> None:
    """Register the renderer of formulas."""
    app.add_html_math_renderer("mathml", (show_inline, None), (show_block, None))


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

"""Sphinx configuration: `make docs` builds the site into build/docs, without a network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

project = "genray"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = "genray"
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
# Docstrings are plain text, so autodoc shows them as they are written.
autodoc_member_order = "bysource"
# Pages link to source files of the repository, which are not part of the site.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]

"""Sphinx settings. Build: make docs, or python -m sphinx -W -b html docs docs/_build/html."""

from __future__ import annotations

import re
from importlib import metadata

project = "napari-mil"
author = "the napari-mil developers"
copyright = "2026, the napari-mil developers"
release = metadata.version("napari-mil")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False, "exclude-members": "model_config, model_fields"}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Signals", "params_style")]

html_theme = "furo"
html_title = "napari-mil"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#7a2c8f", "color-brand-content": "#7a2c8f"},
    "dark_css_variables": {"color-brand-primary": "#d59be6", "color-brand-content": "#d59be6"},
    "footer_icons": [],
}
html_show_sphinx = False


def setup(app) -> None:
    """File patterns in docstrings (*.svs) are no emphasis."""

    def escape(_app, _what, _name, _thing, _options, lines: list[str]) -> None:
        lines[:] = [re.sub(r"(?<![\\`*\w])\*(?=\.\w)", r"\\*", line) for line in lines]

    app.connect("autodoc-process-docstring", escape)

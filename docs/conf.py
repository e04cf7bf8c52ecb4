"""Settings of the documentation site: ``sphinx-build -W -b html docs site`` (the extra ``[docs]`` has what it needs).

Nothing is fetched: no inventories of other projects, no fonts, no badges.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_task2vec import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).resolve().parent / "_ext"))

project = "hf_task2vec"
author = "The hf_task2vec authors"
project_copyright = author
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "command_pages",
    "repository_links",
    "known_names",
    "mathml",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_ext"]
nitpicky = True
smartquotes = False  # "--option" stays what it is

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_param = False  # a plain list: types stand in the signature, and one entry may name several parameters
# Two names in one entry, again.
napoleon_custom_sections = [("Attributes", "params_style")]

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"{project} {release}"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}


def keep_colon(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep napoleon from reading what stands before a colon in a property's first sentence as its type."""
    if what in ("attribute", "data", "property") and lines:
        lines[0] = lines[0].replace(": ", " – ")


def setup(app: Sphinx) -> None:
    """Connect the hook, before napoleon's own."""
    app.connect("autodoc-process-docstring", keep_colon, priority=400)

"""Configuration of the documentation site: `make docs` builds it with Sphinx into docs/_build/html."""

from mlfix_train import __version__

project = "mlfix-train"
author = "the mlfix-train contributors"
copyright = "2026, the mlfix-train contributors"
release = __version__

extensions = [
    "myst_nb",  # Markdown and notebooks
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # tests execute the notebooks, which keep their output
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings give shapes, units and ranges
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

suppress_warnings = ["misc.highlighting_failure"]  # keys.md shows what `--help` prints, which is nearly YAML

html_theme = "furo"
html_title = "mlfix-train"
html_static_path: list[str] = []
copybutton_exclude = ".linenos, .gp, .go"

"""Configuration of the documentation. It builds without a network."""

from __future__ import annotations

from tars_settings._version import __version__

project = "tars-settings"
author = "The tars-settings developers"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's word
version = release = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {version}"
html_show_sphinx = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
doctest_test_doctest_blocks = "default"
trim_doctest_flags = True

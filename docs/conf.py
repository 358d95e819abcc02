# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The documentation site: ``make docs``. Nothing is loaded from the network, neither now nor by its pages."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "monai_memo"
author = "monai_memo contributors"
project_copyright = "monai_memo contributors, Apache-2.0"
release = version = version_of("monai-memo")

extensions = [
    "repository_pages",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_copybutton",
]
# The server of the review lives in MONAI Label's environment (docs/review.md) and has no interface for programs.
apidoc_modules = [
    {
        "path": "../monai_memo",
        "destination": "api/modules",
        "exclude_patterns": ["../monai_memo/label/server", "../monai_memo/label/app", "**/__main__.py"],
        "separate_modules": True,
        "module_first": True,
        "automodule_options": {"members", "show-inheritance"},
    }
]
exclude_patterns = ["api/modules/modules.rst", "_build", "figures", "studies", "extensions"]
suppress_warnings = ["myst.header"]  # headings of bundles are those that MONAI's model zoo asks for

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # tutorials are committed executed; tests run them again
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_default_options = {"ignore-module-all": True}  # a name that a room hands on stands where it is made
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of dataclasses, without documenting them twice

html_theme = "furo"
html_title = f"monai_memo {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
copybutton_prompt_text = "$ "

SECTIONS = ("Args:", "Attributes:")


def split_names(lines: list[str]) -> list[str]:
    """``a, b: text`` as two entries: napoleon takes the first names for the type of the last one."""
    result: list[str] = []
    names: list[str] = []
    section, entry = False, []

    def flush() -> None:
        for name in names:
            result.extend([entry[0].replace(", ".join(names), name, 1), *entry[1:]])
        entry.clear()
        names.clear()

    for line in lines:
        found = re.match(r"    (\w+(?:, \w+)+): ", line) if section else None
        if names and (found or not line.startswith("     ")):
            flush()
        if found:
            names[:] = found.group(1).split(", ")
        (entry if names else result).append(line)
        if line and not line.startswith(" "):
            section = line in SECTIONS
    flush()
    return result


def setup(app: Any) -> None:
    """Before napoleon, whose priority is 500."""

    def process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
        lines[:] = split_names(lines)

    app.connect("autodoc-process-docstring", process, priority=400)

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The API reference is built from the docstrings without a warning, and leaves nothing public out."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import monai_memo

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "monai_memo"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The HTML. Built beside a link to the package, since Sphinx writes its lists of modules among its sources."""
    place = tmp_path_factory.mktemp("reference")
    shutil.copytree(ROOT / "docs" / "api", place / "docs" / "api", ignore=shutil.ignore_patterns("modules", "_build"))
    (place / "monai_memo").symlink_to(PACKAGE)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs/api", "html"]
    run = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    return place / "html"


def test_every_public_name_is_listed_and_linked(built: Path) -> None:
    index = (built / "index.html").read_text(encoding="utf-8")
    for name in set(monai_memo.__all__) - {"__version__"}:
        assert f'#{getattr(monai_memo, name).__module__}.{name}" title=' in index, name


def test_every_module_has_a_page_with_its_docstring(built: Path) -> None:
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if (
            path.name == "__init__.py"
            or path.name == "__main__.py"
            or parts[1:3] in (("label", "server"), ("label", "app"))
        ):
            continue
        assert (built / "modules" / f"{'.'.join(parts)}.html").is_file(), parts


def test_arguments_that_share_a_line_are_told_apart(built: Path) -> None:
    page = (built / "modules" / "monai_memo.audit.configuration.html").read_text(encoding="utf-8")
    for name in ("train", "heldout", "synthetic"):
        assert f"<strong>{name}</strong> (<em>str</em>)" in page, name


def test_no_path_of_the_machine(built: Path) -> None:
    for path in built.rglob("*.html"):
        assert str(ROOT) not in path.read_text(encoding="utf-8"), path.name

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole documentation site is built without a warning (slow: a minute), and loads nothing from other hosts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import monai_memo

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "monai_memo"
BESIDE = ("monai_memo", "tutorials", "bundles", "tests", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
BESIDE += ("CODE_OF_CONDUCT.md", "CITATION.cff", "LICENSE", "setup.cfg", "constraints.txt", ".github")
MADE = ("modules", "_build", "tutorials", "bundles", "changelog.md", "contributing.md", "security.md")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The HTML. Built beside links to the repository, since pages that lie elsewhere are copied among the sources."""
    place = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", place / "docs", ignore=shutil.ignore_patterns(*MADE))
    for name in BESIDE:
        (place / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", "html"]
    run = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=1200)
    assert run.returncode == 0, run.stderr[-5000:]
    return place / "html"


def test_every_public_name_is_listed_and_linked(built: Path) -> None:
    index = (built / "api" / "index.html").read_text(encoding="utf-8")
    for name in set(monai_memo.__all__) - {"__version__"}:
        assert f'#{getattr(monai_memo, name).__module__}.{name}" title=' in index, name


def test_every_module_has_a_page_with_its_docstring(built: Path) -> None:
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.name in ("__init__.py", "__main__.py") or parts[1:3] in (("label", "server"), ("label", "app")):
            continue
        assert (built / "api" / "modules" / f"{'.'.join(parts)}.html").is_file(), parts


def test_arguments_that_share_a_line_are_told_apart(built: Path) -> None:
    page = (built / "api" / "modules" / "monai_memo.audit.configuration.html").read_text(encoding="utf-8")
    for name in ("train", "heldout", "synthetic"):
        assert f"<strong>{name}</strong> (<em>str</em>)" in page, name


def test_tutorials_are_pages_with_their_pictures(built: Path) -> None:
    for path in ROOT.glob("tutorials/*.ipynb"):
        page = (built / "tutorials" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert page.count("<img ") >= 2 and "cell_output" in page, path.name


def test_links_of_readme_lead_to_pages_of_the_site(built: Path) -> None:
    page = (built / "index.html").read_text(encoding="utf-8")
    for name in ("install", "verdict", "glossary", "tutorials/01_is_it_safe_to_share", "changelog", "contributing"):
        assert f'href="{name}.html"' in page, name
    assert "docs/faq.md" not in page


def test_pages_load_nothing_from_other_hosts_and_name_no_path_of_the_machine(built: Path) -> None:
    for path in built.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        assert not re.search(r'<(?:script|img|iframe)\b[^>]*\bsrc="(?:https?:)?//', page), path.name
        assert not re.search(r'<link\b[^>]*\brel="(?:stylesheet|preload)"[^>]*\bhref="(?:https?:)?//', page), path.name
        assert str(ROOT) not in page, path.name

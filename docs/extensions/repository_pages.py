# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Pages of the site that lie elsewhere in the repository, and links that work on GitHub and on the site alike.

README, changelog, tutorials and the bundles' pages stay where GitHub and the package index expect them; they are copied
among the sources when the site is built. Their links, and those of all pages, are written for GitHub: relative to the file.
Where the target is a page of the site the link leads there, and to the repository otherwise.
"""

from __future__ import annotations

import configparser
import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
README = "README.md"
# Links, and what is skipped when they are looked for: fenced, indented and inline code.
LINK = re.compile(r"(```.*?```|`[^`\n]*`|^(?: {4}|\t)[^\n]*$)|(!?\[[^\]]*\])\(([^)\s]+)\)", re.DOTALL | re.MULTILINE)
NOTEBOOK_LINK = re.compile(r"(`[^`\n]*`)|(!?\[[^\]\n]*\])\(([^)\s\\]+)\)")


def copied_pages(root: Path = ROOT) -> dict[str, str]:
    """Files of the repository that become pages: path among the sources of the site, path in the repository."""
    pages = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md", "security.md": "SECURITY.md"}
    pages |= {f"tutorials/{path.name}": f"tutorials/{path.name}" for path in sorted(root.glob("tutorials/*.ipynb"))}
    for path in sorted(root.glob("bundles/*/docs/README.md")):
        name = path.parts[-3]
        pages[f"bundles/{name}.md"] = f"bundles/{name}/docs/README.md"
    return pages


def home(root: Path = ROOT) -> str:
    """Address of the repository. It stands in ``setup.cfg`` and nowhere else."""
    read = configparser.ConfigParser()
    read.read(root / "setup.cfg", encoding="utf-8")
    return read["metadata"]["url"]


class Links:
    """Where a link of a file leads on the site.

    Args:
        root: of the repository.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self.root, self.home = root, home(root)
        self.site_of = {file: page for page, file in copied_pages(root).items()} | {README: "index.md"}
        self.file_of = {page: file for file, page in self.site_of.items()}

    def page_at(self, file: str) -> str | None:
        """The page (or figure) of the site that a file of the repository is, relative to its sources."""
        if file in self.site_of:
            return self.site_of[file]
        if file.startswith("docs/") and file.endswith((".md", ".png", ".svg")) and (self.root / file).is_file():
            return file.removeprefix("docs/")
        return None

    def resolve(self, target: str, page: str, file: str) -> str:
        """One link.

        Args:
            target: as it is written.
            page: that it will stand on, relative to the sources of the site.
            file: that it is written in, relative to the repository. A link from it to nowhere is a warning.
        """
        if re.match(r"[a-z]+:|#", target):
            return target
        path, mark, anchor = target.partition("#")
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
        if not (self.root / wanted).exists():
            LOGGER.warning("%s links to %s, which is not there", file, target)
            return target
        found = self.page_at(wanted)
        if found is None:
            kind = "tree" if (self.root / wanted).is_dir() else "blob"
            return f"{self.home}/{kind}/main/{wanted}{mark}{anchor}"
        if found == page and anchor:
            return f"#{anchor}"
        return posixpath.relpath(found, posixpath.dirname(page) or ".") + mark + anchor

    def rewrite(self, text: str, page: str, file: str) -> str:
        """All links of a text."""

        def one(match: re.Match[str]) -> str:
            code, label, target = match.groups()
            return code if code is not None else f"{label}({self.resolve(target, page, file)})"

        return (NOTEBOOK_LINK if file.endswith(".ipynb") else LINK).sub(one, text)


def copy_pages(app: Any) -> None:
    """Put the pages that lie elsewhere among the sources. ``.gitignore`` names them."""
    for page, file in copied_pages().items():
        place = Path(app.srcdir) / page
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_file() or place.read_bytes() != (ROOT / file).read_bytes():
            shutil.copyfile(ROOT / file, place)


def read_source(app: Any, docname: str, source: list[str]) -> None:
    """Links of a page, before Sphinx sees it; README stands on top of the first page."""
    links: Links = app.repository_links
    if docname.startswith("api/modules/"):
        return
    page = Path(app.env.doc2path(docname)).relative_to(app.srcdir).as_posix()
    if page == "index.md":
        front = (ROOT / README).read_text(encoding="utf-8")
        source[0] = links.rewrite(front, page, README) + "\n" + links.rewrite(source[0], page, "docs/index.md")
    else:
        source[0] = links.rewrite(source[0], page, links.file_of.get(page, f"docs/{page}"))


def setup(app: Any) -> dict[str, bool]:
    """Before Sphinx lists its sources."""
    app.repository_links = Links()
    app.connect("builder-inited", copy_pages)
    app.connect("source-read", read_source)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

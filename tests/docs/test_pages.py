# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What can be checked of the documentation without building it: contents, links, code and commands."""

from __future__ import annotations

import importlib.util
import json
import posixpath
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import monai_memo
from monai_memo.command_line.parsing import load
from monai_memo.command_line.words import kinds_of
from monai_memo.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
FILES = sorted({
    *ROOT.glob("*.md"), *DOCS.glob("*.md"), *DOCS.glob("api/*.md"), *ROOT.glob("bundles/*/docs/README.md"),
    *ROOT.glob(".github/*.md"),
} - {DOCS / name for name in ("changelog.md", "contributing.md", "security.md")})  # fmt: skip
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]
HISTORY = ("CHANGELOG.md",)  # speaks of commands as they were


def extension() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "repository_pages_of_docs", DOCS / "extensions" / "repository_pages.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


PAGES = extension()


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Fenced code with its language, and indented code."""
    for language, code in re.findall(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        yield language, code
    for code in re.findall(r"(?:^|\n\n)((?: {4}[^\n]*\n?)+)", text):
        yield "", re.sub(r"^ {4}", "", code, flags=re.MULTILINE)


def links(text: str) -> list[str]:
    return [match[2] for match in PAGES.LINK.findall(text) if match[2]]


def anchors(text: str) -> set[str]:
    """As GitHub and the site make them of headings."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ +(.+?) *$", outside, re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in titles]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain}


def toctree(name: str) -> set[str]:
    listed = set()
    for body in re.findall(r"```{toctree}\n(.*?)```", text_of(name), re.DOTALL):
        listed |= {line.strip() for line in body.splitlines() if line.strip() and not line.startswith(":")}
    return listed


def test_every_page_stands_in_the_table_of_contents_and_the_other_way_round() -> None:
    pages = {path.relative_to(DOCS).as_posix() for path in FILES if DOCS in path.parents} | set(PAGES.copied_pages())
    there = {page.rpartition(".")[0] for page in pages} - {"index"}
    assert toctree("docs/index.md") == there


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_file_and_its_anchor_to_a_heading(name: str) -> None:
    for target in links(text_of(name)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
        assert (ROOT / wanted).exists(), f"{name} links to {target}"
        assert not anchor or anchor in anchors(text_of(wanted)), f"{name} links to {target}: no such heading"


def test_links_of_notebooks_lead_to_files() -> None:
    found = []
    for path in sorted(ROOT.glob("tutorials/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        for _, _, target in PAGES.NOTEBOOK_LINK.findall(text):
            if target and not re.match(r"[a-z]+:|#", target):
                found.append(target)
                assert (path.parent / target.partition("#")[0]).exists(), f"{path.name} links to {target}"
    assert len(found) > 5


def test_a_link_leads_to_the_page_where_there_is_one_and_to_the_repository_otherwise() -> None:
    site, home = PAGES.Links(), PAGES.home()
    assert site.resolve("docs/faq.md", "index.md", "README.md") == "faq.md"
    assert site.resolve("docs/audit.md#chest-x-ray-2d", "index.md", "README.md") == "audit.md#chest-x-ray-2d"
    assert site.resolve("../CHANGELOG.md", "versions.md", "docs/versions.md") == "changelog.md"
    assert site.resolve("../tutorials/03_limit_of_detection.ipynb", "how_it_works.md", "docs/how_it_works.md") == (
        "tutorials/03_limit_of_detection.ipynb"
    )
    bundle = "bundles/memorization_detection/docs/README.md"
    assert site.resolve("../models/README.md", "bundles/memorization_detection.md", bundle) == (
        f"{home}/blob/main/bundles/memorization_detection/models/README.md"
    )
    assert site.resolve("docs/figures/report.png", "index.md", "README.md") == "figures/report.png"
    assert site.resolve("#here", "faq.md", "docs/faq.md") == "#here"
    assert site.resolve("https://monai.io", "faq.md", "docs/faq.md") == "https://monai.io"


def test_links_in_code_are_left_alone() -> None:
    code = "    audit[x](docs/faq.md)\n\n`[y](docs/faq.md)`\n\n```\n[z](docs/faq.md)\n```\n"
    text = f"[a](docs/faq.md)\n\n{code}[b](docs/faq.md)\n"
    changed = PAGES.Links().rewrite(text, "index.md", "README.md")
    assert changed == f"[a](faq.md)\n\n{code}[b](faq.md)\n"


@pytest.mark.parametrize("name", NAMES)
def test_python_in_pages_compiles_and_imports_public_names(name: str) -> None:
    for language, code in blocks(text_of(name)):
        if language == "python":
            compile(code, name, "exec")
            for public in re.findall(r"^from monai_memo import (.+)$", code, re.MULTILINE):
                assert {word.strip() for word in public.split(",")} <= set(monai_memo.__all__), f"{name}: {public}"


def command_lines(text: str) -> Iterator[list[str]]:
    for language, code in blocks(text):
        if language in ("", "bash", "sh"):
            for line in code.replace("\\\n", " ").splitlines():
                start = re.search(r"(?:^(?:\$ )?(?:\S*/)?monai-memo|-m monai_memo) (.*)", line.split(" #")[0])
                if start:
                    yield shlex.split(start[1].replace("...", ""))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in HISTORY])
def test_commands_in_pages_exist_with_their_options(name: str) -> None:
    for words in command_lines(text_of(name)):
        if words[0].startswith("-"):
            continue
        command = " ".join(words[:2]) if words[0] == "bundles" else words[0]
        assert command in COMMANDS, f"{name}: monai-memo {' '.join(words)}"
        known = {*kinds_of(load(COMMANDS[command].settings)), "config", "help"}
        for word in words:
            if word.startswith("--"):
                option = word[2:].partition("=")[0].replace("-", "_")
                assert option in known or option.removeprefix("no") in known, f"{name}: {command} has no {word}"


def test_every_command_stands_in_the_index_by_question_or_in_the_pages_it_names() -> None:
    pages = " ".join(text_of(name) for name in NAMES if name.startswith(("docs/", "README")))
    for command in COMMANDS:
        assert re.search(rf"monai-memo {command}\b|`{command}`", pages), command


def test_every_public_name_is_listed_in_the_reference() -> None:
    page = text_of("docs/api/index.md")
    for name in set(monai_memo.__all__) - {"__version__"}:
        assert f"`monai_memo.{name} <{getattr(monai_memo, name).__module__}.{name}>`" in page, name

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from monai_memo.audit.evidence import pair_evidence
from monai_memo.audit.report import repeat_command, write_report
from monai_memo.audit.result import AuditResult
from monai_memo.data.phantoms import chest_phantom


class Tags(HTMLParser):
    """All tags with their attributes, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def render(record: AuditResult, folder: Path, redacted: bool = False) -> str:
    evidence = [pair_evidence(match, chest_phantom(0), chest_phantom(1)) for match in record.matches[:2]]
    return write_report(record, evidence, folder, redacted).read_text(encoding="utf-8")


def test_one_file_without_scripts_or_requests(record: AuditResult, tmp_path: Path) -> None:
    parsed = Tags(render(record, tmp_path))
    names = {tag for tag, _ in parsed.tags}
    assert not names & {"script", "link", "iframe", "object"}
    sources = [attributes["src"] for _, attributes in parsed.tags if "src" in attributes]
    assert len(sources) == 4 and all(source and source.startswith("data:image/png;base64,") for source in sources)
    assert all(attributes.get("alt") for tag, attributes in parsed.tags if tag == "img")
    assert "url(" not in (tmp_path / "report.html").read_text()


def test_verdict_comes_first_and_numbers_carry_intervals(record: AuditResult, tmp_path: Path) -> None:
    text = " ".join(" ".join(Tags(render(record, tmp_path)).text).split())
    assert (
        text.index("Copies found")
        < text.index("The numbers")
        < text.index("Negative control")
        < text.index("similar pairs")
    )
    for part in (
        "31 of 100 (24 to 39)",
        "0.700 (0.680 to 0.730)",
        "26.0 % (18.0 % to 34.0 %)",
        "45 of 50",
        "flip 100 %",
    ):
        assert part in text, part
    assert "anna's <b>.png (unreadable)" in text and "2 images converted from colour" in text
    assert "What this audit cannot say" in text and "Seed 4" in text


def test_hostile_names_are_escaped(record: AuditResult, tmp_path: Path) -> None:
    page = render(record, tmp_path)
    assert "<script>alert" not in page and html.escape("<script>alert(0)</script>.png") in page


def test_zero_is_not_called_proof(quiet_record: AuditResult, tmp_path: Path) -> None:
    text = " ".join(" ".join(Tags(render(quiet_record, tmp_path)).text).split())
    assert "0 of 1000 (up to 3, 0.3 %, cannot be excluded)" in text
    assert "No excess of copies" in text


def test_redacted_report_has_no_gallery_and_no_names(record: AuditResult, tmp_path: Path) -> None:
    page = render(record.without_patients(), tmp_path, redacted=True)
    assert page.count("data:image/png") == 2
    for word in ("anna", "/hospital", "alert("):
        assert word not in page
    assert "redacted" in page and "Left out" in page
    with pytest.raises(ValueError, match="without_patients"):
        render(record, tmp_path, redacted=True)


def test_repeat_command_is_complete(record: AuditResult) -> None:
    command = repeat_command(record)
    assert command.startswith("monai-memo audit --train /hospital/training --heldout /hospital/heldout")
    for part in ("--seed 4", "--allow_overlap", "--patient_pattern anna", "--size"):
        assert part in command
    assert "--detector" not in command
    settings = {**record.configuration, "verification": False, "detector": "/models of us/d.pt", "size": [64, 32]}
    changed = repeat_command(replace(record, configuration=settings))
    for part in ("--verification False", "--detector '/models of us/d.pt'", "--size '[64,32]'"):
        assert part in changed
    assert "--allow_overlap False" not in repeat_command(
        replace(record, configuration={**settings, "allow_overlap": False})
    )
    assert not re.search("hospital|anna", repeat_command(record.without_patients()))

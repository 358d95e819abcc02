# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

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
    assert len(sources) == 2 + 2 * 3  # two charts, three pictures of each of two pairs
    assert all(source and re.match("data:image/(png|jpeg);base64,", source) for source in sources)
    assert all(attributes.get("alt") for tag, attributes in parsed.tags if tag == "img")
    assert (
        "url(" not in (tmp_path / "report.html").read_text() and "@import" not in (tmp_path / "report.html").read_text()
    )


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


def test_hostile_names_are_escaped_and_captions_name_nobody(record: AuditResult, tmp_path: Path) -> None:
    head = {"data_set": "<b>lungs</b> & more", "model": "<script>alert(7)</script>", "author": "Anna O'Neil"}
    page = render(replace(record, configuration={**record.configuration, **head}), tmp_path)
    assert "<script>" not in page and "&lt;script&gt;alert(7)" in page and "<b>lungs" not in page
    shown = " ".join(Tags(page).text)
    for text in head.values():
        assert text in shown
    pairs = page[page.index('<section id="pairs"') :]
    pairs = pairs[: pairs.index("</section>")]
    for text in (pairs, *(path.read_text() for path in (tmp_path / "pairs").iterdir())):
        assert "bert" not in text and "alert(0)" not in text and "hospital" not in text
    assert "Pair 1" in pairs


def test_what_nobody_named_is_said_so_and_a_redacted_head_names_nobody(record: AuditResult, tmp_path: Path) -> None:
    assert render(record, tmp_path).count("not named") == 3
    named = replace(record, configuration={**record.configuration, "data_set": "of anna", "author": "her doctor"})
    page = render(named.without_patients(), tmp_path / "redacted", redacted=True)
    assert "anna" not in page and "her doctor" not in page and "not named" not in page and "Audited" in page


def test_names_in_warnings_are_folded_away(record: AuditResult, tmp_path: Path) -> None:
    said = replace(record, warnings=["2 patients in both cohorts."], warning_names=[["bob <i>", "carl"]])
    page = render(said, tmp_path)
    assert "2 patients in both cohorts.<details><summary>2 named</summary>bob &lt;i&gt;, carl</details>" in page


def test_each_count_stands_on_the_first_screen_with_its_own_definition(record: AuditResult, tmp_path: Path) -> None:
    found = {"fdr": 0.05, "listed": 29, "smallest_p": 0.01, "least": 3, "warning": ""}
    curve = {"copies": "listed", "drawn": [0, 100], "copied": [0, 26], "low": [0, 20], "high": [0, 30], "seen": 26,
             "once": 23, "twice": 3, "limit": 60.0}  # fmt: skip
    page = render(replace(record, discoveries=found, sampling_curve=curve), tmp_path)
    counts = page[page.index('<div class="counts">') : page.index("Read this first")]
    text = " ".join(" ".join(Tags(counts).text).split())
    for words in (
        "31 of 100 synthetic images Synthetic images closer to a training image than the threshold",
        "5.0 % are, too, so about 5 of these 100 would be by chance",
        "29 of 100 synthetic images Images that can be named one by one, since at most 5 % of the list",
        "26 of 100 training images Training images that the images on the list show, each counted once",
        "28 of 100 training images Training images with some synthetic image closer than a threshold of their own",
        "about 5 of 100 would be by chance",
    ):
        assert words in text, words
    none = {**found, "listed": 0, "least": 120}
    assert "with 100 held-out images a list would need 120 images" in render(
        replace(record, discoveries=none), tmp_path
    )


def test_the_contents_lead_to_every_section_and_the_glossary_defines_the_words(
    record: AuditResult, tmp_path: Path
) -> None:
    page = render(record, tmp_path)
    parsed = Tags(page)
    anchors = [attributes["href"] for tag, attributes in parsed.tags if tag == "a"]
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(link)[1:] for link in anchors if link and link.startswith("#")} <= set(ids)
    sections = [attributes["id"] for tag, attributes in parsed.tags if tag == "section"]
    contents = page[page.index('<nav class="contents"') : page.index("</nav>")]
    assert re.findall('href="#([^"]+)"', contents) == sections
    glossary = " ".join(Tags(page[page.index('<section id="glossary"') :]).text)
    for word in ("held-out images", "copies", "mem", "excess", "p-value", "look-alike", "limit of detection"):
        assert word in glossary, word


def test_pages_follow_the_dark_mode_and_print_without_forced_breaks(record: AuditResult, tmp_path: Path) -> None:
    for page in (render(record, tmp_path), (tmp_path / "pairs" / "0001.html").read_text()):
        assert "@media (prefers-color-scheme: dark)" in page and "@media print" in page
        printed = page[page.index("@media print") :]
        assert not re.search(r"section\s*{[^}]*break-inside: avoid", printed) and "break-before: page" not in printed


def test_zero_is_not_called_proof(quiet_record: AuditResult, tmp_path: Path) -> None:
    text = " ".join(" ".join(Tags(render(quiet_record, tmp_path)).text).split())
    assert "0 of 1000 (up to 3, 0.3 %, cannot be excluded)" in text
    assert "No excess of copies" in text


def test_redacted_report_has_no_gallery_and_no_names(record: AuditResult, tmp_path: Path) -> None:
    page = render(record.without_patients(), tmp_path, redacted=True)
    assert page.count("data:image") == 2 and not (tmp_path / "pairs").exists()
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


def test_a_report_says_what_no_copy_among_so_many_samples_leaves_possible(record: AuditResult, tmp_path: Path) -> None:
    text = " ".join(" ".join(Tags(render(record, tmp_path)).text).split())
    most = f"{100 * (1 - 0.05 ** (1 / record.n_synthetic)):.1f} %"
    assert f"No copy among {record.n_synthetic} samples would not mean that nothing can be extracted" in text
    assert f"only that more than {most} of all samples are copies" in text

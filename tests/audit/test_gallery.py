# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The pairs that a report shows: which, where, under which words, and that every link leads somewhere."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_memo.audit.audit import Audit
from monai_memo.audit.evidence import PairEvidence, pair_evidence
from monai_memo.audit.parts import Match
from monai_memo.audit.pictures import DIFFERENCE, coloured, picture_of
from monai_memo.audit.report import write_report
from monai_memo.audit.result import AuditResult
from monai_memo.audit.shown_pairs import ALIGNED, AT_RANDOM, EACH_SIDE, PICTURED, choose_pairs
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from tests.audit.small import picture, settings, untrained, write_cohorts


class Page(HTMLParser):
    """Links, pictures and cards of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[dict[str, str]] = []
        self.cards: list[dict[str, str]] = []
        self.ids: set[str] = set()
        self.controls: list[dict[str, str]] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "a":
            self.links.append(given["href"])
        if tag == "img":
            self.pictures.append(given)
        if tag == "article":
            self.cards.append(given)
        if tag == "input":
            self.controls.append(given)
        if "id" in given:
            self.ids.add(given["id"])


def matches(copies: int, others: int) -> list[Match]:
    similarity = np.linspace(0.99, 0.1, copies + others)
    tau = float((similarity[copies - 1] + similarity[copies]) / 2) if copies else 1.0
    return [
        Match(f"anna {number}.png", f"bert {number % 7}.png", f"bert {number % 7}", float(value), tau, number < copies)
        for number, value in enumerate(similarity)
    ]


def evidence(rows: Sequence[Match], volumes: bool = False) -> list[PairEvidence]:
    if volumes:
        pair = knee_phantom(0, (12, 12, 12)), knee_phantom(1, (12, 12, 12))
    else:
        pair = chest_phantom(0, (24, 24)), chest_phantom(1, (24, 24))
    return [pair_evidence(match, *pair) for match in rows]


def written(record: AuditResult, folder: Path, copies: int, others: int, gallery: int) -> AuditResult:
    rows = matches(copies, others)
    result = replace(record, matches=rows, configuration={**record.configuration, "gallery": gallery})
    shown = choose_pairs(rows, gallery, 4, 2)
    write_report(result, evidence([rows[number - 1] for number in shown.numbers]), folder)
    result.write(folder)
    return result


def follow(folder: Path) -> int:
    """Check that every link of every page leads to a file and a place in it; gives the number of links."""
    pages = {path: Page(path) for path in [folder / "report.html", *(folder / "pairs").glob("*.html")]}
    followed = 0
    for path, page in pages.items():
        for link in page.links:
            file, _, anchor = link.partition("#")
            target = (path.parent / file if file else path).resolve()
            assert target in {known.resolve() for known in pages}, (path.name, link)
            if anchor:
                assert (
                    anchor in next(other for known, other in pages.items() if known.resolve() == target.resolve()).ids
                )
            followed += 1
    return followed


def test_every_copy_is_shown_with_the_nearest_on_both_sides_of_tau_and_some_at_random() -> None:
    shown = choose_pairs(matches(40, 200), 100, seed=0, dims=2)
    copies = [number for number, names in shown.groups.items() if "copy" in names]
    assert copies == list(range(1, 41)) and shown.further == () and shown.n_pictured == shown.n_copies == 40
    near = [number for number, names in shown.groups.items() if "near" in names]
    assert near == list(range(41 - EACH_SIDE, 41 + EACH_SIDE))
    assert shown.count("random") == AT_RANDOM and shown.aligned == frozenset(shown.numbers)
    assert choose_pairs(matches(40, 200), 100, seed=0, dims=2) == shown
    rows = matches(40, 200)
    rows[200] = replace(rows[200], as_found=0.99)
    near_many = choose_pairs(rows, 100, seed=0, dims=2)
    assert "near" in near_many.groups[201], "not called since its patient is near to many: somebody should see it"
    assert choose_pairs(matches(40, 200), 100, seed=1, dims=2).groups != shown.groups


def test_many_copies_go_on_on_pages_of_their_own_and_the_work_is_bounded() -> None:
    shown = choose_pairs(matches(1000, 500), 100, seed=0, dims=2)
    elsewhere = [number for page in shown.further for number in page]
    assert {*shown.groups, *elsewhere} >= set(range(1, 1001)) and not set(elsewhere) & set(shown.groups)
    assert max(len(page) for page in shown.further) == 100 and elsewhere == sorted(elsewhere)
    assert len(shown.aligned) == ALIGNED[2] and set(shown.groups) <= shown.aligned
    assert len(choose_pairs(matches(1000, 500), 20, 0, 3).aligned) == ALIGNED[3]
    huge = choose_pairs(matches(5000, 10), 100, seed=0, dims=2)
    assert len(huge.numbers) == PICTURED and huge.n_pictured < huge.n_copies == 5000


@pytest.mark.parametrize(("copies", "others"), [(0, 30), (30, 0), (1, 1), (0, 1)])
def test_any_number_of_copies_can_be_shown(copies: int, others: int) -> None:
    shown = choose_pairs(matches(copies, others) if others else [
        replace(match, tau=0.0) for match in matches(copies - 1, 1)[:-1]
    ], 100, 0, 2)  # fmt: skip
    assert shown.count("near") == min(copies - (not others), EACH_SIDE) * (copies > 0) + min(others, EACH_SIDE)
    assert choose_pairs(matches(3, 3), 0, 0, 2).numbers == []


def test_images_that_were_never_candidates_are_not_among_the_misses() -> None:
    rows = [*matches(2, 3), *[replace(match, similarity=-1.0, copy=False) for match in matches(0, 50)]]
    assert choose_pairs(rows, 100, 0, 2).numbers == [1, 2, 3, 4, 5]


def test_report_pages_and_table_belong_together(record: AuditResult, tmp_path: Path) -> None:
    result = written(record, tmp_path, copies=12, others=30, gallery=100)
    report = Page(tmp_path / "report.html")
    numbers = [int(card["id"].removeprefix("pair-")) for card in report.cards]
    assert numbers[:12] == list(range(1, 13)) and numbers == sorted(numbers)
    assert {path.name for path in (tmp_path / "pairs").iterdir()} == {f"{number:04d}.html" for number in numbers}
    with open(tmp_path / "matches.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["pair"]) for row in rows] == list(range(1, 43))
    assert {int(row["pair"]) for row in rows if row["page"]} == set(numbers)
    for row in rows:
        if row["page"]:
            assert f"Pair {row['pair']}" in (tmp_path / row["page"]).read_text()
    assert follow(tmp_path) > 2 * len(numbers)
    assert rows[0]["synthetic"] == result.matches[0].synthetic


def test_further_copies_have_pages_with_the_same_pictures_and_links(
    record: AuditResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_memo.audit.shown_pairs.PER_PAGE", 5)
    monkeypatch.setattr("monai_memo.audit.shown_pairs.ALIGNED", {2: 18, 3: 18})
    written(record, tmp_path, copies=25, others=5, gallery=4)
    report, lists = Page(tmp_path / "report.html"), sorted((tmp_path / "pairs").glob("copies_*.html"))
    cards = [card["id"] for page in (report, *map(Page, lists)) for card in page.cards]
    assert len(cards) == len(set(cards)) and {f"pair-{number}" for number in range(1, 26)} <= set(cards)
    assert len(lists) > 1 and all(f"pairs/{path.name}" in report.links for path in lists)
    assert "of the 25 copies are here" in report.text and "18 pairs have a page" in report.text
    assert len(list((tmp_path / "pairs").glob("0*.html"))) == 18
    follow(tmp_path)


def test_pictures_are_large_by_style_alone_and_their_words_name_the_pair(record: AuditResult, tmp_path: Path) -> None:
    written(record, tmp_path, copies=3, others=9, gallery=100)
    report = Page(tmp_path / "report.html")
    in_cards = [picture for picture in report.pictures if picture["alt"].startswith("Pair ")]
    assert len(in_cards) == 3 * len(report.cards) and len({picture["alt"] for picture in in_cards}) == len(in_cards)
    assert {int(re.findall(r"\d+", picture["alt"])[0]) for picture in in_cards} == {
        int(card["id"].removeprefix("pair-")) for card in report.cards
    }
    assert all(picture["width"] == "24" and picture.get("class") == "coarse" for picture in in_cards)
    assert "minmax(250px" in report.text and "image-rendering: pixelated" in report.text
    assert not any(
        picture["src"].partition(";")[0] not in ("data:image/png", "data:image/jpeg") for picture in in_cards
    )


def test_pairs_are_filtered_and_sorted_by_style_alone(record: AuditResult, tmp_path: Path) -> None:
    written(record, tmp_path, copies=9, others=20, gallery=100)
    report = Page(tmp_path / "report.html")
    assert "<script" not in report.text
    for name in ("show-all", "show-copy", "show-near", "show-random", "sort-similarity", "sort-correlation"):
        assert name in report.ids and f'for="{name}"' in report.text
        assert f"#{name}:checked" in report.text or name == "show-all"
    assert [control["id"] for control in report.controls if "checked" in control] == ["show-all", "sort-similarity"]
    places = [dict(re.findall(r"--(\w+): (\d+)", card["style"])) for card in report.cards]
    for order in ("similarity", "correlation", "original"):
        assert sorted(int(place[order]) for place in places) == list(range(len(places)))
    # By training image: the one with most pairs first, pairs of one image side by side.
    ranked = sorted(zip(places, report.cards, strict=True), key=lambda both: int(both[0]["original"]))
    by_original = [card["id"] for _, card in ranked]
    originals = [(int(name.removeprefix("pair-")) - 1) % 7 for name in by_original]
    assert [name for at, name in enumerate(originals) if at == 0 or originals[at - 1] != name] == list(
        dict.fromkeys(originals)
    )
    assert report.text.count('class="threshold"') == 1


def test_volumes_have_three_planes_where_the_pair_agrees_and_three_where_it_differs(
    record: AuditResult, tmp_path: Path
) -> None:
    rows = matches(1, 1)
    result = replace(record, matches=rows, detector={**record.detector, "spatial_dims": 3})
    write_report(result, evidence(rows, volumes=True), tmp_path)
    for path in (tmp_path / "report.html", tmp_path / "pairs" / "0001.html"):
        page = Page(path)
        words = [picture["alt"] for picture in page.pictures if picture["alt"].startswith("Pair 1:")]
        assert len(words) == 6 * 3
        for plane in ("sagittal", "coronal", "axial"):
            assert sum(plane in text for text in words) == 6
            assert len(re.findall(rf"(?i){plane} slice \d+ of 12: (agrees|differs) most", page.text)) >= 2
        assert page.text.count('<span class="top" aria-hidden="true">S</span>') >= 4
    assert "The slices where pair 1 differs most" in (tmp_path / "report.html").read_text()


def test_a_pair_that_cannot_be_read_again_leaves_no_broken_link(record: AuditResult, tmp_path: Path) -> None:
    rows = matches(6, 6)
    result = replace(record, matches=rows)
    write_report(result, evidence([match for number, match in enumerate(rows) if number not in (1, 7)]), tmp_path)
    result.write(tmp_path)
    assert not (tmp_path / "pairs" / "0002.html").exists() and follow(tmp_path) > 0
    assert "2 pairs could not be read again" in (tmp_path / "report.html").read_text()
    with open(tmp_path / "matches.csv", newline="") as stream:
        assert [row["pair"] for row in csv.DictReader(stream) if not row["page"]] == ["2", "8"]


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_pictures_hold_the_pixels_and_maps_their_colours() -> None:
    image = np.random.default_rng(0).random((120, 100)).astype(np.float32)
    exact = (image * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(opened(picture_of(image, lossless=True))), exact)
    smooth = chest_phantom(0, (224, 224))[0]
    assert np.abs(np.asarray(opened(picture_of(smooth)), dtype=float) / 255 - smooth).mean() < 0.02
    assert len(picture_of(smooth)) < len(picture_of(smooth, lossless=True))
    halves = np.repeat([[-1.0, 0.0, 1.0]], 60, axis=1).repeat(30, axis=0)
    shown = np.asarray(opened(coloured(halves, DIFFERENCE, -1, most=90)).convert("RGB")).astype(int)
    assert shown.shape == (15, 90, 3)
    assert shown[5, 5, 2] > shown[5, 5, 1] and shown[5, 85, 0] > shown[5, 85, 2] and shown[5, 45].min() > 235


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = write_cohorts(tmp_path_factory.mktemp("cohorts"))
    for number in range(3):
        picture(number).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "synthetic" / f"copied{number}.png")
    return root, untrained(root / "detector.pt")


def test_an_audit_writes_the_pages_and_a_later_one_takes_them_away(audited: tuple[Path, Path], tmp_path: Path) -> None:
    root, detector = audited
    result = Audit(**settings(root, tmp_path, detector, gallery=100, data_set="Phantoms of chests")).run()
    pages = sorted(path.name for path in (tmp_path / "pairs").iterdir())
    shown = choose_pairs(result.matches, 100, 0, 2).numbers
    assert pages == [f"{number:04d}.html" for number in shown] and len(shown) > 6 and follow(tmp_path) > 20
    assert "Phantoms of chests" in (tmp_path / "report.html").read_text()
    (tmp_path / "pairs" / "0001.html").write_text("with my remarks")
    (tmp_path / "pairs" / "mine.txt").write_text("mine")
    Audit(**settings(root, tmp_path, detector, gallery=1)).run()
    now = {path.name for path in (tmp_path / "pairs").iterdir()}
    assert "mine.txt" in now and len(now) < len(pages)
    (earlier,) = (tmp_path / "earlier").iterdir()
    assert (earlier / "pairs" / "0001.html").read_text() == "with my remarks"
    assert not now & {path.name for path in (earlier / "pairs").iterdir()} - {"0001.html"}
    with open(tmp_path / "matches.csv", newline="") as stream:
        assert {Path(row["page"]).name for row in csv.DictReader(stream) if row["page"]} == now - {"mine.txt"}


def test_a_redacted_audit_writes_no_page_of_a_pair(audited: tuple[Path, Path], tmp_path: Path) -> None:
    root, detector = audited
    Audit(**settings(root, tmp_path, detector, gallery=100, redacted=True, data_set="Anna's chest")).run()
    assert not (tmp_path / "pairs").exists() and "Anna" not in (tmp_path / "report.html").read_text()
    assert "Anna" not in (tmp_path / "audit.json").read_text()
    with open(tmp_path / "matches.csv", newline="") as stream:
        assert {row["page"] for row in csv.DictReader(stream)} == {""}

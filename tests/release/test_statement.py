# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What a release says: one definition for each number, and which one to quote."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from jinja2 import Environment, PackageLoader

from monai_memo.audit.audit import Audit
from monai_memo.audit.card import render_card
from monai_memo.audit.pages import FILTERS, in_the_end, why_none_listed
from monai_memo.audit.parts import Estimate
from monai_memo.audit.result import AuditResult
from monai_memo.errors import OutputError
from monai_memo.release.command import release as release_command
from monai_memo.release.looks import Look
from monai_memo.release.release import Release
from monai_memo.release.rules import SECOND_NEAR
from monai_memo.release.statement import Released
from monai_memo.text import markdown
from tests.audit.small import settings
from tests.release.conftest import options


@pytest.fixture(scope="module")
def done(clinic: Path) -> Released:
    return Release(**options(clinic, clinic / "stated")).run()


def row(text: str, start: str) -> str:
    """The row of a table that begins so."""
    return next(line for line in text.splitlines() if line.startswith(f"| {start}"))


@pytest.mark.parametrize("says", [True, False])
def test_two_numbers_stand_side_by_side_and_it_says_which_one_to_quote(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: bool
) -> None:
    def better(self: Release, rows: object, files: object, written: object, statement: object) -> object:
        looks = (*statement.looks[:-1], replace(statement.looks[-1], planted=100, found=90))
        left = replace(statement.left, copies=2)
        return real(self, rows, files, written, replace(statement, looks=looks, left=left) if says else statement)

    real = Release._publish
    monkeypatch.setattr(Release, "_publish", better)
    done = Release(**options(clinic, tmp_path / "out")).run()
    text, left, look = (done.out / "RELEASE.md").read_text(), done.statement.left, done.statement.looks[-1]
    bound = row(text, f"at most {left.copies} of {done.statement.released} images")
    assert ("**quote this one**" in bound) == says and f"{left.found} of {left.planted} planted ones" in bound
    assert ("**That is every image: the bound says nothing.**" in text) == (not says) == ("says nothing" in bound)
    check = row(text, "excess over the control")
    assert "no bound" in check and f"among {look.images} released images" in check
    card = (done.out / "card.md").read_text()
    assert f"at most {left.copies} of {done.statement.released} images" in card and "The number to quote is" in card


def test_a_look_after_the_same_detector_removed_its_calls_is_not_called_independent(
    done: Released, clinic: Path, tmp_path: Path
) -> None:
    assert done.statement.removed_by_second > 0
    text, card = (" ".join((done.out / name).read_text().split()) for name in ("RELEASE.md", "card.md"))
    assert "took no part in the filtering" not in text and "Only the first look is independent" in text
    check, first = row((done.out / "RELEASE.md").read_text(), "excess over the control"), done.statement.looks[0].excess
    assert f"in its first look, before that, it was {100 * first.value:.1f} %" in check
    assert "after what this detector had called itself was removed" in card
    kept = Release(**options(clinic, tmp_path / "out", remove_second=False)).run()
    text = (kept.out / "RELEASE.md").read_text()
    assert "Only the first look" not in text and "Its own calls" not in text


def test_a_second_look_that_finds_copies_takes_the_bound_back(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(self: Release, rows: object, files: object, written: object, statement: object) -> object:
        looks = (*statement.looks[:-1], replace(statement.looks[-1], excess=Estimate(0.2, 0.1, 0.3)))
        return real(self, rows, files, written, replace(statement, looks=looks))

    real = Release._publish
    monkeypatch.setattr(Release, "_publish", found)
    release_command(**options(clinic, tmp_path / "out"))
    text = (tmp_path / "out" / "RELEASE.md").read_text()
    assert (
        "**do not quote**: the second look finds more copies than chance does" in text and "quote this one" not in text
    )
    assert "not known: the bound does not hold" in row(text, "Singling out: an image")
    assert "do not quote this number" in capsys.readouterr().out
    assert "does not hold: the second look finds more copies than chance does" in (tmp_path / "out/card.md").read_text()


def test_copies_that_only_the_second_detector_found_take_the_bound_back_although_they_are_removed(
    done: Released,
) -> None:
    first = replace(done.statement.looks[0], images=100, excess=Estimate(0.3, 0.2, 0.4))
    later = replace(first, excess=Estimate(0.0, -0.04, 0.05), found=90, planted=100)
    few = replace(done.statement, looks=(first, later), left=replace(done.statement.left, copies=3))
    assert few.overlooked == 20 and few.contradicted
    assert few.doubt.startswith(
        "the first look finds 20 copies or more that the filter had left, and the bound allows 3"
    )
    enough = replace(few, left=replace(few.left, copies=20))
    assert enough.overlooked is None and not enough.contradicted


@pytest.mark.parametrize(("change", "told"), [("found", "finds 40 of 100 planted copies"), ("copies", "every image")])
def test_a_check_or_a_bound_that_says_nothing_is_not_called_a_number_to_trust(
    done: Released, change: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    look = replace(done.statement.looks[-1], excess=Estimate(0.0, -0.1, 0.1), planted=100, found=90)
    copies = done.statement.released if change == "copies" else 2
    looks = (replace(look, found=40) if change == "found" else look,)
    said = replace(done.statement, looks=looks, left=replace(done.statement.left, copies=copies))
    monkeypatch.setattr(Release, "run", lambda self: replace(done, statement=said))
    release_command(audit=str(done.out.parent / "audit"), out=str(done.out))
    assert told in capsys.readouterr().out
    assert said.unchecked == (change == "found") and said.says_nothing == (change == "copies")


def test_images_between_a_raised_threshold_and_that_of_held_out_images_are_counted(
    clinic: Path, tmp_path: Path
) -> None:
    release = Release(**options(clinic, tmp_path / "out", second_look=False, second_detector=None))
    audited = release.audit.result
    assert audited.reference is not None
    raised = replace(audited, reference=replace(audited.reference, between=6, tau_control=0.9, near_many=3))
    vars(release.audit)["result"] = raised
    release.run()
    told = row((tmp_path / "out" / "RELEASE.md").read_text(), "Near, and below the threshold")
    assert "3 audited images are above the threshold and not called" in row(
        (tmp_path / "out" / "RELEASE.md").read_text(), "Near a patient who is near to many"
    )
    assert "6 audited images lie above 0.900" in told and f"below it ({audited.tau.value:.3f})" in told


def test_planted_kinds_that_are_mostly_missed_are_named_beside_the_bound(done: Released) -> None:
    weak = done.statement.weak_kinds
    assert weak, "a detector that was never trained misses some kinds"
    text = (done.out / "RELEASE.md").read_text()
    told = next(line for line in text.splitlines() if line.startswith("The bound is for the planted mixture"))
    assert all(f"{kind} (" in told for kind in weak)
    assert all(share < 0.5 for share in weak.values())


def test_the_audits_own_verdict_is_quoted(clinic: Path, done: Released) -> None:
    record = json.loads((clinic / "audit" / "audit.json").read_text())
    quoted = row((done.out / "RELEASE.md").read_text(), "The audit's verdict")
    assert markdown(record["verdict"]["headline"]) in quoted


def test_every_count_of_patients_has_its_definition(clinic: Path, done: Released) -> None:
    text = (done.out / "RELEASE.md").read_text()
    record = json.loads((clinic / "audit" / "audit.json").read_text())
    assert f"| {done.statement.patients_copied} |" in row(text, "whom removed images show")
    assert f"| {record['n_mem_patients']['value']} of 30" in row(text, "memorized, before the release")
    assert "counted from the training images" in row(text, "memorized, before the release")
    assert f"| {done.statement.nearest} image" in row(text, "nearest to the same patient")


def test_the_card_counts_what_was_removed_by_reason(done: Released) -> None:
    card, reasons = (done.out / "card.md").read_text(), done.statement.reasons()
    for reason, number in reasons.items():
        assert f"| of these: {reason} | {number} |" in card
    assert f"| Images removed | {sum(reasons.values())} |" in card
    assert sum(reasons.values()) + done.statement.released == done.statement.audited


def test_kinds_without_a_strength_have_a_dash_and_the_share_that_was_found() -> None:
    limits = [
        {"kind": "flip", "found_up_to": 0.0, "missed_from": None, "found": {"0": 1.0}},
        {"kind": "boxes", "found_up_to": None, "missed_from": 0.5, "found": {"0.5": 0.6}},
        {"kind": "transposed", "found_up_to": None, "missed_from": 0.0, "found": {"0": 0.2}},
    ]
    environment = Environment(loader=PackageLoader("monai_memo.audit"), trim_blocks=True, lstrip_blocks=True)
    environment.filters.update({**FILTERS, "md": markdown})
    text = environment.get_template("limit.md.jinja").render(limit={"copies": 5, "limits": limits}, units={})
    cells = {line.split(" | ")[0]: line.rstrip(" |").split(" | ")[2:] for line in text.splitlines() if "%" in line}
    assert cells["| flip"] == ["-", "-", "100 %"] and cells["| transposed"] == ["-", "-", "20 %"]
    assert cells["| boxes"] == ["none", "0.5", "60 %"]


def test_copies_beside_an_empty_list_come_with_the_reason(clinic: Path) -> None:
    result = AuditResult.from_json((clinic / "audit" / "audit.json").read_text())
    assert result.discoveries is not None
    for least, said in ((17, "holds 17 images or none"), (1, "stands out so far"), (99, "none could be listed")):
        empty = replace(result, discoveries={**result.discoveries, "listed": 0, "least": least})
        assert said in why_none_listed(empty)
        assert f"| 0 of 25{why_none_listed(empty)} |" in render_card(empty, "0" * 64)
    assert why_none_listed(replace(result, discoveries={**result.discoveries, "listed": 3})) == ""


def test_the_training_images_that_would_be_copied_in_the_end_are_told_without_nonsense(clinic: Path) -> None:
    result = AuditResult.from_json((clinic / "audit" / "audit.json").read_text())
    assert result.sampling_curve is not None
    for limit, said in ((30.2, "all 30 training images"), (29.7, "all 30 training"), (12.2, "at least 12 of the 30")):
        assert in_the_end(replace(result, sampling_curve={**result.sampling_curve, "limit": limit})).startswith(said)


def test_neighbourhoods_take_in_what_the_second_look_finds(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second detector calls one image; whatever is nearest to its patient by either detector goes as well."""
    picked: dict[str, str] = {}

    def called(look: Look) -> dict[str, str]:
        if picked:
            return {}
        crowds = [match.nearest_patient for match in look.result.matches]
        patient = max(crowds, key=crowds.count)
        assert crowds.count(patient) > 1, "somebody has neighbours"
        first = next(match for match in look.result.matches if match.nearest_patient == patient)
        picked[first.synthetic] = patient
        picked["crowd"] = str(crowds.count(patient))
        return {first.synthetic: patient}

    monkeypatch.setattr(Look, "called", called)
    done = Release(**options(clinic, tmp_path / "out", neighbourhoods=True)).run()
    assert done.statement.removed_by_second == 1
    assert done.statement.removed_near >= int(picked["crowd"]) - 1 > 0
    assert done.statement.looks[-1].images == done.statement.released
    removed = (done.private / "removed.csv").read_text()
    assert len(re.findall(SECOND_NEAR, removed)) == done.statement.removed_near
    assert sum(done.statement.reasons().values()) + done.statement.released == 25


def test_an_output_folder_that_is_a_link_to_nothing_is_refused_by_name(clinic: Path, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    for out in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(OutputError, match=r"goes through the link .*out, whose target does not exist"):
            Release(**options(clinic, out)).run()
    with pytest.raises(OutputError, match="whose target does not exist"):
        Audit(**settings(clinic, tmp_path / "out", clinic / "detector.pt")).run()
    assert not (tmp_path / "gone").exists() and not (tmp_path / "gone.private").exists()

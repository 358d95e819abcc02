# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Copies by class of a condition, and audits of one class alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from monai_memo.audit.audit import Audit
from monai_memo.audit.by_condition import LEAST_PATIENTS, without_names
from monai_memo.audit.card import write_card
from monai_memo.audit.configuration import AuditConfiguration
from monai_memo.audit.parts import ConditionPart, Estimate, GroupPart
from monai_memo.audit.result import AuditResult, matches_in
from monai_memo.errors import CohortError
from monai_memo.settings import SettingsError
from tests.audit.small import settings, untrained, write_cohorts

RARE, OFTEN = "zebra", "okapi"
SOME = Estimate(0.1, 0.0, 0.2)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four of 24 training images are rare; eight of twelve rare samples are copies of those, and none of the others."""
    root = write_cohorts(tmp_path_factory.mktemp("classes"), train=24, heldout=30, synthetic=24)
    for number in range(8):
        shutil.copy(root / "train" / f"train{number % 4:02d}.png", root / "synthetic" / f"synthetic{number:02d}.png")
    for name, rare in (("train", 4), ("heldout", 6), ("synthetic", 12)):
        rows = [
            f"{path.relative_to(root)},{RARE if number < rare else OFTEN}"
            for number, path in enumerate(sorted((root / name).iterdir()))
        ]
        (root / f"{name}.csv").write_text("image,kind\n" + "\n".join(rows) + "\n")
    untrained(root / "detector.pt")
    return root


def audit(place: Path, out: Path, **further: object) -> AuditResult:
    tables = {name: str(place / f"{name}.csv") for name in ("train", "heldout", "synthetic")}
    given = settings(place, out, place / "detector.pt", allow_overlap=True, condition="kind")
    return Audit(**{**given, **tables, **further}).run()


@pytest.fixture(scope="module")
def finished(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AuditResult]:
    out = tmp_path_factory.mktemp("by_class") / "out"
    return out, audit(place, out)


def test_a_rare_class_that_is_copied_is_counted_by_itself(finished: tuple[Path, AuditResult]) -> None:
    out, result = finished
    part = result.conditions
    assert part is not None and part.condition == "kind"
    rare, often = part.groups
    assert (rare.name, rare.n_train, rare.n_patients, rare.n_synthetic, rare.n_heldout) == (RARE, 4, 4, 12, 6)
    assert (often.name, often.n_train, often.n_synthetic, often.n_heldout) == (OFTEN, 20, 12, 24)
    assert rare.n_copies >= 8 and rare.n_mem == 4 and often.n_copies <= 3
    assert rare.n_copies + often.n_copies == result.n_copies.value
    assert rare.n_mem + often.n_mem == result.n_mem.value
    assert rare.together.low < rare.copies.low < rare.copies.value < rare.copies.high < rare.together.high
    assert part.p_value is not None and part.p_value < 0.05
    assert any("not spread evenly over the classes" in text for text in result.warnings)
    assert any("2 rates stand beside one another" in note for note in part.notes)
    assert any("2 groups have fewer than 20 synthetic images" in note for note in part.notes)
    by_name = {match.synthetic: match.copy for match in result.matches}
    assert sum(by_name[f"synthetic/synthetic{number:02d}.png"] for number in range(12)) == rare.n_copies
    assert AuditResult.from_json((out / "audit.json").read_text()).conditions == part


def test_report_and_card_tell_of_each_class(finished: tuple[Path, AuditResult], tmp_path: Path) -> None:
    out, result = finished
    page = (out / "report.html").read_text()
    assert '<section id="conditions">' in page and f"<td>{RARE}</td>" in page and 'href="#conditions"' in page
    card = write_card(out, tmp_path / "card.md").read_text()
    rare = result.conditions.groups[0] if result.conditions else None
    assert rare is not None and f"{rare.n_copies + result.conditions.groups[1].n_copies} of 24" in card  # type: ignore[union-attr]
    assert "Do the classes differ? | p = " in card and RARE not in card and OFTEN not in card


def test_the_table_of_matches_says_the_condition_of_each_image(finished: tuple[Path, AuditResult]) -> None:
    out, _ = finished
    rows = matches_in(out)
    assert list(rows[0])[-2:] == ["page", "condition_kind"]
    assert {row["synthetic"]: row["condition_kind"] for row in rows} == {
        f"synthetic/synthetic{number:02d}.png": RARE if number < 12 else OFTEN for number in range(24)
    }


def test_a_manifest_of_samples_gives_its_conditions_and_nothing_else(place: Path, tmp_path: Path) -> None:
    """Other people's text: no formula, and it can be read back."""
    table = place / "manifest.csv"
    rows = [
        f"synthetic/synthetic{number:02d}.png,{number},abc,def,{'=1+1' if number else 'n/a'},{40 + number}"
        for number in range(24)
    ]
    table.write_text("image,seed,model_sha256,sha256,=label,age\n" + "\n".join(rows) + "\n")
    audit(place, tmp_path / "out", synthetic=str(table), condition=None)
    found = {row["synthetic"]: row for row in matches_in(tmp_path / "out")}
    assert list(found["synthetic/synthetic00.png"])[-3:] == ["page", "condition_'=label", "condition_age"]
    first, second = (found[f"synthetic/synthetic0{number}.png"] for number in (0, 1))
    assert (first["condition_'=label"], first["condition_age"]) == ("", "40")
    assert (second["condition_'=label"], second["condition_age"]) == ("=1+1", "41")
    assert ",'=1+1," in (tmp_path / "out" / "matches.csv").read_text()


def test_a_redacted_audit_names_no_class_and_tells_small_ones_together(place: Path, tmp_path: Path) -> None:
    audit(place, tmp_path / "out", redacted=True)
    record = json.loads((tmp_path / "out" / "audit.json").read_text())
    text = json.dumps(record) + (tmp_path / "out" / "report.html").read_text()
    assert RARE not in text and OFTEN not in text and "kind" not in record["conditions"]["condition"]
    table = (tmp_path / "out" / "matches.csv").read_text()
    assert RARE not in table and OFTEN not in table and "condition" not in table and table.count("\n") == 25
    groups = record["conditions"]["groups"]
    assert [(group["name"], group["n_train"], group["n_synthetic"]) for group in groups] == [
        ("2 groups of few patients", 24, 24)
    ]


def group(name: str, patients: int, copies: int = 1) -> GroupPart:
    return GroupPart(name, 20, copies, SOME, SOME, patients, patients, 1, SOME, 10, Estimate(0.1, 0.0, 0.3))


def part(*patients: int) -> ConditionPart:
    return ConditionPart("ward", [group(f"ward {n}", n) for n in patients], 0.5, [])


def test_a_class_of_few_patients_is_hidden_among_others() -> None:
    found = without_names(part(2, 30, 40), 0.95)
    assert found is not None
    assert [(item.name, item.n_train, item.n_copies) for item in found.groups] == [
        ("2 groups of few patients", 32, 2), ("group 1", 40, 1),
    ]  # fmt: skip
    assert found.condition == "condition" and "told together" in found.notes[-1]
    assert found.groups[0].control is not None and found.groups[0].control.value == 0.1
    several = without_names(part(3, 4, 5, 50), 0.95)
    assert several is not None and [item.n_patients for item in several.groups] == [12, 50]
    alone = without_names(part(3, 4), 0.95)
    assert alone is not None and alone.groups == [] and "not told" in alone.notes[-1]
    large = without_names(part(LEAST_PATIENTS, 50), 0.95)
    assert large is not None and [item.name for item in large.groups] == ["group 1", "group 2"] and not large.notes
    assert without_names(None, 0.95) is None


def test_within_a_class_samples_are_compared_with_their_own_class_alone(place: Path, tmp_path: Path) -> None:
    result = audit(place, tmp_path / "out", within=OFTEN)
    assert (result.n_train, result.n_heldout, result.n_synthetic) == (20, 24, 12)
    assert (
        "4 of 24 images are of another class and were left out: copies of them are not found"
        in result.cohorts["training"].notes
    )
    assert all(match.nearest_training >= "train/train04" for match in result.matches)
    assert result.conditions is not None and [item.name for item in result.conditions.groups] == [OFTEN]
    assert result.conditions.p_value is None


def test_what_the_tables_do_not_say_is_named(place: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"training cohort has no column 'ward'; it has kind"):
        audit(place, tmp_path / "a", condition="ward")
    with pytest.raises(CohortError, match=r"no image of the training cohort has kind 'gnu'; they have okapi, zebra"):
        audit(place, tmp_path / "b", within="gnu")
    with pytest.raises(CohortError, match=r"synthetic cohort has no column 'kind'; .*manifest"):
        audit(place, tmp_path / "c", synthetic=str(place / "synthetic"))
    with pytest.raises(CohortError) as caught:
        audit(place, tmp_path / "d", within="gnu", redacted=True)
    assert "gnu" not in str(caught.value) and "--within" in str(caught.value)
    with pytest.raises(SettingsError, match="name the column with condition"):
        AuditConfiguration(train="a", heldout="b", synthetic="c", out="d", within="x")


def test_without_a_condition_nothing_is_told(place: Path, tmp_path: Path) -> None:
    result = audit(place, tmp_path / "out", condition=None)
    assert result.conditions is None and "By condition" not in (tmp_path / "out" / "report.html").read_text()
    assert replace(result, conditions=None).without_patients().conditions is None


def test_classes_that_are_written_in_another_way_or_were_not_drawn_are_told(place: Path, tmp_path: Path) -> None:
    text = (place / "synthetic.csv").read_text().replace(RARE, RARE.upper())
    (place / "other.csv").write_text(text)
    part = audit(place, tmp_path / "out", synthetic=str(place / "other.csv")).conditions
    assert part is not None and [group.n_train for group in part.groups] == [0, 20]
    assert any(note.startswith("1 group has no training image: either nothing") for note in part.notes)
    assert "1 class of the training has no synthetic image: of it nothing is said." in part.notes

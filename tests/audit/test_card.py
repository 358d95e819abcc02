# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monai_memo.__main__ import FINISHED, REFUSED, main
from monai_memo.audit.card import TODO, write_card
from monai_memo.audit.giving import privacy_of, privacy_promise
from monai_memo.audit.parts import Count, PartialPart, ReferencePart
from monai_memo.audit.result import AuditResult, Estimate
from monai_memo.audit.verdict import verdict_for
from monai_memo.errors import ConfigurationError, OutputError
from monai_memo.files import sha256_of, write_json
from monai_memo.sealing import save_torch
from monai_memo.training.private import PrivacyBudget, PrivateTraining


def with_software(record: AuditResult) -> AuditResult:
    return replace(record, software={**record.software, "monai-memo": "0.1.0"})


@pytest.fixture
def folder(record: AuditResult, tmp_path: Path) -> Path:
    with_software(record).write(tmp_path / "audit")
    return tmp_path / "audit"


def card(folder: Path, **arguments: Any) -> str:
    return write_card(str(folder), str(folder.parent / "card.md"), **arguments).read_text(encoding="utf-8")


def test_numbers_of_the_audit_with_intervals(folder: Path) -> None:
    text = card(folder, title="Chest 2026")
    assert text.startswith("# Memorization card: Chest 2026\n")
    for part in (
        "31 of 100 (24 to 39)",
        "26.0 % (18.0 % to 34.0 %)",
        "5.0 % (2.0 % to 9.0 %)",
        "100 images of 90 patients",
        "28 of 100 (20 to 37)",
        "45 of 50 found, 90.0 % (79.0 % to 96.0 %)",
        "Size-matched calibration.",
        'recipe "default", images of 64 x 64',
        "1 training |",
    ):
        assert part in text, part


def test_a_card_of_an_audit_that_found_copies_says_do_not_publish(
    folder: Path, quiet_record: AuditResult, tmp_path: Path
) -> None:
    assert "Do not publish the data set" in card(folder)
    with_software(quiet_record).write(tmp_path / "quiet" / "audit")
    text = card(tmp_path / "quiet" / "audit")
    assert "Do not publish" not in text and "0 of 1000 (up to 3, 0.3 %, cannot be excluded)" in text


def test_nothing_of_patients_or_folders(folder: Path) -> None:
    text = card(folder)
    for word in ("anna", "bert", "/hospital", "alert(", str(folder), "data:image"):
        assert word not in text, word


def test_what_the_audit_cannot_know_is_left_to_the_team(folder: Path) -> None:
    text = card(folder)
    rows = [line for line in text.splitlines() if line.endswith(f"{TODO} |")]
    asked = " ".join(rows)
    for part in ("Name, version", "Responsible", "legal basis", "Images removed", "Limit of detection", "drawn in all"):
        assert part in asked, part


def test_attacks_are_named_with_what_tested_them_and_what_was_not_tested(folder: Path) -> None:
    text = card(folder)
    rows = [line for line in text.splitlines() if line.count("|") == 5]
    assert sum("Singling out" in row for row in rows) == 2
    assert sum("Linkability" in row for row in rows) == 2
    assert any("31 of 100 above the threshold in the audit" in row for row in rows)
    assert sum("| not tested | | not known |" in row for row in rows) >= 2
    assert "this is not a determination of anonymity" in text and "Date of the next evaluation" in text


def test_tables_are_whole(folder: Path) -> None:
    """Markdown ends a table at an empty line or at a row without cells."""
    lines = card(folder).splitlines()
    for number, line in enumerate(lines):
        if line.startswith("|"):
            above = lines[number - 1]
            width = above.count("|") if above.startswith("|") else 5 if line.startswith("| Attack ") else 3
            assert line.endswith("|") and line.count("|") == width, line
            previous = lines[number - 1]
            assert not previous or previous.startswith("|"), f"{previous!r} before {line!r}"


def test_limit_of_detection(folder: Path, record: AuditResult, tmp_path: Path) -> None:
    assert "not measured in this audit" in card(folder)
    limits = [
        {"kind": "rotation", "found_up_to": 10.0, "missed_from": 20.0, "found": {"10": 1.0, "20": 0.5}},
        {"kind": "flip", "found_up_to": 0.0, "missed_from": None, "found": {"0": 1.0}},
    ]
    measured = replace(with_software(record), detection_limit={"copies": 10, "limits": limits})
    measured.write(tmp_path / "measured" / "audit")
    text = card(tmp_path / "measured" / "audit")
    assert "10 copies of training images" in text and "not measured" not in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| rotation", "| flip"))]
    assert [(row[0], *row[2:]) for row in rows] == [
        ("| rotation", "10", "20", "50 % |"),
        ("| flip", "-", "-", "100 % |"),
    ]


def test_what_was_removed(folder: Path, record: AuditResult, tmp_path: Path) -> None:
    left = replace(
        with_software(record),
        n_synthetic=69,
        n_copies=replace(record.n_copies, value=2, of=69),
        excess_copies=Estimate(-0.02, -0.05, 0.03),
        detector={**record.detector, "sha256": "12" * 32},
    )
    left = replace(left, verdict=verdict_for(left.n_copies, left.control_copies, left.excess_copies, None))
    left.write(tmp_path / "after")
    text = write_card(str(tmp_path / "after"), str(tmp_path / "after.md"), before=str(folder)).read_text()
    assert "| Images before | 100 |" in text and "| Images removed | 31 |" in text
    assert "the bound in the line above is too low" in text and "Read N_copies itself:\n2 of 69 (24 to 39)" in text
    assert "used another detector" in text and "is no evidence" not in text
    same = write_card(str(folder), str(tmp_path / "same.md"), before=str(folder)).read_text()
    assert "is too low:**" not in same, "nothing was removed"
    assert "| Images removed | 0 |" in same and "is no evidence" in same
    with pytest.raises(ConfigurationError, match="fewer than the 100"):
        card(folder, before=str(tmp_path / "after"))
    other = replace(record.cohorts["training"], content_sha256="00" * 32)
    replace(with_software(record), cohorts={**record.cohorts, "training": other}).write(tmp_path / "foreign")
    with pytest.raises(ConfigurationError, match="other training images"):
        card(folder, before=str(tmp_path / "foreign"))


def test_a_review_of_this_audit_is_summed_up(folder: Path) -> None:
    rate = {"value": 0.9, "low": 0.8, "high": 0.95}
    consensus = {"pairs": 40, "sensitivity": rate, "specificity": rate, "precision": rate, "prevalence": None}
    record = {
        "audit": sha256_of(folder / "matches.csv"),
        "raters": [{"rater": "anna"}, {"rater": "bert"}],
        "detector": {"copy_or_same_patient": {"consensus": consensus}},
    }
    write_json(folder / "review.json", record)
    text = card(folder)
    assert "2 raters, 40 pairs decided" in text and "sensitivity is 90 % (80 % to 95 %)" in text and "anna" not in text
    write_json(folder / "review.json", {**record, "audit": "of an earlier audit"})
    assert "2 raters" not in card(folder)
    write_json(folder / "review.json", record)
    again = write_card(str(folder), str(folder.parent / "again.md"), before=str(folder)).read_text()
    assert "People who looked at pairs of them | 2 raters" in again


def test_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "published" / "CARD.md"
    with pytest.raises(SystemExit) as end:
        main(["card", "--audit", str(folder), "--out", str(out), "--title", "2026"])
    assert (end.value.code or 0) == FINISHED and "# Memorization card: 2026\n" in out.read_text()
    assert f"fill in the {out.read_text().count(TODO)} places" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["card", "--audit", str(tmp_path)])
    assert end.value.code == REFUSED and "no audit.json" in capsys.readouterr().err


def test_a_redacted_audit_gives_the_same_card(record: AuditResult, folder: Path, tmp_path: Path) -> None:
    with_software(record).without_patients().write(tmp_path / "redacted" / "audit")
    redacted, whole = card(tmp_path / "redacted" / "audit"), card(folder)
    different = [pair for pair in zip(redacted.splitlines(), whole.splitlines(), strict=True) if pair[0] != pair[1]]
    assert [first[:18] for first, _ in different] == ["| Record | audit.j"]


def test_a_card_replaces_nothing_of_somebody_else(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "card.md"
    out.write_text("my notes")
    with pytest.raises(OutputError, match="no memorization card"):
        write_card(str(folder), str(out))
    assert out.read_text() == "my notes"
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    for taken in (tmp_path / "image.png", tmp_path):
        with pytest.raises(OutputError, match="left as it is"):
            write_card(str(folder), str(taken))
    assert (tmp_path / "image.png").read_bytes() == b"\x89PNG"


def test_a_card_that_was_filled_in_is_kept(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "card.md"
    for _ in range(2):  # the same card again leaves nothing behind
        write_card(str(folder), str(out))
    assert not (tmp_path / "card.earlier-1.md").exists()
    for number in (1, 2):
        filled = out.read_text().replace(TODO, f"filled in, {number}")
        out.write_text(filled)
        assert write_card(str(folder), str(out)).read_text() != filled
        assert (tmp_path / f"card.earlier-{number}.md").read_text() == filled


def test_a_card_goes_neither_to_a_cohort_nor_into_a_redacted_result(
    record: AuditResult, folder: Path, tmp_path: Path
) -> None:
    for name in ("train", "heldout", "synthetic"):
        (tmp_path / name / "deep").mkdir(parents=True)
        configuration = {**record.configuration, name: str(tmp_path / name)}
        with_software(replace(record, configuration=configuration)).write(folder)
        for out in (tmp_path / name / "card.md", tmp_path / name / "deep" / "card.md"):
            with pytest.raises(ConfigurationError, match=f"lies in the folder of --{name}"):
                write_card(str(folder), str(out))
            assert not out.exists()
    with_software(record.without_patients()).write(tmp_path / "redacted")
    for out in (tmp_path / "redacted" / "card.md", tmp_path / "redacted" / "figures" / "card.md"):
        with pytest.raises(OutputError, match="the redacted result of monai-memo audit is there"):
            write_card(str(folder), str(out))
        assert not out.exists()


def test_what_the_verdict_can_rest_on_stands_on_the_card_or_is_said_to_be_missing(
    folder: Path, record: AuditResult, tmp_path: Path
) -> None:
    bare = replace(record, reference=None, partial=None)
    with_software(bare).write(tmp_path / "bare" / "audit")
    text = card(tmp_path / "bare" / "audit")
    assert "as close to unseen patients? | not done in this audit |" in text
    assert "no copy as a whole | not looked for in this audit |" in text
    share = Estimate(0.07, 0.03, 0.12)
    reference = ReferencePart(
        "search", 30, 10, 100, 100, 1.0, 0.1, Estimate(0.2, 0.1, 0.3), 0.0002, 5, 0.0002, 0.06, 20
    )
    partial: PartialPart = {
        "n_copies": Count(7, 3, 12, 100, share), "control": share, "excess": share, "tau": share, "listed": 3,
        "sentence": "Windows.",
    }  # fmt: skip
    with_software(replace(record, reference=reference, partial=partial)).write(tmp_path / "whole" / "audit")
    text = card(tmp_path / "whole" / "audit")
    assert "30 nearest to a training patient, 10 to a held-out one; beyond look-alikes 20.0 %" in text
    assert "| 7 of 100 (3 to 12); excess over their control 7.0 % (3.0 % to 12.0 %) |" in text
    assert "not done in this audit" not in text and "not looked for" not in text


PRIVATE = {
    "epsilon": 8.0, "delta": 1e-5, "unit": "one image", "patient": {"images": 2, "epsilon": 16.0, "delta": 0.03},
    "covers": "the diffusion model only", "not_covered": ["the first | stage", "logs"], "public_seed": False,
    "statement": "epsilon 8 for one image | not covered: x.",
}  # fmt: skip
ATTACK = "| Any attack on the generator that asks whether an image was trained on |"


def row(text: str, start: str) -> str:
    """The row of a table that begins so."""
    return next(line for line in text.splitlines() if line.startswith(start))


def test_differential_privacy_stands_in_the_card_in_the_words_of_the_weights(folder: Path, tmp_path: Path) -> None:
    weights, plain, early = tmp_path / "model.pt", tmp_path / "plain.pt", tmp_path / "early.pt"
    save_torch(weights, {"state_dict": {}, "privacy": PRIVATE})
    save_torch(plain, {"state_dict": {}})
    save_torch(early, {"state_dict": {}, "privacy": {"statement": "x"}})
    without = card(folder)
    assert "Measure taken while training" not in without
    assert row(without, ATTACK).endswith("| not applied, or not known | no bound |")
    text = write_card(str(folder), str(tmp_path / "private.md"), weights=str(weights)).read_text()
    line = row(text, "| Measure taken while training |")
    assert r"epsilon 8 for one image \| not covered: x." in line and "not tested by the audit" in line
    bound = row(text, ATTACK)
    assert "epsilon 8, delta 1e-05 for one image (what somebody" in bound and "e^8 = 2,981.0 times as" in bound
    assert "but for delta); epsilon 16, delta 0.03 for a patient with 2 images" in bound
    assert r"not covered: all but the diffusion model only; the first \| stage; logs; what was chosen" in bound
    for path, message in (
        (plain, "was not trained with differential privacy"),
        (early, "a record of differential privacy without epsilon"),
        (tmp_path / "none.pt", "cannot be read"),
        (folder / "audit.json", "is damaged or no file of weights"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            write_card(str(folder), str(tmp_path / "other.md"), weights=str(path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patient": None}, "but for delta); patients were not known, so nothing for somebody with"),
        ({"patient": {"images": 1, "epsilon": 8.0, "delta": 1e-5}}, "the same for a patient, since nobody has more"),
        ({"patient": {"images": 3, "epsilon": 24.0, "delta": None}}, "nothing for a patient with 3 images (delta"),
        ({"public_seed": True}, "nothing: its noise came from a seed that is known"),
    ],
)
def test_what_privacy_promises_a_patient_is_never_more_than_its_record_says(change: dict[str, Any], said: str) -> None:
    told = privacy_promise({**PRIVATE, **change})
    assert said in told
    assert "epsilon 8" not in told or not change.get("public_seed")


def test_the_record_of_a_real_training_is_one_that_the_card_reads(tmp_path: Path) -> None:
    pytest.importorskip("opacus")
    training = PrivateTraining(PrivacyBudget(8.0, 1e-5, 1.0, 30, 10, 20), 2, ["the autoencoder"])
    save_torch(tmp_path / "model.pt", {"state_dict": {}, "privacy": training.record()})
    told = privacy_of(tmp_path / "model.pt")
    assert set(PRIVATE) < set(told) and told["weights_sha256"] == sha256_of(tmp_path / "model.pt")
    epsilon = f"epsilon {told['epsilon']:g}, delta"
    assert epsilon in told["statement"] and epsilon in privacy_promise(told), "one number in both places"

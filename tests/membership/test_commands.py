# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The two commands on a tiny bundle, from the command line to the report of an audit."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from monai_memo.__main__ import FINISHED, main
from monai_memo.audit.audit import Audit
from monai_memo.audit.card import write_card
from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.membership.membership import Membership
from monai_memo.workspace.manifest import MANIFEST
from tests.audit.small import settings as audit_settings
from tests.audit.small import untrained, write_cohorts


def options(bundle: Path, cohorts: Path, out: Path, **further: Any) -> dict[str, Any]:
    named = {"bundle": bundle, "train": cohorts / "train.csv", "heldout": cohorts / "heldout.csv", "out": out}
    quick = {"levels": (0.1, 0.5), "draws": 1, "device": "cpu", "workers": 1, "progress": False}
    return {name: str(value) for name, value in named.items()} | quick | further


def command(name: str, options: dict[str, Any]) -> int:
    words = [name]
    for option, value in options.items():
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no{option}")
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [f"--{option}", text]
    with pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0)


def names_nobody(text: str, *folders: Path) -> bool:
    words = [*(str(folder) for folder in folders), "train-0", "heldout-0", ".png", "train.csv"]
    return not [word for word in words if word in text]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_cohorts(tmp_path_factory.mktemp("audited"))
    Audit(**audit_settings(root, root / "audit", untrained(root / "detector.pt"))).run()
    Audit(**audit_settings(root, root / "redacted", root / "detector.pt", redacted=True)).run()
    return root


def test_the_command_writes_record_and_page_that_name_nobody(
    bundle: Path, cohorts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = options(bundle, cohorts, out, patients=True, reference_bundle=bundle)
    assert command("membership", given | {"reference_diffusion_file": bundle / "models" / "other.pt"}) == FINISHED
    record = json.loads((out / "membership.json").read_text())
    assert record["cohorts"]["training"]["patients"] == 12 and record["cohorts"]["heldout"]["images"] == 28
    assert record["main"] == "denoising, calibrated" and record["main"] in record["scores"]
    main_score = record["scores"][record["main"]]
    assert main_score["auc"]["low"] <= 0.5 <= main_score["auc"]["high"] and record["level"] == "not_shown"
    assert record["model"]["weights_sha256"] != record["reference"]["weights_sha256"]
    at = main_score["found_at"][1]
    assert not at["resolved"] and at["wanted"] == 999
    page = (out / "membership.html").read_text()
    assert "it takes 999" in page and "means nothing with 14 held-out patients" in page
    shown = capsys.readouterr().out
    assert record["headline"] in shown and str(out / "membership.html") in shown
    assert names_nobody(page + json.dumps(record), cohorts, bundle)
    with open(out / "membership.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["patient"] for row in rows[:2]] == ["train-00", "train-01"] and len(rows) == 26
    assert sorted(path.name for path in out.iterdir()) == [  # no pixels of patients in a hidden folder
        MANIFEST, "membership.csv", "membership.html", "membership.json",
    ]  # fmt: skip


def test_the_same_command_gives_the_same_numbers_in_batches_of_any_size(
    bundle: Path, cohorts: Path, tmp_path: Path
) -> None:
    first = Membership(**options(bundle, cohorts, tmp_path / "a")).run()
    again = Membership(**options(bundle, cohorts, tmp_path / "b", batch_size=5)).run()
    assert first["scores"] == again["scores"] and first["found"] == again["found"]


def test_a_model_is_told_the_conditions_that_the_tables_have(told_bundle: Path, cohorts: Path, tmp_path: Path) -> None:
    """The config's guidance would forget them: it plays no part."""
    quick = {"reference_bundle": str(told_bundle), "reference_diffusion_file": str(told_bundle / "models" / "other.pt")}
    told, untold = (
        Membership(**options(told_bundle, cohorts, tmp_path / how, conditions=how, **quick)).run()
        for how in ("told", "untold")
    )
    assert told["model"]["conditions"] == {"columns": 2, "told": True} == told["reference"]["conditions"]
    assert "The model was told the conditions that it was trained with (2)" in told["method"]
    assert "The reference model was told" in told["method"] and told["conditions_alone"]["auc"]["low"] <= 0.5
    assert untold["model"]["conditions"] == {"columns": 2, "told": False} and untold["conditions_alone"] is None
    assert "The model was trained with conditions (2) and was not told those" in " ".join(untold["found"])
    assert told["scores"]["denoising"]["auc"] != untold["scores"]["denoising"]["auc"]
    page = (tmp_path / "told" / "membership.html").read_text()
    assert "conditions alone, no model" in page and names_nobody(page, cohorts, told_bundle)
    assert "pneumonia" not in page + json.dumps(told) and "label" not in json.dumps(told)
    assert "a stronger attack" in (tmp_path / "untold" / "membership.html").read_text()


def test_tables_that_do_not_say_the_conditions_are_refused_before_images_are_read(
    told_bundle: Path, bundle: Path, cohorts: Path, tmp_path: Path
) -> None:
    """A weaker attack in silence would pass for a safer model."""
    rows = [line.split(",") for line in (cohorts / "heldout.csv").read_text().splitlines()]

    def table(name: str, change: Any) -> str:
        path = cohorts / f"{name}.csv"
        path.write_text("\n".join(",".join(change(number, row)) for number, row in enumerate(rows)) + "\n")
        return str(path)

    plain = table("plain", lambda number, row: row[:2])
    empty = table("empty", lambda number, row: [*row[:3], "" if number else row[3]])
    told = options(told_bundle, cohorts, tmp_path / "out")
    for heldout, columns in ((plain, "label or age"), (empty, "age")):
        with pytest.raises(MemoError, match=rf"--heldout .*: no image has {columns}, .*--conditions untold"):
            Membership(**told | {"heldout": heldout}).run()
    assert Membership(**told | {"heldout": plain, "conditions": "untold"}).run()["model"]["conditions"]["told"] is False
    with pytest.raises(MemoError, match=r"--train .*: no training image has label tumour; they have normal, pneumonia"):
        strange = table("strange", lambda number, row: [*row[:2], "tumour" if number else "label", row[3]])
        Membership(**told | {"train": strange, "heldout": str(cohorts / "train.csv")}).run()
    with pytest.raises(MemoError, match=r"reference model: --heldout .*: no image has label or age"):
        plain_model = options(bundle, cohorts, tmp_path / "out", reference_bundle=str(told_bundle))
        Membership(**plain_model | {"heldout": plain}).run()
    rare = table("rare", lambda number, row: [*row[:2], "tumour" if number == 3 else row[2], row[3]])
    warned = Membership(**told | {"heldout": rare}).run()["warnings"]
    assert any("Some held-out images have conditions that no training image has" in text for text in warned)


@pytest.mark.parametrize("kind", ["audit", "redacted"])
def test_an_audit_gets_a_chapter_and_its_card_a_line(
    kind: str, audited: Path, bundle: Path, cohorts: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(audited / kind, tmp_path / "audit")
    before = (folder / "report.html").read_text()
    card = write_card(folder, tmp_path / "before.md").read_text()
    assert "Weights | not tested" in card and "Attributes and membership of single patients are not tested" in card
    for out in ("first", "second"):  # the second takes the place of the first
        Membership(**options(bundle, cohorts, tmp_path / out, audit=str(folder))).run()
    report = (folder / "report.html").read_text()
    assert report.count('<section id="membership">') == 1 and len(report) > len(before)
    assert "The audit looked for copies of 12 training images of 12 patients, this test has 24 of 12" in report
    assert names_nobody(report.partition('<section id="membership">')[2].partition("</section>")[0], cohorts, bundle)
    record = json.loads((folder / "membership.json").read_text())
    assert record["headline"] in report and names_nobody(json.dumps(record), cohorts, bundle)
    text = write_card(folder, tmp_path / "card.md").read_text()
    assert "Weights | membership inference" in text and "AUC" in text and "membership only as stated above" in text
    assert "Inference, by somebody who has the weights" in text and names_nobody(text, cohorts, bundle)
    # Of another audit in the same folder it says nothing.
    audit = json.loads((folder / "audit.json").read_text())
    (folder / "audit.json").write_text(json.dumps({**audit, "schema_version": audit["schema_version"]}, indent=1))
    assert "Weights | not tested" in write_card(folder, tmp_path / "other.md").read_text()


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"bundle": "nowhere"}, "--bundle nowhere is no bundle.*audit its samples"),
        ({"size": 32}, r"latents of \(1, 32, 32\).*another size than those of the training \(--size\)"),
        ({"diffusion_file": "nowhere.pt"}, "no diffusion weights at nowhere.pt"),
        ({"audit": "nowhere"}, "--audit nowhere has no audit.json"),
        ({"reference_diffusion_file": "other.pt"}, "reference_diffusion_file takes a reference_bundle"),
        ({"levels": (0.2, 0.1)}, "levels"),
    ],
)
def test_what_cannot_be_tested_is_said_with_its_remedy(
    further: dict[str, Any], message: str, bundle: Path, cohorts: Path, tmp_path: Path
) -> None:
    with pytest.raises(MemoError, match=message):
        Membership(**options(bundle, cohorts, tmp_path / "out") | further).run()


def test_a_reference_must_be_another_model_and_cohorts_other_patients(
    bundle: Path, cohorts: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="has the very weights of the model"):
        Membership(**options(bundle, cohorts, tmp_path / "a", reference_bundle=str(bundle))).run()
    with pytest.raises(MemoError, match="patients in both"):
        Membership(**options(bundle, cohorts, tmp_path / "b") | {"heldout": str(cohorts / "train.csv")}).run()
    lines = (cohorts / "train.csv").read_text().splitlines()
    (cohorts / "few.csv").write_text("\n".join(lines[:9]) + "\n")
    with pytest.raises(MemoError, match=r"--train .*few.csv has 4 patients: 10 at least"):
        Membership(**options(bundle, cohorts, tmp_path / "c") | {"train": str(cohorts / "few.csv")}).run()

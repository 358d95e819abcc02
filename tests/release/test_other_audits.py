# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Releases from audits of tables, with symmetries, and without a verdict of copies."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_memo.audit.audit import Audit
from monai_memo.release.looks import Look
from monai_memo.release.release import Release
from monai_memo.text import markdown
from tests.audit.small import picture, settings
from tests.release.conftest import COPIES, options

QUICK = {"second_look": False, "second_detector": None}


def names(path: Path) -> set[str]:
    with open(path, newline="", encoding="utf-8") as stream:
        return {Path(row["synthetic"]).name for row in csv.DictReader(stream)}


def test_cohorts_of_tables_are_released_with_their_patients(clinic: Path, tmp_path: Path) -> None:
    sources = {}
    for name in ("train", "heldout", "synthetic"):
        sources[name] = str(tmp_path / f"{name}.csv")
        with open(sources[name], "w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["image", "patient_id"] if name != "synthetic" else ["image"])
            for number, path in enumerate(sorted((clinic / name).iterdir())):
                rows.writerow([str(path), f"{name}{number // 2}"] if name != "synthetic" else [str(path)])
    Audit(**{**settings(clinic, tmp_path / "audit", clinic / "detector.pt", allow_overlap=True), **sources}).run()
    done = Release(**options(clinic, tmp_path / "out", audit=str(tmp_path / "audit"), **QUICK)).run()
    assert not {name for name in names(done.private / "key.csv") if name.startswith("copy")}
    assert done.statement.released + sum(done.statement.reasons().values()) == 25
    with open(done.private / "removed.csv", newline="") as stream:
        shown = {Path(row["synthetic"]).name: row["patient"] for row in csv.DictReader(stream)}
    assert shown["copy3.png"] == "train1", "two images a patient"


def test_an_audit_under_all_symmetries_takes_turned_copies_out_and_looks_draws_up_turned_as_well(
    clinic: Path, tmp_path: Path
) -> None:
    shutil.copytree(clinic / "synthetic", tmp_path / "synthetic")
    turned = np.rot90(np.asarray(picture(20)))
    Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / "synthetic" / "turned.png")
    given = settings(clinic, tmp_path / "audit", clinic / "detector.pt", allow_overlap=True, symmetries="all")
    Audit(**{**given, "synthetic": str(tmp_path / "synthetic")}).run()

    def draw(seeds: object) -> list[np.ndarray]:
        return [np.asarray(picture(9000 + seed) if seed % 2 else picture(21).rotate(90))[None] / 255 for seed in seeds]

    further = {"audit": str(tmp_path / "audit"), "top_up_to": 26, **QUICK}
    done = Release(draw, **options(clinic, tmp_path / "out", **further)).run()
    released = names(done.private / "key.csv")
    assert "turned.png" not in released and not {name for name in released if name.startswith("copy")}
    drawn = done.statement.drawn
    assert drawn is not None and drawn["copies"] >= drawn["drawn"] // 2, "turned copies are rejected"
    assert done.statement.released == 26


def test_an_audit_that_was_not_conclusive_is_released_with_its_verdict(clinic: Path, tmp_path: Path) -> None:
    shutil.copytree(clinic / "synthetic", tmp_path / "synthetic")
    for number in range(COPIES):
        (tmp_path / "synthetic" / f"copy{number}.png").unlink()
    given = settings(clinic, tmp_path / "audit", clinic / "detector.pt", allow_overlap=True)
    result = Audit(**{**given, "synthetic": str(tmp_path / "synthetic")}).run()
    assert result.verdict["level"] == "inconclusive"
    done = Release(**options(clinic, tmp_path / "out", audit=str(tmp_path / "audit"), **QUICK)).run()
    assert done.statement.released + sum(done.statement.reasons().values()) == 20
    assert f'"{markdown(result.verdict["headline"])}"' in (done.out / "RELEASE.md").read_text()


def test_the_first_look_has_the_references_that_can_raise_the_audits_threshold(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = settings(clinic, tmp_path / "audit", clinic / "detector.pt", allow_overlap=True)
    result = Audit(**{**verified, "verification": True, "parts": False}).run()
    looks: list[Look] = []
    real = Release._compare
    monkeypatch.setattr(Release, "_compare", lambda self, first: (looks.append(first), real(self, first))[1])
    quick = {"audit": str(tmp_path / "audit"), "second_look": False, "second_detector": None}
    Release(**options(clinic, tmp_path / "out", **quick)).run()
    assert looks[0].searched.own is not None, "the samples' own similarities to unseen patients"
    assert looks[0].tau == pytest.approx(result.tau.value, abs=1e-6)

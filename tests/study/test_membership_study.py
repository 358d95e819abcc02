# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Membership, targeted search and copy rate along one training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_memo.data.cohort import Cohort
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image
from monai_memo.errors import ConfigurationError
from monai_memo.study.membership import MembershipStudy, Plan, table
from tests.audit.small import untrained
from tests.bundles.test_generators import ROOT, TINY, restore  # noqa: F401

NETWORKS = {name: value for name, value in TINY.items() if name not in ("device", "workers", "progress")}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    lines = ["image,patient_id"]
    for number in range(64):
        save_image(tmp_path / "images" / f"{number:02d}.png", chest_phantom(number, (32, 32)))
        lines.append(f"images/{number:02d}.png,p{number:02d}")
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    kept = {name: value for name, value in NETWORKS.items() if not name.startswith(("heldout", "monitor"))}
    return Plan(
        str(tmp_path / "all.csv"), str(ROOT / "bundles" / "chest_xray_ldm"), str(untrained(tmp_path / "detector.pt")),
        str(tmp_path / "out"), steps=(2, 4), patients=12, heldout=24, first_stage=12, samples=4, targets=10,
        settings=kept, size=(32, 32), progress=False,
    )  # fmt: skip


def test_no_patient_stands_in_two_groups_and_seeds_deal_them(plan: Plan) -> None:
    (Path(plan.out)).mkdir()
    dealt = MembershipStudy(plan)._cohorts()
    groups = [set(cohort.patient_ids) for cohort in dealt.values()]
    assert [len(group) for group in groups] == [12, 12, 24, 12] and len(set.union(*groups)) == 60
    written = Cohort.from_source(Path(plan.out) / "model.csv", "training")
    assert set(written.patient_ids) == groups[0]
    other = MembershipStudy(Plan(**{**vars(plan), "seed": 1}))._cohorts()
    assert set(other["model"].patient_ids) != groups[0]
    with pytest.raises(ConfigurationError, match="has 64 patients: 1060 are needed"):
        MembershipStudy(Plan(**{**vars(plan), "heldout": 1000, "first_stage": 36}))._cohorts()


def stage(steps: int, resolved: bool) -> dict[str, Any]:
    three = {"value": 0.71, "low": 0.6, "high": 0.8}
    score = {"auc": three, "p_value": 0.004, "found_at": [{"found": three, "resolved": resolved}]}
    return {
        "steps": steps,
        "copies": {
            "n_synthetic": 100, "reference": {"excess": [0.1, 0.05, 0.2]},
            "rates": {"size_matched": {"n_copies": 7, "excess_copies": [0.02, 0, 0.06]}},
        },
        "membership": {
            "main": "denoising, calibrated",
            "scores": dict.fromkeys(("denoising, calibrated", "denoising", "one query, calibrated"), score),
        },
        "extraction": {"targets": 40, "ways": [{"way": "from 90 % noise", "training_back": 9, "heldout_back": 2}]},
    }  # fmt: skip


def test_the_table_has_all_three_looks_at_each_stage() -> None:
    lines = table([stage(500, True), stage(6000, False)]).splitlines()
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| 500 | 7 of 100 | 2 (0 to 6) | 10 (5 to 20) | 0.71 (0.60 to 0.80) | 71 (60 to 80) |")
    assert lines[2].endswith("| 9, 2 of 40 | - |") and "| - | 0.004 |" in lines[3]


@pytest.mark.slow
def test_a_study_that_is_called_again_does_nothing_twice(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = MembershipStudy(plan).run()
    assert [row["steps"] for row in rows] == [2, 4]
    hashes = [row["membership"]["model"]["weights_sha256"] for row in rows]
    references = [row["membership"]["reference"]["weights_sha256"] for row in rows]
    assert len({*hashes, *references}) == 4
    assert len({row["membership"]["model"]["first_stage_sha256"] for row in rows}) == 1
    text = (Path(plan.out) / "membership_study.md").read_text()
    assert text == table(rows)
    monkeypatch.setattr(MembershipStudy, "_trained", None)
    again = MembershipStudy(plan).run()
    assert json.dumps(again) == json.dumps(rows)
    assert np.isfinite([row["copies"]["rates"]["size_matched"]["excess_copies"] for row in rows]).all()

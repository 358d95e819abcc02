# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What a release says of attacks on the generator itself: tests that were made, and what nobody has tested."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from monai_memo.errors import ConfigurationError
from monai_memo.files import sha256_of, write_json
from monai_memo.release.release import Release
from monai_memo.sealing import save_torch
from tests.audit.test_card import ATTACK, PRIVATE, row
from tests.release.conftest import options

MEMBERSHIP, EXTRACTION = "| Inference, by somebody who has the weights |", "| Extraction: training images are drawn"
MODEL = {
    "membership": {
        "headline": "The model tells training patients from unseen ones. AUC 0.91.", "found": ["It finds 30 %."],
        "warnings": ["There is no reference model."],
        "cohorts": {"training": {"patients": 30}, "heldout": {"patients": 60}},
    },
    "extraction": {
        "headline": "Aimed at, training images come back.", "found": ["11 of 20."], "warnings": [], "targets": 20,
    },
}  # fmt: skip


def audited(clinic: Path, root: Path, sha256: str | None = None) -> Path:
    """The audit with records of both tests of the model beside it, for this audit or another one."""
    shutil.copytree(clinic / "audit", root / "audit")
    for name, record in MODEL.items():
        write_json(root / "audit" / f"{name}.json", {**record, "audit": sha256 or sha256_of(root / "audit/audit.json")})
    return root / "audit"


def test_nothing_that_was_not_tested_looks_as_if_it_had_been(clinic: Path, tmp_path: Path) -> None:
    audit = audited(clinic, tmp_path, "of another audit")
    done = Release(**options(clinic, tmp_path / "out", audit=str(audit))).run()
    for name in ("RELEASE.md", "card.md"):
        text = (done.out / name).read_text()
        for attack in (MEMBERSHIP, EXTRACTION):
            assert row(text, attack).endswith("| not tested | | not known |"), name
        assert row(text, ATTACK).endswith("| not applied, or not known | no bound |"), name
    line = row((done.out / "RELEASE.md").read_text(), "| Differential privacy in the generator's training |")
    assert "not applied, or not known" in line
    assert json.loads((done.out / "release.json").read_text())["differential_privacy"] is None


def test_tests_of_the_model_and_the_privacy_of_its_training_have_a_line_each(clinic: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.pt"
    save_torch(weights, {"state_dict": {}, "privacy": {**PRIVATE, "secret": "Zorg"}})
    audit = audited(clinic, tmp_path)
    done = Release(**options(clinic, tmp_path / "out", audit=str(audit), weights=str(weights))).run()
    for name in ("RELEASE.md", "card.md"):
        text = (done.out / name).read_text()
        member = row(text, MEMBERSHIP)
        assert "30 training and 60 held-out patients" in member and "AUC 0.91" in member
        assert "no bound. There is no reference model" in member, "with what limits it"
        assert "aimed at 20 training and as many held-out images | Aimed at, training" in row(text, EXTRACTION)
        bound = row(text, ATTACK)
        assert "epsilon 8, delta 1e-05 for one image (what somebody" in bound and "e^8 = 2,981.0 times as" in bound
        assert "but for delta); epsilon 16, delta 0.03 for a patient with 2 images" in bound
        assert r"not covered: all but the diffusion model only; the first \| stage; logs;" in bound
        assert "removed or counted by looking at training images, as these images and numbers were" in bound
    line = row((done.out / "RELEASE.md").read_text(), "| Differential privacy in the generator's training |")
    assert f"sha256 {sha256_of(weights)[:16]}" in line and "does not cover which images this release left out" in line
    record = json.loads((done.out / "release.json").read_text())["differential_privacy"]
    assert record["epsilon"] == 8.0 and record["patient"]["images"] == 2 and "secret" not in record


def test_weights_without_privacy_are_refused_before_any_work(clinic: Path, tmp_path: Path) -> None:
    save_torch(tmp_path / "plain.pt", {"state_dict": {}})
    with pytest.raises(ConfigurationError, match="was not trained with differential privacy"):
        Release(**options(clinic, tmp_path / "out", weights=str(tmp_path / "plain.pt")))
    assert not (tmp_path / "out.private").exists()

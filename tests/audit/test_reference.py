# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The reference control in whole audits of small cohorts."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_memo.audit import reference as module
from monai_memo.audit.audit import Audit
from monai_memo.audit.reference import joint_gallery, near_many_warning, nearest_patients, raised_warning
from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.prepared import PreparedCohort
from tests.audit.small import settings, untrained, write_cohorts

N = 30


def prepared(name: str, patients: list[str], value: float) -> PreparedCohort:
    images = tuple(CohortImage(Path(f"{i}.png"), f"{i}.png", one) for i, one in enumerate(patients))
    pixels = np.full((len(patients), 1, 8, 8), value, dtype=np.float16)
    return PreparedCohort(Cohort(name, images, name, True), pixels, (), (), "0" * 64)


@pytest.mark.parametrize("mapped_from", [2**28, 0])
def test_one_gallery_holds_both_cohorts_and_patients_of_the_same_name_stay_two(
    mapped_from: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAPPED_FROM", mapped_from)
    both = {"training": prepared("training", ["b", "a", "b"], 0.25), "heldout": prepared("heldout", ["a", "c"], 0.75)}
    vectors = {name: np.full((len(one.pixels), 2), i, dtype=np.float32) for i, (name, one) in enumerate(both.items())}
    gallery = joint_gallery(both, vectors, tmp_path / "reference")
    assert gallery.patients.tolist() == [1, 0, 1, 2, 3]
    assert gallery.pixels[:, 0, 0, 0].tolist() == [0.25] * 3 + [0.75] * 2
    assert gallery.embeddings is not None and gallery.embeddings[:, 0].tolist() == [0, 0, 0, 1, 1]
    assert isinstance(gallery.pixels, np.memmap) == (mapped_from == 0)
    found = nearest_patients(np.array([0.9, 0.8]), np.array([2, 4]), gallery.patients, 3)
    assert found.patient.tolist() == [1, 3] and found.training.tolist() == [True, True, False, False]
    assert found.images.tolist() == [1, 2, 1, 1] and found.ratio == 1.5


def brighter(path: Path, target: Path) -> None:
    Image.open(path).point(lambda value: min(255, int(value * 1.1) + 3)).save(target)


def cohorts_of(root: Path, source: str) -> Path:
    """Half of the synthetic images are altered images of one of the real cohorts."""
    write_cohorts(root, train=N, heldout=N, synthetic=15)
    for number in range(15):
        brighter(root / source / f"{source}{number:02d}.png", root / "synthetic" / f"copy{number:02d}.png")
    return root


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("detector") / "detector.pt")


@pytest.mark.parametrize("verification", [True, False])
def test_copies_of_training_patients_are_told_from_look_alikes(
    tmp_path: Path, detector: Path, verification: bool
) -> None:
    root = cohorts_of(tmp_path, "train")
    result = Audit(**settings(root, tmp_path / "out", detector, verification=verification)).run()
    reference = result.reference
    assert reference is not None and reference.by == ("search" if verification else "embeddings")
    assert (reference.n_training_patients, reference.n_unseen_patients, reference.ratio) == (N, N, 1.0)
    assert 13 <= reference.to_training <= 20 and reference.to_unseen <= 4
    assert 0.3 < reference.excess.value < 0.7 and reference.excess.low > 0.1 and reference.p_value < 0.01
    assert reference.patients_needed == 5 and 0 < reference.detectable < 0.5
    assert result.verdict["level"] == "copies_found"
    assert f"{reference.to_unseen} to a held-out patient" in result.verdict["detail"]
    with open(tmp_path / "out" / "matches.csv", newline="", encoding="utf-8") as stream:
        rows = {row["synthetic"]: float(row["look_alikes"]) for row in csv.DictReader(stream)}
    copies = [share for name, share in rows.items() if name.startswith("copy")]
    others = [share for name, share in rows.items() if not name.startswith("copy")]
    assert np.median(copies) < 0.1 < np.median(others)
    page = re.sub(r"\s+", " ", (tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "Copies, or look-alikes? The reference control" in page
    assert f"at least {reference.patients_needed} different patients must be copied" in page
    assert ("Similarities are those of embeddings here" in page) != verification
    assert "Numbers you may know" in page and result.standard is not None
    known = {number.name: number for number in result.standard}
    assert known["DCR share"].value > 0.5 == known["DCR share"].expected
    assert known["C_T"].value < -2 and known["authenticity"].value < known["authenticity"].expected
    assert not (tmp_path / "out" / ".monai_memo_work").exists()


def test_images_of_unseen_patients_speak_against_copying(tmp_path: Path, detector: Path) -> None:
    root = cohorts_of(tmp_path, "heldout")
    result = Audit(**settings(root, tmp_path / "out", detector, verification=True)).run()
    assert result.reference is not None and result.reference.excess.value < -0.2
    assert result.reference.p_value > 0.5 and result.verdict["level"] != "copies_found"
    assert any("Was the generator trained on these patients" in warning for warning in result.warnings)
    assert result.tau.value == result.reference.tau_control


def test_it_can_be_left_out(tmp_path: Path, detector: Path) -> None:
    root = cohorts_of(tmp_path, "train")
    result = Audit(**settings(root, tmp_path / "out", detector, reference=False)).run()
    assert result.reference is None and result.matches[0].look_alikes is None
    assert "reference control" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_raised_tau_is_told_as_it_came_about() -> None:
    """Allowing for other held-out patients raises it also where no image is near to any: then nobody is called near."""
    assert raised_warning(0.9, 0.9, 0, 3, 50) == []
    (none,) = raised_warning(0.9, 0.93, 0, 0, 50)
    assert "0 of 50 synthetic images come above 0.900" in none and "no call rests on it" in none
    assert "near to everybody" not in none and "remove" not in none
    (some,) = raised_warning(0.9, 0.93, 2, 6, 50)
    assert "Between both lie 2, not called copies" in some and "remove what is above 0.900" in some


def test_images_that_are_not_called_since_their_patient_is_near_to_many_are_told() -> None:
    assert near_many_warning(0, 50) == []
    (one,), (some,) = near_many_warning(1, 50), near_many_warning(9, 50)
    assert one.startswith("1 of 50 synthetic images is above tau as the search found it, and not called")
    assert "9 of 50 synthetic images are above tau as the search found them" in some and "soft copies" in some

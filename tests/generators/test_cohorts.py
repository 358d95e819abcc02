# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from monai_memo.data.cohort import Cohort
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image, write_cohort
from monai_memo.errors import CohortError, ConfigurationError
from monai_memo.generators.cohorts import split_cohorts

PATTERN = r"p\d+"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 patients with two images each."""
    root = tmp_path_factory.mktemp("images")
    for i in range(40):
        save_image(root / f"p{i // 2}_{i % 2}.png", chest_phantom(i, (16, 16)))
    return root


def test_patients_stay_together_unless_split_by_image(folder: Path) -> None:
    by_patient = split_cohorts(folder, heldout_fraction=0.25, patient_pattern=PATTERN, seed=1)
    assert (len(by_patient.training), len(by_patient.heldout)) == (30, 10)
    assert not set(by_patient.training.patient_ids) & set(by_patient.heldout.patient_ids)
    by_image = split_cohorts(folder, heldout_fraction=0.25, split_by="image", patient_pattern=PATTERN, seed=1)
    patients = [{image.image_id[:3] for image in part.images} for part in (by_image.training, by_image.heldout)]
    assert patients[0] & patients[1], "the switch does what it warns of"
    assert by_image.heldout.n_patients == 10
    with pytest.raises(ConfigurationError, match="split_by must be one of patient, image, got 'slice'"):
        split_cohorts(folder, split_by="slice")


def test_fewer_patients_are_a_subset_of_more(folder: Path) -> None:
    few, more = (
        split_cohorts(folder, heldout_fraction=0.25, n_patients=n, patient_pattern=PATTERN, seed=2) for n in (4, 9)
    )
    assert (few.training.n_patients, len(few.training), more.training.n_patients) == (4, 8, 9)
    assert set(few.training.patient_ids) < set(more.training.patient_ids)
    assert few.heldout == more.heldout
    with pytest.raises(ConfigurationError, match="n_patients must lie between 1 and the 15 training patients"):
        split_cohorts(folder, heldout_fraction=0.25, n_patients=16, patient_pattern=PATTERN)


def test_held_out_patients_of_their_own_must_not_be_trained_on(folder: Path, tmp_path: Path) -> None:
    parts = split_cohorts(folder, heldout_fraction=0.25, patient_pattern=PATTERN)
    training, heldout = (write_cohort(part, tmp_path / f"{part.name}.csv") for part in (parts.training, parts.heldout))
    again = split_cohorts(training, heldout)
    assert again.training.patient_ids == parts.training.patient_ids
    assert Cohort.from_source(heldout, "heldout").n_patients == 5
    with pytest.raises(CohortError, match="15 patients are in both"):
        split_cohorts(training, training)

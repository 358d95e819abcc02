# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_memo.data.cohort import Cohort
from monai_memo.data.reading import read_image
from monai_memo.errors import CohortError, ConfigurationError
from monai_memo.generators.subvolumes import cut_subvolumes


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """A volume of 24 x 16 x 16 voxels of 2 mm whose first 8 voxels along x are air, and one that is too small."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 500, (24, 16, 16)).astype(np.float32)
    values[:8] = -1000
    folder = tmp_path / "volumes"
    folder.mkdir()
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2, 2, 1])), folder / "a.nii.gz")
    nibabel.save(nibabel.Nifti1Image(values[:4], np.eye(4)), folder / "b.nii.gz")
    return folder


def test_cuts_a_grid_and_leaves_air_out(volumes: Path, tmp_path: Path) -> None:
    cohort = Cohort.from_source(cut_subvolumes(volumes, tmp_path / "out", (8, 8, 8), progress=False), "training")
    assert len(cohort) == 8 and cohort.n_patients == 1
    original = nibabel.load(volumes / "a.nii.gz").get_fdata()[16:24, 8:16, :8]
    part = read_image(tmp_path / "out" / "a_16_8_0.nii.gz").array
    np.testing.assert_allclose(part[0], (original + 200) / 800, atol=1e-5)


def test_resamples_and_overlaps(volumes: Path, tmp_path: Path) -> None:
    index = cut_subvolumes(volumes, tmp_path / "out", (8, 8, 8), step=(8, 8, 4), progress=False)
    assert len(Cohort.from_source(index, "training")) == 12
    index = cut_subvolumes(volumes, tmp_path / "fine", (15, 15, 15), spacing=(1.0, 1.0, 1.0), progress=False)
    assert len(Cohort.from_source(index, "training")) == 8


def test_nothing_left_and_bad_settings_are_errors(volumes: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="more than background"):
        cut_subvolumes(volumes, tmp_path / "out", (8, 8, 8), window=(2000, 3000), progress=False)
    with pytest.raises(ConfigurationError, match="window must rise"):
        cut_subvolumes(volumes, tmp_path / "out", (8, 8, 8), window=(1, 0))

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from monai_memo.data.cohort import Cohort
from monai_memo.data.overlap import check_overlap, repeated_images
from monai_memo.errors import CohortOverlapError


def folder(path: Path, names: list[str], start: int) -> Path:
    path.mkdir()
    for number, name in enumerate(names):
        np.save(path / name, np.random.default_rng(start + number).random((8, 8)))
    return path


def test_disjoint_cohorts_pass_even_with_equal_file_names(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", ["1.npy", "2.npy"], 0), folder(tmp_path / "b", ["1.npy", "2.npy"], 10)
    assert check_overlap([Cohort.from_source(a, "training"), Cohort.from_source(b, "heldout")]) == []


def test_shared_patients_are_refused_by_name(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", ["anna_1.npy", "bert_1.npy"], 0), folder(tmp_path / "b", ["anna_2.npy"], 10)
    cohorts = [Cohort.from_source(a, "training", r"^[a-z]+"), Cohort.from_source(b, "heldout", r"^[a-z]+")]
    with pytest.raises(CohortOverlapError, match=r"1 patient in both the training and the heldout cohort: anna\."):
        check_overlap(cohorts)
    assert check_overlap(cohorts, allow=True) == ["1 patient in both the training and the heldout cohort: anna."]


def test_identical_files_are_refused_by_name(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", ["1.npy", "2.npy"], 0), folder(tmp_path / "b", ["3.npy"], 10)
    shutil.copy(a / "2.npy", b / "copy.npy")
    cohorts = [Cohort.from_source(a, "training"), Cohort.from_source(b, "synthetic")]
    with pytest.raises(
        CohortOverlapError, match=r"2\.npy = copy\.npy.*wrote a real image out verbatim.*--allow-overlap"
    ):
        check_overlap(cohorts)
    assert len(check_overlap(cohorts, allow=True)) == 1


def test_repeats_within_a_cohort_are_grouped(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", ["1.npy", "2.npy"], 0)
    shutil.copy(a / "1.npy", a / "3.npy")
    assert repeated_images(Cohort.from_source(a, "training")) == [["1.npy", "3.npy"]]

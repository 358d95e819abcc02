# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from monai_memo.data import overlap as module
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


def test_every_identical_synthetic_image_counts_and_ten_are_listed(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", ["1.npy"], 0), folder(tmp_path / "b", ["x.npy"], 10)
    for number in range(13):
        shutil.copy(a / "1.npy", b / f"copy{number:02d}.npy")
    (warning,) = check_overlap([Cohort.from_source(a, "training"), Cohort.from_source(b, "synthetic")], allow=True)
    assert warning.startswith("13 byte-identical images in both the training and the synthetic cohort")
    assert "copy09.npy" in warning and "copy10.npy" not in warning and "and 3 more" in warning


def test_only_sizes_that_stand_in_two_cohorts_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = folder(tmp_path / "a", ["1.npy", "2.npy"], 0), folder(tmp_path / "b", ["3.npy"], 10)
    np.save(b / "3.npy", np.random.default_rng(0).random((9, 9)))
    hashed: list[Path] = []
    original = module.sha256_of_parts
    monkeypatch.setattr(module, "sha256_of_parts", lambda parts: hashed.append(parts[0]) or original(parts))
    assert check_overlap([Cohort.from_source(a, "training"), Cohort.from_source(b, "heldout")]) == []
    assert hashed == []
    shutil.copy(a / "1.npy", b / "4.npy")
    assert len(check_overlap([Cohort.from_source(a, "training"), Cohort.from_source(b, "heldout")], allow=True)) == 1
    assert len(hashed) == 3


def test_repeats_within_a_cohort_are_grouped(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", ["1.npy", "2.npy"], 0)
    shutil.copy(a / "1.npy", a / "3.npy")
    assert repeated_images(Cohort.from_source(a, "training")) == [["1.npy", "3.npy"]]


def test_the_data_of_a_metaimage_lie_beside_its_header(tmp_path: Path) -> None:
    header = "NDims = 2\nDimSize = 8 8\nElementType = MET_UCHAR\nElementDataFile = scan.raw\n"
    for number, name in enumerate(("a", "b", "c")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scan.mhd").write_text(header)
        (tmp_path / name / "scan.raw").write_bytes(bytes([min(number, 1)] * 64))
    a, b, c = (
        Cohort.from_source(tmp_path / name, role)
        for name, role in zip("abc", ("training", "heldout", "synthetic"), strict=True)
    )
    assert check_overlap([a, b]) == []
    with pytest.raises(CohortOverlapError, match="byte-identical"):
        check_overlap([b, c])

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_memo.data.cohort import Cohort
from monai_memo.data.dicom import is_dicom
from monai_memo.data.reading import read_image


@pytest.mark.parametrize(
    "name",
    ["a.dcm", "a.DCM", "a.dicom", "a.IMA", "IM0001", "slice.0001", "1.2.840.113619.2.55.3", "MR.1.2.840.5", "a.mr"],
)
@pytest.mark.parametrize(
    ("preamble", "syntax"),
    [
        (True, "1.2.840.10008.1.2.1"),
        (False, "1.2.840.10008.1.2.1"),
        (False, "1.2.840.10008.1.2"),
        (False, "1.2.840.10008.1.2.2"),
    ],
)
def test_dicom_files_are_known_by_ending_or_content(
    tmp_path: Path, write_dicom: Any, name: str, preamble: bool, syntax: str
) -> None:
    path = write_dicom(tmp_path / name, preamble=preamble, syntax=syntax, ImagePositionPatient=None)
    assert is_dicom(path)
    np.testing.assert_array_equal(read_image(path).array[0], np.arange(192).reshape(16, 12))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 400,
        b"\x89PNG" * 50,
        b"a text that says nothing",
        b"\x08\0\0\0" + b"\xff" * 200,
        b"{}",
        b"\x02\0" * 90,
    ],
)
def test_other_files_without_ending_are_no_dicom(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "README").write_bytes(content)
    assert not is_dicom(tmp_path / "README")


def test_lists_of_files_and_pictures_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DICOMDIR", "a.png", "a.nii.gz", "a.txt", "a.tiff", "a.csv"):
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr("builtins.open", refuse)
    assert not any(is_dicom(path) for path in tmp_path.iterdir())


def test_series_without_preamble_and_ending_are_volumes(tmp_path: Path, write_series: Any) -> None:
    for path in write_series(tmp_path / "scan", preamble=False):
        path.rename(path.with_suffix(""))
    (image,) = Cohort.from_source(tmp_path, "training").images
    assert image.image_id == "scan" and read_image(image).array.shape == (1, 12, 16, 5)

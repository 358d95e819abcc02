# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from monai_memo.data.formats import ACCEPTED, DICOM, ENDINGS, FORMATS, ending_of, format_of


@pytest.mark.parametrize(
    ("name", "form", "family"),
    [
        ("a.PNG", "PNG", "picture"),
        ("a.JFIF", "JPEG", "picture"),
        ("a.Tif", "TIFF", "picture"),
        ("a.bmp", "BMP", "picture"),
        ("a.webp", "WebP", "picture"),
        ("a.jp2", "JPEG 2000", "picture"),
        ("a.npz", "npz", "array"),
        ("sub-01.T1w.NII.gz", "NIfTI", "nifti"),
        ("a.hdr", "NIfTI pair", "nifti"),
        ("a.img.gz", "NIfTI pair", "nifti"),
        ("a.MGZ", "MGH", "nifti"),
        ("a.nhdr", "NRRD", "itk"),
        ("a.mhd", "MetaImage", "itk"),
        ("a.IMA", "DICOM", "dicom"),
    ],
)
def test_the_ending_tells_the_format_in_any_case(name: str, form: str, family: str) -> None:
    found = format_of(name)
    assert found is not None and (found.name, found.family) == (form, family)


@pytest.mark.parametrize("name", ["a.svs", "a.txt", "a.gz", "png", ".png", "a.png.bak", "a.csv.gz", "a"])
def test_other_names_have_no_format(name: str) -> None:
    assert format_of(name) is None


def test_dicom_without_an_ending_is_told_by_its_content_and_a_folder_is_a_series(tmp_path: Path) -> None:
    for name in ("IM0001", "1.2.840.113619", "slice.0001"):
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM")
        assert format_of(tmp_path / name) is DICOM
    (tmp_path / "README").write_bytes(b"words")
    assert format_of(tmp_path / "README") is None
    assert format_of(tmp_path) is DICOM


def test_endings() -> None:
    names = ("a.NII.GZ", "a.tar.gz", "a.b.2024.gz", "1.2.840.10008", "IM.0001", "x.7z", ".DS_Store", "Dr. No", "a.Svs")
    endings = [".nii.gz", ".tar.gz", ".gz", "", "", ".7z", "", "", ".svs"]
    assert [ending_of(name) for name in names] == endings


def test_pillow_decodes_every_picture_format_and_no_ending_stands_twice() -> None:
    Image.init()
    pictures = [ending for item in FORMATS if item.family == "picture" for ending in item.endings]
    assert [ending for ending in pictures if Image.EXTENSION.get(ending) not in Image.OPEN] == []
    assert len(ENDINGS) == len(set(ENDINGS)) == sum(len(item.endings) for item in FORMATS)
    for item in FORMATS:
        assert item.name.split()[0] in ACCEPTED or item.name == "MetaImage"

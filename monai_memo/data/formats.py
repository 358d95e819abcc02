# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The one table of what is read: for folders, CSV, datalists, readers and the README alike."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Family = Literal["picture", "array", "nifti", "itk", "dicom"]


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        name: as people call it.
        family: which reader it goes to.
        endings: with the dot, in lower case; they are compared without regard to case.
    """

    name: str
    family: Family
    endings: tuple[str, ...]


# A format's longer endings come before the shorter ones that they end with.
FORMATS = (
    Format("PNG", "picture", (".png", ".apng")),
    Format("JPEG", "picture", (".jpg", ".jpeg", ".jpe", ".jfif")),
    Format("TIFF", "picture", (".tif", ".tiff")),
    Format("BMP", "picture", (".bmp", ".dib")),
    Format("WebP", "picture", (".webp",)),
    Format("GIF", "picture", (".gif",)),
    Format("JPEG 2000", "picture", (".jp2", ".j2k", ".j2c", ".jpc", ".jpx", ".jpf")),
    Format("PNM", "picture", (".pgm", ".ppm", ".pbm", ".pnm")),
    Format("npy", "array", (".npy",)),
    Format("npz", "array", (".npz",)),
    Format("NIfTI", "nifti", (".nii.gz", ".nii")),
    Format("NIfTI pair", "nifti", (".hdr.gz", ".hdr", ".img.gz", ".img")),  # Analyze 7.5 has the same endings
    Format("MGH", "nifti", (".mgz", ".mgh")),
    Format("NRRD", "itk", (".nrrd", ".nhdr")),
    Format("MetaImage", "itk", (".mha", ".mhd")),
    Format("DICOM", "dicom", (".dcm", ".dicom", ".ima")),
)
DICOM = FORMATS[-1]
BY_ENDING = {ending: item for item in FORMATS for ending in item.endings}
ENDINGS = tuple(BY_ENDING)
ACCEPTED = (
    "PNG, JPEG, TIFF, BMP, WebP, GIF, JPEG 2000, PNM, npy, npz, NIfTI (also .hdr with .img), MGH/MGZ, NRRD, MHA/MHD, "
    "DICOM files or folders of DICOM series"
)


def ending_of(name: str) -> str:
    """The ending of a file's name in lower case: ``.nii.gz`` and its like as a whole; empty if there is none.

    Example:
        >>> ending_of("Scan.NII.GZ"), ending_of("slide.SVS"), ending_of("1.2.840.10008"), ending_of("README")
        ('.nii.gz', '.svs', '', '')
    """
    stem, dot, last = name.lower().rpartition(".")
    if not dot or not stem.strip(".") or not re.search(r"[a-z]", last) or " " in last:
        return ""  # IM0001, .hidden, slices that end in .0001 or in a UID, "Dr. Smith scan"
    before = stem.rpartition(".")[2] if last in ("gz", "bz2", "zst", "xz") and "." in stem else ""
    return f".{before}.{last}" if re.fullmatch(r"[a-z]{1,5}\d?", before) else f".{last}"


def format_by_ending(name: str) -> Format | None:
    """The format that a file's name tells, whatever the file holds. None without an ending that is read."""
    return BY_ENDING.get(ending_of(name))


def format_of(path: str | Path) -> Format | None:
    """The format of a file by its ending; DICOM files without an ending by their content.

    A folder is a DICOM series. None: nothing that is read.
    """
    from monai_memo.data.dicom_files import is_dicom  # pydicom is loaded where it is needed

    path = Path(path)
    if path.is_dir():
        return DICOM
    return format_by_ending(path.name) or (DICOM if is_dicom(path) else None)

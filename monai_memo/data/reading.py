# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Read one image, whatever its format: by what the file holds, and not by what its name says."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from monai.data import MetaTensor

from monai_memo.data import arrays, nifti, pictures, volumes
from monai_memo.data.cohort import CohortImage
from monai_memo.data.dicom import dicom_header, is_dicom, read_dicom
from monai_memo.data.formats import format_by_ending
from monai_memo.data.header import ImageHeader
from monai_memo.data.sniffing import GZIP, causes_named, foreign, gunzipped_head, head_of, is_nifti, kind_of
from monai_memo.data.stored import UNKNOWN_NOTE, Stored, arrange, axes_of, header_of
from monai_memo.errors import UnusableImageError


class Pixels(NamedTuple):
    """What one image file holds.

    Attributes:
        array: 2D ``(channels, rows, columns)``, upright; 3D ``(channels, x, y, z)``; one channel unless it has colour.
        affine: ``(4, 4)`` to RAS in mm; None in 2D and where the file does not state its orientation.
        notes: what was done that is worth counting ("turned by EXIF orientation").
    """

    array: np.ndarray
    affine: np.ndarray | None
    notes: tuple[str, ...] = ()


def as_image(image: CohortImage | str | Path) -> CohortImage:
    """A file or folder by its path, read as it is."""
    return image if isinstance(image, CohortImage) else CohortImage(Path(image), str(image), str(image))


def _dicom(image: CohortImage) -> bool:
    """By what a file holds, where that tells, and by its name otherwise."""
    if image.files or image.path.is_dir():
        return True
    head = head_of(image.path)
    kind = kind_of(head)
    return kind == "DICOM" or (kind is None and foreign(head) is None and is_dicom(image.path))


def _open(image: CohortImage, whole: bool) -> Stored:
    """The header of a file that is no DICOM.

    Args:
        whole: the pixels are wanted as well: compressed files are checked to their end first.
    """
    path = image.path
    head = head_of(path)
    named = format_by_ending(path.name)
    kind = kind_of(head)
    if head[:2] == GZIP:
        inner = gunzipped_head(path)
        if inner[:2] == GZIP:
            raise UnusableImageError(path, "is compressed with gzip twice: unpack it once")
        if is_nifti(inner) or (named is not None and named.family == "nifti"):
            return nifti.describe(path, whole)
        held = kind_of(inner)
        raise UnusableImageError(path, f"is {held + ' ' if held else ''}compressed with gzip: unpack it first")
    if kind == "NIfTI" or (kind is None and named is not None and named.family == "nifti" and head):
        if kind is None and not path.name.lower().endswith((".mgh", ".mgz", ".img")):
            raise UnusableImageError(path, foreign(head) or "does not begin with the header of a NIfTI file")
        return nifti.describe(path, whole)
    if kind in ("NRRD", "MetaImage"):
        return volumes.describe(path, kind, whole)
    if kind == "npy":
        return arrays.describe_npy(path)
    if kind == "npz":
        return arrays.describe_npz(path)
    if kind is not None:
        return pictures.describe(path, kind)
    what = f"does not begin as a {named.name} file does" if named else "is no kind of image that is read"
    raise UnusableImageError(path, foreign(head) or what)


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise UnusableImageError(path, "a link to a file that is not there" if path.is_symlink() else "missing")
    if not path.is_dir() and not path.is_file():
        raise UnusableImageError(path, "is no file")


def read_header(image: CohortImage | str | Path) -> ImageHeader:
    """What the header of an image says, after turning a picture upright as its file asks for.

    Raises:
        UnusableImageError: missing, damaged, neither 2D nor 3D, or with several values at each place of which none was
            asked for. The reason names the cause.
    """
    image = as_image(image)
    _check_exists(image.path)
    with causes_named(image.path):
        if _dicom(image):
            return dicom_header(image)
        return header_of(image.path, _open(image, whole=False), image.reading.channel)


def spatial_dims_of(image: CohortImage | str | Path) -> int:
    """2 or 3, from the header. See ``read_header``."""
    return read_header(image).spatial_dims


def read_image(image: CohortImage | str | Path) -> Pixels:
    """Pixels of an image and, for volumes with one, the affine.

    Raises:
        UnusableImageError: as ``read_header``, or truncated, or not made of real numbers. The reason names the cause.
    """
    image = as_image(image)
    path = image.path
    _check_exists(path)
    with causes_named(path):
        if _dicom(image):
            return read_dicom(image)
        stored = _open(image, whole=True)
        axes = axes_of(path, stored, image.reading.channel)
        if stored.dtype.rstrip("0123456789") not in ("bool", "int", "uint", "float", "longdouble"):
            raise UnusableImageError(path, f"holds {stored.dtype} values instead of real numbers")
        array, further = stored.load()
        notes = (*axes.notes, *further)
        if array.ndim < len(stored.shape):  # a picture whose only further channel was transparency
            return Pixels(array[None], None, notes)
        array = arrange(array, stored, axes)
        if array.ndim == 3:
            return Pixels(array, None, notes)
        return Pixels(array, stored.affine, notes if stored.affine is not None else (*notes, UNKNOWN_NOTE))


def with_affine(volume: np.ndarray, affine: np.ndarray | None) -> MetaTensor:
    """``(channels, x, y, z)`` tensor that MONAI's spatial transforms understand."""
    import torch

    tensor = torch.as_tensor(np.ascontiguousarray(volume, dtype=np.float64))
    return MetaTensor(tensor, affine=torch.as_tensor(affine) if affine is not None else None)

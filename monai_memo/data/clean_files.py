# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Write images anew with their pixels and nothing else: no tags, comments, names, dates or padding of the old file.

Values are those that ``read_image`` gives, at the size that they have, never the small prepared ones of a detector.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from PIL import Image

from monai_memo.data.cohort import CohortImage
from monai_memo.data.reading import Pixels, read_image
from monai_memo.errors import UnusableImageError
from monai_memo.files import write_with

PICTURE, ARRAY, VOLUME = ".png", ".npy", ".nii.gz"
# What NIfTI holds in every program; other kinds of numbers go to the smallest of these that holds their values.
VOLUME_TYPES = (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64)


def encode(pixels: Pixels, path: Path) -> tuple[str, bytes]:
    """Ending and content of a clean file with these pixels.

    * Volumes: NIfTI, with the size of the voxels and how the axes run, or codes that say that neither is known. Origin
      and tilt of the file stay behind: a generator may have taken them from one patient's scan.
    * Images of whole numbers from 0 to 255 (colour too) or, grey, to 65,535: PNG.
    * Other images (negative numbers, fractions): a NumPy array, since PNG would change their values.

    Args:
        path: of the old file, for errors.

    Raises:
        UnusableImageError: a volume in colour, which NIfTI readers do not agree on.
    """
    array = np.asarray(pixels.array)
    if array.ndim == 4:
        if len(array) != 1:
            raise UnusableImageError(path, f"a volume with {len(array)} values at each voxel is not released")
        try:
            return VOLUME, _nifti(_fitting(array[0]), pixels.affine)
        except (HeaderDataError, np.linalg.LinAlgError) as error:
            raise UnusableImageError(path, "has an affine that no clean file can state") from error
    whole = bool(np.isfinite(array).all()) and bool((array == np.round(array)).all()) and float(array.min()) >= 0
    highest = float(array.max())
    if whole and highest <= 255 and len(array) in (1, 3):
        values = array.astype(np.uint8)
        return PICTURE, _png(Image.fromarray(values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)))
    if whole and highest <= 65_535 and len(array) == 1:
        return PICTURE, _png(Image.fromarray(array[0].astype(np.uint16)))
    stream = io.BytesIO()
    plain = array.astype(np.float32) if array.dtype.kind == "f" and array.dtype.itemsize <= 4 else array
    if plain.dtype.kind == "b":
        plain = plain.astype(np.uint8)
    np.save(stream, plain[0] if len(plain) == 1 else np.moveaxis(plain, 0, -1), allow_pickle=False)
    return ARRAY, stream.getvalue()


def write_clean(image: CohortImage, folder: Path, name: str) -> Path:
    """Read an image and write it anew as ``folder/name`` with the ending that fits.

    Raises:
        UnusableImageError: it cannot be read, or not be written without a change.
        OutputError: the folder cannot be written or the disk is full.
    """
    ending, content = encode(read_image(image), image.path)
    return write_with(folder / f"{name}{ending}", lambda temporary: temporary.write_bytes(content))


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()


def _fitting(volume: NDArray[Any]) -> NDArray[Any]:
    """The same values in a kind of number that NIfTI holds."""
    if volume.dtype in VOLUME_TYPES:
        return volume
    if volume.dtype.kind in "biu":
        low, high = int(volume.min()), int(volume.max())
        for kind in VOLUME_TYPES[:4]:
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return volume.astype(kind)
    return volume.astype(np.float32 if volume.dtype.itemsize <= 4 else np.float64)


def _upright(affine: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """The same axes and sizes of voxels, along the patient's axes and about the centre of the volume.

    Raises:
        LinAlgError: it gives no orientation.
    """
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise np.linalg.LinAlgError("no orientation")
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    found = np.eye(4)
    found[:3, :3] = 0
    for axis, (to, flip) in enumerate(nibabel.orientations.io_orientation(affine)):  # type: ignore[no-untyped-call]
        found[int(to), axis] = flip * sizes[axis]
    found[:3, 3] = -found[:3, :3] @ (np.array(shape) - 1) / 2
    return found


def _nifti(volume: NDArray[Any], affine: NDArray[Any] | None) -> bytes:
    if affine is not None:
        affine = _upright(affine, volume.shape)
    image: Any = nibabel.Nifti1Image(volume, affine)  # type: ignore[attr-defined, no-untyped-call]
    if affine is None:
        image.header.set_sform(None, code=0)
        image.header.set_qform(None, code=0)
    else:
        image.header.set_sform(affine, code=1)  # 1: of the scanner; a template's code would say more than is known
        image.header.set_qform(affine, code=1)
    return gzip.compress(image.to_bytes(), mtime=0)  # no clock, no name

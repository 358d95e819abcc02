# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Read one image file, whatever its format, with MONAI's readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.data import MetaTensor
from monai.data.image_reader import ITKReader, NibabelReader, NumpyReader, PILReader

from monai_memo.errors import UnusableImageError

PICTURES = (".png", ".jpg", ".jpeg")
NIFTI = (".nii", ".nii.gz")
COLOURS = (2, 3, 4)


def _ends(path: Path, endings: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(endings)


def is_colour(shape: tuple[int, ...]) -> bool:
    """``(rows, columns, 2 to 4)``: grey with alpha, RGB or RGBA, and not a volume of so few slices."""
    return len(shape) == 3 and shape[-1] in COLOURS and min(shape[:2]) > 4


def _dims(shape: tuple[int, ...]) -> int:
    if is_colour(shape):
        return 2
    return sum(1 for length in shape if length > 1)


def spatial_dims_of(path: str | Path) -> int:
    """2 or 3, from the header where the format has one.

    Raises:
        UnusableImageError: missing, unreadable, or neither 2D nor 3D.
    """
    path = Path(path)
    if not path.exists():
        raise UnusableImageError(path, "missing")
    try:
        if path.is_dir():
            return 3
        if _ends(path, PICTURES):
            return 2
        if _ends(path, (".npy",)):
            dims = _dims(np.load(path, mmap_mode="r", allow_pickle=False).shape)
        elif _ends(path, NIFTI):
            header: Any = nibabel.load(path).header  # type: ignore[attr-defined]
            dims = _dims(tuple(header.get_data_shape()))
        else:
            import itk

            reader = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            shape = [int(reader.GetDimensions(axis)) for axis in range(reader.GetNumberOfDimensions())]
            dims = _dims(tuple(shape))
    except UnusableImageError:
        raise
    except Exception as error:
        raise UnusableImageError(path, "unreadable") from error
    if dims not in (2, 3):
        raise UnusableImageError(path, f"has {dims} dimensions")
    return dims


def read_image(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels of an image and, for volumes with one, the affine.

    Returns:
        2D: ``(rows, columns)`` or ``(rows, columns, colours)``, upright; 3D: ``(x, y, z)``. Affine ``(4, 4)`` to RAS in
        mm, or None.

    Raises:
        UnusableImageError: missing or unreadable (truncated files included).
    """
    path = Path(path)
    if not path.exists():
        raise UnusableImageError(path, "missing")
    try:
        if not path.is_dir() and _ends(path, PICTURES):
            # MONAI's readers transpose pictures by default; people expect rows first.
            reader: Any = PILReader(reverse_indexing=False)
        elif not path.is_dir() and _ends(path, (".npy",)):
            # An object array would be unpickled, that is, run: refused by the default of numpy.load.
            reader = NumpyReader(allow_pickle=False)
        elif not path.is_dir() and _ends(path, NIFTI):
            reader = NibabelReader()
        else:
            reader = ITKReader()
        array, meta = reader.get_data(reader.read(str(path)))
        array = np.asarray(array)
    except Exception as error:
        raise UnusableImageError(path, "unreadable") from error
    if array.size == 0:
        raise UnusableImageError(path, "empty")
    has_affine = isinstance(reader, NibabelReader | ITKReader)
    affine = np.asarray(meta["affine"], dtype=np.float64) if has_affine and "affine" in meta else None
    if isinstance(reader, PILReader) or is_colour(array.shape):
        return array, None
    array = np.squeeze(array)
    if array.ndim == 2 and has_affine:
        return array.T, None  # stored (x, y): rows come second
    return array, affine if array.ndim == 3 else None


def with_affine(volume: np.ndarray, affine: np.ndarray | None) -> MetaTensor:
    """``(1, x, y, z)`` tensor that MONAI's spatial transforms understand."""
    import torch

    tensor = torch.as_tensor(np.ascontiguousarray(volume, dtype=np.float64))[None]
    return MetaTensor(tensor, affine=torch.as_tensor(affine) if affine is not None else None)

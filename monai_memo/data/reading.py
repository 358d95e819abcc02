# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Read one image file, whatever its format, with MONAI's readers."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from monai.data import MetaTensor
from monai.data.image_reader import ITKReader, NibabelReader, NumpyReader, PILReader
from PIL import Image

from monai_memo.data.cohort import CohortImage
from monai_memo.data.dicom import dicom_header, is_dicom, read_dicom
from monai_memo.errors import UnusableImageError

PICTURES = (".png", ".jpg", ".jpeg")
NIFTI = (".nii", ".nii.gz")
COLOURS = (2, 3, 4)


def _ends(path: Path, endings: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(endings)


def is_colour(shape: tuple[int, ...]) -> bool:
    """``(rows, columns, 2 to 4)``: grey with alpha, RGB or RGBA. For pictures and npy; other formats tell it."""
    return len(shape) == 3 and shape[-1] in COLOURS and min(shape[:2]) > 4


def _dims(shape: tuple[int, ...]) -> int:
    return sum(1 for length in shape if length > 1)


class Pixels(NamedTuple):
    """What one image file holds.

    Attributes:
        array: 2D ``(channels, rows, columns)``, upright; 3D ``(channels, x, y, z)``; one channel unless it has colour.
        affine: ``(4, 4)`` to RAS in mm; None in 2D and where the file does not say how it lies.
        notes: what was done that is worth counting ("turned as its EXIF orientation says").
    """

    array: np.ndarray
    affine: np.ndarray | None
    notes: tuple[str, ...] = ()


def as_image(image: CohortImage | str | Path) -> CohortImage:
    """A file or folder by its path, read as it is."""
    return image if isinstance(image, CohortImage) else CohortImage(Path(image), str(image), str(image))


def spatial_dims_of(image: CohortImage | str | Path) -> int:
    """2 or 3, from the header where the format has one.

    Raises:
        UnusableImageError: missing, unreadable, or neither 2D nor 3D.
    """
    image = as_image(image)
    path = image.path
    if not path.exists():
        raise UnusableImageError(path, "missing")
    if image.files or path.is_dir() or is_dicom(path):
        return dicom_header(image).spatial_dims
    try:
        if _ends(path, PICTURES):
            return 2
        if _ends(path, (".npy",)):
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            dims = 2 if is_colour(shape) else _dims(shape)
        elif _ends(path, NIFTI):
            header: Any = nibabel.load(path).header  # type: ignore[attr-defined]
            dims = _dims(tuple(header.get_data_shape()))
        else:
            import itk

            reader = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            dims = _dims(tuple(int(reader.GetDimensions(axis)) for axis in range(reader.GetNumberOfDimensions())))
    except UnusableImageError:
        raise
    except Exception as error:
        raise UnusableImageError(path, "unreadable") from error
    if dims not in (2, 3):
        raise UnusableImageError(path, f"has {dims} dimensions")
    return dims


def _without_palette(image: Image.Image) -> Image.Image:
    """Palette numbers and ink amounts are no intensities: CMYK read as it is would come out inverted."""
    return image.convert("RGB") if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV") else image


def _read_nifti(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    reader = NibabelReader()
    image: Any = reader.read(str(path))
    if path.name.lower().endswith(".gz"):
        # nibabel stops before the checksum at the end of the file, so that a flipped bit would pass as intensity.
        image = type(image).from_bytes(gzip.decompress(path.read_bytes()))
    array, meta = reader.get_data(image)
    if array.dtype.names:  # NIfTI's RGB type
        array = np.stack([array[name] for name in array.dtype.names], axis=-1)
    return array, meta


def _read_itk(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    reader = ITKReader()
    array, meta = reader.get_data(reader.read(str(path)))
    return array, meta


def read_image(image: CohortImage | str | Path) -> Pixels:
    """Pixels of an image and, for volumes with one, the affine.

    Raises:
        UnusableImageError: missing, unreadable (truncated files included), empty, or not made of real numbers.
    """
    image = as_image(image)
    path = image.path
    if not path.exists():
        raise UnusableImageError(path, "missing")
    if image.files or path.is_dir() or is_dicom(path):
        return read_dicom(image)
    meta: dict[str, Any] = {}
    is_file = not path.is_dir()
    is_array = is_file and _ends(path, (".npy",))
    is_picture = is_file and _ends(path, PICTURES)
    try:
        if is_picture:
            # MONAI's readers transpose pictures by default; people expect rows first.
            pictures = PILReader(converter=_without_palette, reverse_indexing=False)
            array, _ = pictures.get_data(pictures.read(str(path)))
        elif is_array:
            # An object array would be unpickled, that is, run: refused by the default of numpy.load.
            arrays = NumpyReader(allow_pickle=False)
            array, _ = arrays.get_data(arrays.read(str(path)))
        elif is_file and _ends(path, NIFTI):
            array, meta = _read_nifti(path)
        else:
            array, meta = _read_itk(path)
        array = np.asarray(array)
    except UnusableImageError:
        raise
    except Exception as error:
        raise UnusableImageError(path, "unreadable") from error
    if array.size == 0:
        raise UnusableImageError(path, "empty")
    if array.dtype.kind not in "biuf":
        raise UnusableImageError(path, f"holds {array.dtype.name} values instead of real numbers")
    colour = is_colour(array.shape) if is_picture or is_array else array.ndim > len(meta["spatial_shape"])
    array = np.moveaxis(array, -1, 0) if colour else array[None]
    array = array.reshape(len(array), *(length for length in array.shape[1:] if length > 1))
    if is_picture or is_array:
        return Pixels(array, None)
    if array.ndim == 3:
        return Pixels(array.swapaxes(1, 2), None)  # stored (x, y): rows come second
    return Pixels(array, np.asarray(meta["affine"], dtype=np.float64) if array.ndim == 4 else None)


def with_affine(volume: np.ndarray, affine: np.ndarray | None) -> MetaTensor:
    """``(channels, x, y, z)`` tensor that MONAI's spatial transforms understand."""
    import torch

    tensor = torch.as_tensor(np.ascontiguousarray(volume, dtype=np.float64))
    return MetaTensor(tensor, affine=torch.as_tensor(affine) if affine is not None else None)

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Planted copies as files of the kind that the synthetic images are, read back by the same reader.

Copies that stay arrays are found however wrongly files are read. The axes of a file are taken here from its header by
nibabel, ITK or Pillow and not by the reader, so that a mistake of the reader is not made twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from nibabel import orientations
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.formats import ending_of, format_by_ending
from monai_memo.data.loading import Preprocessing
from monai_memo.data.orientation import PICTURES, turn_back
from monai_memo.errors import UnusableImageError

EXAMPLES = 16  # synthetic files that copies are written like
EXIF_ORIENTATION = 274
EXIF = {
    2: "flip_left_right", 3: "rotate_180", 4: "flip_up_down", 5: "transpose", 6: "rotate_270", 7: "transverse",
    8: "rotate_90",
}  # fmt: skip
GREY = {"L": ("8 bit", 255), "I;16": ("16 bit", 65535), "I": ("32 bit", None), "F": ("float", None)}
COLOUR = ("RGB", "RGBA", "LA", "P", "CMYK")
OF_COLOURS = ("RGB", "RGBA")  # that hold each of them
OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))
Plane = NDArray[np.float32]


class CannotImitateError(Exception):
    """No file of this kind is written here (DICOM, several channels, bits): the copy stays an array."""


def _resized(image: Plane, shape: Sequence[int]) -> Plane:
    """To the shape of a file, so that reading brings back the same pixels: repeated, or averaged."""
    tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None]
    smaller = [min(have, want) for have, want in zip(image.shape, shape, strict=True)]
    pool: Any = functional.adaptive_avg_pool2d if image.ndim == 2 else functional.adaptive_avg_pool3d
    return functional.interpolate(pool(tensor, smaller), size=list(shape), mode="nearest-exact")[0, 0].numpy()


def _in_range(image: Plane, like: NDArray[Any]) -> NDArray[Any]:
    """From [0, 1] to the range of the numbers in a file, in their type."""
    low, high = float(np.min(like)), float(np.max(like))
    if not (np.isfinite([low, high]).all() and high > low):
        raise CannotImitateError
    values = low + image.astype(np.float64) * (high - low)
    return (np.round(values) if like.dtype.kind in "iu" else values).astype(like.dtype)


def _upright(image: Plane, lies: str | None) -> Plane:
    """A picture as a cohort of this orientation has it in its files."""
    return image if lies is None else np.asarray(turn_back(image[None], lies)[0])


def _axes(volume: Plane, codes: Sequence[str], lies: str | None) -> Plane:
    """A volume in RAS to the order of a file's axes.

    Args:
        codes: where the header says that the file's axes point.
        lies: where what it calls R, A and S really points.
    """
    if lies is not None:
        real = dict(zip("RAS", lies, strict=True))
        real |= {OPPOSITE[letter]: OPPOSITE[code] for letter, code in real.items()}
        codes = [real[code] for code in codes]
    turns: Any = [orientations.axcodes2ornt(tuple(axes)) for axes in ("RAS", codes)]
    return np.asarray(orientations.apply_orientation(volume, orientations.ornt_transform(*turns)))  # type: ignore[no-untyped-call]


def _picture(example: CohortImage, image: Plane, path: Path) -> str:
    """A picture from ``(rows, columns)``, or in colour from ``(3, rows, columns)``."""
    planes = image[None] if image.ndim == 2 else image
    with Image.open(example.path) as like:
        like.load()
        mode, form, exif = like.mode, str(like.format), like.getexif()
        mode = "I;16" if mode.startswith("I;16") else mode
        if getattr(like, "n_frames", 1) > 1 or mode not in ((*GREY, *COLOUR) if len(planes) == 1 else OF_COLOURS):
            raise CannotImitateError
        turn = EXIF.get(exif.get(EXIF_ORIENTATION, 1))
        lies = example.reading.orientation
        upright = planes if lies is None else np.asarray(turn_back(planes, lies))
        turned = upright if turn is None else np.asarray(turn_back(upright, turn))
        each = [_resized(plane, (like.height, like.width)) for plane in turned]
        stored = each[0] if len(each) == 1 else np.stack(each, axis=-1)
        if mode in ("L", *COLOUR):
            picture = Image.fromarray(np.round(255 * stored.clip(0, 1)).astype(np.uint8)).convert(mode)
            depth = "8 bit" if mode == "L" else f"8 bit, {mode}"
        else:
            picture = Image.fromarray(_in_range(stored, np.asarray(like)))
            depth = GREY[mode][0]
        further: dict[str, Any] = {"quality": 95} if form == "JPEG" else {}
        if turn is not None:
            kept = Image.Exif()
            kept[EXIF_ORIENTATION] = exif[EXIF_ORIENTATION]
            further["exif"] = kept
        picture.save(path, format=form, **further)
    return f"{form}, {depth}"


def _filled(like: NDArray[Any], dims: int, channel: int | None, laid: Callable[[Sequence[int]], Plane]) -> NDArray[Any]:
    """An array of the example's shape and type with the copy in its axes of space.

    Args:
        laid: the copy at the shape of these axes.
    """
    long = [axis for axis, length in enumerate(like.shape) if length > 1]
    result = np.array(like)
    if len(long) == dims:
        result[...] = _in_range(laid([like.shape[axis] for axis in long]), like).reshape(like.shape)
        return result
    if channel is None or len(long) != dims + 1 or channel >= like.shape[long[-1]]:
        raise CannotImitateError
    space = long[:-1]
    part = np.moveaxis(result, long[-1], 0)[channel]
    part[...] = _in_range(laid([like.shape[axis] for axis in space]), np.asarray(part)).reshape(part.shape)
    return result


def _array(example: CohortImage, image: Plane, path: Path) -> str:
    held = np.load(example.path, allow_pickle=False)
    names = list(held.files) if hasattr(held, "files") else []
    if len(names) > 1:
        raise CannotImitateError
    like = held[names[0]] if names else held

    def laid(shape: Sequence[int]) -> Plane:
        if image.ndim == 2:
            return _resized(_upright(image, example.reading.orientation), shape)
        return _resized(_axes(image, "RAS", example.reading.orientation), shape)

    filled = _filled(like, image.ndim, None, laid)
    if names:
        np.savez(path, **{str(names[0]): filled})  # type: ignore[arg-type]
    else:
        np.save(path, filled)
    return f"{'npz' if names else 'npy'}, {like.dtype.name}"


def _header_codes(header: Any) -> Sequence[str]:
    """Where the axes of a NIfTI file point: by sform, else by qform, else as they are stored."""
    for code, get in (("sform_code", "get_sform"), ("qform_code", "get_qform")):
        if int(header[code]) != 0:
            matrix = np.asarray(getattr(header, get)(), dtype=np.float64)
            if np.isfinite(matrix).all() and np.linalg.matrix_rank(matrix[:3, :3]) == 3:
                return nibabel.aff2axcodes(matrix)  # type: ignore[attr-defined,no-any-return,no-untyped-call]
    return "RAS"


def _nifti(example: CohortImage, image: Plane, path: Path) -> str:
    if ending_of(example.path.name) not in (".nii", ".nii.gz") or image.ndim != 3:
        raise CannotImitateError
    found: Any = nibabel.load(example.path)  # type: ignore[attr-defined]
    like = np.asanyarray(found.dataobj)
    if like.dtype.names:
        raise CannotImitateError
    codes, lies = _header_codes(found.header), example.reading.orientation
    filled = _filled(
        like, 3, example.reading.channel, lambda shape: _resized(_axes(image, codes, lies), shape)
    )  # fmt: skip
    header = found.header.copy()
    if header["scl_slope"] != header["scl_slope"] or header["scl_slope"] in (0, 1):
        filled = filled.astype(header.get_data_dtype())
    copy = type(found)(filled, None, header)
    copy.to_filename(str(path))
    return f"NIfTI, {header.get_data_dtype().name}"


def _itk(example: CohortImage, image: Plane, path: Path) -> str:
    import itk

    found = itk.imread(str(example.path))
    like = itk.array_from_image(found)  # (z, y, x) or (y, x)
    if found.GetNumberOfComponentsPerPixel() > 1:
        raise CannotImitateError
    lies = example.reading.orientation
    if image.ndim == 2:
        filled = _filled(like, 2, None, lambda shape: _resized(_upright(image, lies), shape))
    else:
        if like.ndim != 3:
            raise CannotImitateError
        direction = np.eye(4)
        direction[:3, :3] = np.diag([-1.0, -1.0, 1.0]) @ np.asarray(itk.array_from_matrix(found.GetDirection()))
        codes = nibabel.aff2axcodes(direction)  # type: ignore[attr-defined,no-untyped-call]
        filled = _filled(
            like, 3, None, lambda shape: _resized(_axes(image, codes, lies), shape[::-1]).transpose(2, 1, 0)
        )  # fmt: skip
    copy = itk.image_from_array(np.ascontiguousarray(filled))
    copy.CopyInformation(found)
    itk.imwrite(copy, str(path))
    return f"{'NRRD' if path.name.lower().endswith(('.nrrd', '.nhdr')) else 'MetaImage'}, {like.dtype.name}"


WRITERS: dict[str, Callable[[CohortImage, Plane, Path], str]] = {
    "picture": _picture, "array": _array, "nifti": _nifti, "itk": _itk,
}  # fmt: skip


def write_like(example: CohortImage, image: NDArray[np.floating], path: Path) -> str:
    """Write one upright image as a file like another one.

    Args:
        example: a file of the cohort, with what is said of its reading.
        image: ``(1, *spatial)`` in [0, 1]; volumes in RAS; of a picture in colour ``(3, rows, columns)``.
        path: with the ending of the example.

    Returns:
        What was written: ``"PNG, 8 bit"``.

    Raises:
        CannotImitateError: a kind of file that is not written here.
    """
    kind = format_by_ending(example.path.name)
    if kind is None or kind.family not in WRITERS or not example.path.is_file():
        raise CannotImitateError
    coloured = len(image) == 3 and image.ndim == 3 and kind.family == "picture"
    if len(image) != 1 and not coloured:
        raise CannotImitateError
    if example.reading.orientation in PICTURES and image.ndim != 3:
        raise CannotImitateError
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        values = np.asarray(image, dtype=np.float32)
        return WRITERS[kind.family](example, values[0] if len(values) == 1 else values, path)
    except CannotImitateError:
        raise
    except Exception as error:  # a file that is read in its own way: the copy stays an array
        raise CannotImitateError from error


@dataclass(frozen=True)
class ReadBack:
    """Planted copies as the audit sees them.

    Attributes:
        pixels: ``(n, channels, *size)``.
        readable: ``(n,)`` False where the file could not be read back.
        description: ``"files (PNG, 8 bit)"``, ``"arrays"``, or both with counts.
        unreadable: names of the planted files that could not be read back, with the reason.
    """

    pixels: NDArray[np.float32]
    readable: NDArray[np.bool_]
    description: str
    unreadable: tuple[str, ...]


def through_files(
    copies: NDArray[np.floating], like: Cohort, preprocessing: Preprocessing, folder: Path, seed: int = 0
) -> ReadBack:
    """Write copies as files like those of a cohort, and read them as it was read.

    Args:
        copies: ``(n, channels, *size)`` upright, in [0, 1].
        like: the synthetic cohort.
        preprocessing: of the audit.
        folder: for the files.
        seed: of the choice of examples.
    """
    order = np.random.default_rng([seed, 29]).permutation(len(like))[:EXAMPLES]
    pixels, kinds, unreadable = np.array(copies, dtype=np.float32), [], {}
    for place, copy in enumerate(copies):
        example = like.images[int(order[place % len(order)])]
        path = folder / f"planted_{place:04d}{ending_of(example.path.name)}"
        try:
            kinds.append(write_like(example, copy, path))
        except CannotImitateError:
            kinds.append("arrays")
            continue
        planted = CohortImage(path, path.name, path.name, reading=example.reading)
        try:
            pixels[place] = preprocessing(planted)
        except UnusableImageError as error:
            unreadable[place] = f"{path.name} ({error.reason})"
    readable = np.ones(len(copies), dtype=bool)
    readable[list(unreadable)] = False
    counts = Counter(kinds)
    arrays = counts.pop("arrays", 0)
    described = f"files ({'; '.join(sorted(counts))})" if counts else "arrays"
    if counts and arrays:
        described += f", {arrays} of {len(copies)} as arrays"
    return ReadBack(pixels, readable, described, tuple(unreadable.values()))

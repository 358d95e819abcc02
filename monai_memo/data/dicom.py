# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Read one image from DICOM files: a still, a series of slices, or an enhanced file of several frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from monai_memo.data.cohort import CohortImage
from monai_memo.data.columns import SERIES
from monai_memo.data.dicom_files import SliceHeader, dicom_files, header_of, is_dicom, read_dataset, read_header
from monai_memo.data.dicom_frames import frame_headers
from monai_memo.data.dicom_pixels import Values, refuse_films, values_of, without_padding
from monai_memo.data.dicom_series import DicomFound, DicomImage, group_dicom
from monai_memo.data.dicom_stack import Stack, arrange
from monai_memo.data.header import ImageHeader
from monai_memo.errors import UnusableImageError

if TYPE_CHECKING:
    from monai_memo.data.reading import Pixels

__all__ = [
    "SERIES",
    "DicomFound",
    "DicomImage",
    "dicom_files",
    "dicom_header",
    "files_of_folder",
    "group_dicom",
    "is_dicom",
    "read_dicom",
    "series_of",
]


def files_of_folder(
    folder: Path, series: str = ""
) -> tuple[tuple[Path, ...], tuple[tuple[Path, str], ...], tuple[str, ...]]:
    """The files of the one image that a folder holds; of its subfolders where it has no files itself.

    Args:
        series: SeriesInstanceUID of the image, in a folder that holds others as well.

    Returns:
        The files, first slice to last; files set aside, with the reason; notes.

    Raises:
        UnusableImageError: no image there, or several, or none of that series.
    """
    paths = dicom_files(folder)
    if not paths:
        paths = sorted(
            path
            for path in folder.rglob("*")
            if not any(part.startswith(".") for part in path.relative_to(folder).parts)
            and path.is_file()
            and is_dicom(path)
        )
    if not paths:
        raise UnusableImageError(folder, "a folder without DICOM files")
    found = group_dicom(paths)
    if series:
        images = tuple(image for image in found.images if image.series == series)
        if not images:
            raise UnusableImageError(folder, f"a folder without an image of that {SERIES}")
        found = replace(found, images=images)
    if len(found.images) == 1:
        return found.images[0].files or (found.images[0].path,), found.set_aside, found.notes
    if not found.images:
        raise UnusableImageError(folder, f"a folder without an image: a file in it {found.set_aside[0][1]}")
    volumes = sum(1 for image in found.images if image.files)
    singles = len(found.images) - volumes
    parts = [f"{volumes} DICOM series"] if volumes else []
    parts += [f"{singles} single image{'s' if singles > 1 else ''}"] if singles else []
    whose = " of that SeriesInstanceUID" if series else ""
    remedy = "give each a folder of its own" if series else f"say which one in a column {SERIES} of the table"
    raise UnusableImageError(folder, f"a folder that holds {' and '.join(parts)}{whose} instead of one image: {remedy}")


def series_of(image: CohortImage) -> str:
    """Which series of its folder an image is, where a table says so."""
    return str(image.columns.get(SERIES, "")).strip()


def _files(image: CohortImage) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    if image.files or not image.path.is_dir():
        return image.files or (image.path,), ()
    files, aside, notes = files_of_folder(image.path, series_of(image))
    left = Counter(reason for _, reason in aside)
    told = [f"taken without {n} DICOM file{'s' if n > 1 else ''} ({reason})" for reason, n in left.most_common()]
    return files, (*notes, *told)


def read_dicom(image: CohortImage) -> Pixels:
    """Pixels of an image in the files' own units (HU in CT), as ``read_image`` gives them.

    Raises:
        UnusableImageError: damaged, no image, several images at one place, slices missing, a film; the reason says
            which.
    """
    try:
        files, notes = _files(image)
        return _read_file(files[0], image, notes) if len(files) == 1 else _read_series(files, image, notes)
    except UnusableImageError as error:
        raise UnusableImageError(image.path, error.reason) from error
    except Exception as error:  # pydicom looks at an element only when it is asked for, and damage may be anywhere
        raise UnusableImageError(image.path, "a damaged DICOM file") from error


def _read_file(path: Path, image: CohortImage, notes: tuple[str, ...]) -> Pixels:
    from monai_memo.data.reading import Pixels

    dataset = read_dataset(path)
    header = header_of(dataset, path)
    if header.no_image:
        raise UnusableImageError(path, f"holds {header.no_image}, no image of the patient")
    refuse_films(dataset, path)
    if header.frames == 1:
        array = without_padding(values_of(dataset, path))[0]
        return Pixels(np.moveaxis(array, -1, 0) if array.ndim == 3 else array[None], None, notes)
    headers = frame_headers(dataset, path)
    stack = arrange(headers, image.reading.allow_gaps)
    values = values_of(dataset, path)
    if len(values) != len(headers):
        raise UnusableImageError(path, f"holds {len(values)} of its {len(headers)} frames")
    return _stacked(values, stack, notes)


def _read_series(files: Sequence[Path], image: CohortImage, notes: tuple[str, ...]) -> Pixels:
    headers: list[SliceHeader] = []
    values: list[Values] = []
    causes: list[str] = []
    # Headers first: what is no volume costs no decoding.
    for path in files:
        try:
            headers.append(read_header(path, splitting=True))
        except UnusableImageError as error:
            causes.append(error.reason)
    if not causes:
        stack = arrange(headers, image.reading.allow_gaps)
        for header in headers:
            try:
                values.append(values_of(read_dataset(header.path), header.path)[0])
            except UnusableImageError as error:
                causes.append(error.reason)
    if causes:
        cause = Counter(causes).most_common(1)[0][0]
        usable = len(files) - len(causes)
        if not usable:
            raise UnusableImageError(image.path, cause)
        raise UnusableImageError(image.path, f"only {usable} of {len(files)} slices form one readable series ({cause})")
    return _stacked(values, stack, notes)


def _stacked(values: Sequence[Values], stack: Stack, notes: tuple[str, ...]) -> Pixels:
    """``(channels, x, y, z)`` in the order of the stack; one slice alone is a 2D image."""
    from monai_memo.data.reading import Pixels

    slices = without_padding([values[i] for i in stack.order])
    volume = np.stack(slices, axis=-1)  # (rows, columns, [colours,] slices)
    volume = volume.transpose(2, 1, 0, 3) if volume.ndim == 4 else volume.transpose(1, 0, 2)[None]
    return Pixels(volume, stack.affine, (*notes, *stack.notes))


def dicom_header(image: CohortImage) -> ImageHeader:
    """What is known of an image before its pixels are read.

    Raises:
        UnusableImageError: damaged, no image, several images in a folder, a film.
    """
    try:
        files, _ = _files(image)
        return _header(files)
    except UnusableImageError as error:
        raise UnusableImageError(image.path, error.reason) from error
    except Exception as error:
        raise UnusableImageError(image.path, "a damaged DICOM header") from error


def _header(files: Sequence[Path]) -> ImageHeader:
    import nibabel

    headers = []
    for path in (files[0], files[-1]) if len(files) > 1 else files:
        try:
            headers.append(read_header(path))
        except UnusableImageError:
            if len(files) == 1:
                raise
    if not headers:
        raise UnusableImageError(files[0], "a damaged DICOM header")
    first, count = headers[0], len(files)
    if count == 1 and first.no_image:
        raise UnusableImageError(files[0], f"holds {first.no_image}, no image of the patient")
    channels = 3 if first.colour else 1
    if count == 1 and first.frames == 1:
        return ImageHeader(
            "DICOM", (first.rows, first.columns), channels, first.colour, None, first.spacing, first.dtype
        )
    if count == 1:
        frames = frame_headers(read_dataset(files[0], pixels=False), files[0])
        first, headers, count = frames[0], [frames[0], frames[-1]], len(frames)
    step, orientation = None, None
    if first.is_slice and len(headers) == 2 and headers[1].is_slice:
        span = np.subtract(headers[1].position or 0, headers[0].position or 0)
        step = float(np.linalg.norm(span)) / (count - 1)
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = np.asarray(first.orientation).reshape(2, 3)
        affine[:3, 2] = span if step else np.cross(affine[:3, 0], affine[:3, 1])
        affine[:2] *= -1
        orientation = "".join(nibabel.orientations.aff2axcodes(affine)) if first.in_patient else None
    spacing = (first.spacing[1], first.spacing[0], step) if first.spacing and step else None
    return ImageHeader(
        "DICOM", (first.columns, first.rows, count), channels, first.colour, orientation, spacing, first.dtype
    )

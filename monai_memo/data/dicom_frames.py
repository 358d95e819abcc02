# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The frames of enhanced DICOM files: where each lies and how its values are scaled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_memo.data.dicom_files import SliceHeader, header_of, numbers_of, orientation_of, spacing_of, splitting_of
from monai_memo.errors import UnusableImageError

SCALING = "PixelValueTransformationSequence"


def _groups(dataset: Any, frame: int) -> list[Any]:
    """The functional groups of a frame: its own go before the shared ones."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    return [*own[frame : frame + 1], *shared[:1]]


def macro_of(dataset: Any, frame: int, keyword: str) -> Any:
    """One functional group of a frame, for example its pixel measures; None where the file does not give it."""
    for group in _groups(dataset, frame):
        items = group.get(keyword)
        if items:
            return items[0]
    return None


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _frame_header(dataset: Any, base: SliceHeader, frame: int) -> SliceHeader:
    empty: dict[str, Any] = {}
    measures = macro_of(dataset, frame, "PixelMeasuresSequence")
    plane = macro_of(dataset, frame, "PlaneOrientationSequence")
    place = macro_of(dataset, frame, "PlanePositionSequence")
    orientation = orientation_of(plane or empty)
    position = numbers_of(place or empty, "ImagePositionPatient", 3)
    in_patient = position is not None
    if not in_patient:  # ultrasound volumes lie in the frame of their probe
        plane = macro_of(dataset, frame, "PlaneOrientationVolumeSequence")
        place = macro_of(dataset, frame, "PlanePositionVolumeSequence")
        orientation = _first(orientation_of(plane or empty, "ImageOrientationVolume"), orientation)
        position = numbers_of(place or empty, "ImagePositionVolume", 3)
    macros = [item for group in _groups(dataset, frame) for element in group for item in _items(element)]
    thickness = numbers_of(measures or empty, "SliceThickness", 1)
    return replace(
        base,
        frame=frame,
        orientation=_first(orientation, base.orientation),
        position=position,
        spacing=_first(spacing_of(measures or empty), base.spacing),
        thickness=thickness[0] if thickness else base.thickness,
        number=frame + 1,
        in_patient=in_patient,
        splitting=splitting_of(*macros, dataset),
    )


def _items(element: Any) -> list[Any]:
    return list(element.value or []) if element.VR == "SQ" else []


def frame_headers(dataset: Any, path: Path) -> list[SliceHeader]:
    """One header for each frame of a file.

    Raises:
        UnusableImageError: the frames do not say where they lie: a film, or a damaged file.
    """
    base = header_of(dataset, path)
    if base.frames > 1 and base.modality == "NM" and "RECON TOMO" in base.image_type:
        return _tomography(dataset, base)
    own = dataset.get("PerFrameFunctionalGroupsSequence")
    if not own and base.frames > 1:
        raise UnusableImageError(
            path,
            f"a film or a pile of {base.frames} frames that do not say where they lie, no volume: "
            "save the frames that count as single images",
        )
    if own and len(own) != base.frames:
        raise UnusableImageError(path, f"describes {len(own)} of its {base.frames} frames")
    headers = [_frame_header(dataset, base, frame) for frame in range(base.frames)]
    lost = sum(1 for header in headers if not header.is_slice)
    if lost and base.frames > 1:
        raise UnusableImageError(
            path,
            f"{lost} of its {base.frames} frames do not say where they lie: "
            "save the frames that count as single images",
        )
    return headers


def _tomography(dataset: Any, base: SliceHeader) -> list[SliceHeader]:
    """Reconstructed SPECT: the position of the first slice, and the distance from one slice to the next."""
    detectors = dataset.get("DetectorInformationSequence") or [{}]
    orientation = orientation_of(detectors[0]) or base.orientation
    start = numbers_of(detectors[0], "ImagePositionPatient", 3) or base.position
    step = numbers_of(dataset, "SpacingBetweenSlices", 1)
    number = numbers_of(dataset, "SliceVector")
    if orientation is None or start is None or step is None or number is None or len(number) != base.frames:
        raise UnusableImageError(base.path, f"its {base.frames} frames do not say where they lie")
    normal = np.cross(orientation[:3], orientation[3:])
    headers = []
    for frame, index in enumerate(number):
        position = tuple(float(value) for value in np.asarray(start) + normal * step[0] * (index - 1))
        headers.append(replace(base, frame=frame, orientation=orientation, position=position, number=int(index)))
    return headers


def scaling_of(dataset: Any, frame: int) -> Any:
    """Where the rescale slope and intercept of a frame stand: its functional group, or the dataset itself."""
    return macro_of(dataset, frame, SCALING) or dataset

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Slices become a volume: their order, where the volume lies, and whether they are one complete volume at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monai_memo.data.dicom_files import SPLITTING, SliceHeader
from monai_memo.errors import UnusableImageError

UNEVEN = 0.25  # share of the distance by which slices may be off: positions are often rounded to 0.1 mm
PARALLEL = 1e-3  # cosines
TIMES = ("TriggerTime", "AcquisitionTime", "ContentTime", "AcquisitionDateTime")  # of a patient: not told


@dataclass(frozen=True)
class Stack:
    """One volume.

    Attributes:
        order: the slices, first to last along the third axis.
        affine: (column, row, slice) to RAS in mm; None where the slices lie in the frame of a probe.
        notes: what is worth counting.
    """

    order: tuple[int, ...]
    affine: np.ndarray | None
    notes: tuple[str, ...] = ()


def along(headers: Sequence[SliceHeader]) -> np.ndarray:
    """Place of each slice on the normal of the first, in mm."""
    row, column = np.asarray(headers[0].orientation).reshape(2, 3)
    normal = np.cross(row, column)
    positions = np.array([header.position for header in headers])
    return (positions - positions[0]) @ (normal / np.linalg.norm(normal))


def same_place(places: np.ndarray, thickness: float | None) -> list[list[int]]:
    """Indices of the slices, one list for each place, in the order of the places."""
    order = np.argsort(places, kind="stable")
    steps = np.diff(places[order])
    # Positions of repeats differ by rounding only; the larger steps are those between places.
    typical = float(np.percentile(steps, 90)) if len(steps) else 0.0
    limits = [0.1 * typical, 0.5, *([0.5 * thickness] if thickness and thickness > 0 else [])]
    tolerance = max(1e-4, min(limits))
    groups: list[list[int]] = [[int(order[0])]]
    for index, step in zip(order[1:], steps, strict=True):
        if step <= tolerance:
            groups[-1].append(int(index))
        else:
            groups.append([int(index)])
    return groups


def _what_splits(headers: Sequence[SliceHeader], places: Sequence[Sequence[int]]) -> str | None:
    """The tag whose values tell the repeats apart, so that each value has one slice at each place."""
    for keyword in SPLITTING:
        values = [header.splitting.get(keyword) for header in headers]
        found = set(values)
        if None in found or len(found) < 2:
            continue
        if all(len(found) == len(place) and {values[i] for i in place} == found for place in places):
            if keyword in TIMES or len(found) > 4:
                return f"{keyword}, {len(found)} values"
            return f"{keyword} {', '.join(_plain(value) for value in sorted(map(str, found), key=_by_number))}"
    return None


def _plain(text: str) -> str:
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def _by_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def _refuse_repeats(path: SliceHeader, headers: Sequence[SliceHeader], places: Sequence[Sequence[int]]) -> None:
    most = max(len(place) for place in places)
    if most == 1:
        return
    repeated = sum(1 for place in places if len(place) > 1)
    if repeated == len(places) and all(len(place) == most for place in places):
        tag = _what_splits(headers, places)
        if tag is not None:
            raise UnusableImageError(path.path, f"{most} images at each position ({tag}): keep one of them")
        raise UnusableImageError(
            path.path, f"{most} images at each position, which no tag tells apart: keep one of them"
        )
    raise UnusableImageError(
        path.path, f"up to {most} images at one position, at {repeated} of {len(places)} positions: keep one of them"
    )


def _steps_note(path: SliceHeader, places: np.ndarray, allow_gaps: bool) -> str | None:
    """Look at the distances between sorted slices.

    Returns:
        A note where slices are missing and that is allowed.
    """
    steps = np.diff(places)
    if len(steps) == 0:
        return None
    step = float(np.median(steps))
    even = steps[np.abs(steps - step) <= UNEVEN * step]
    step = float(even.mean()) if len(even) else step
    if (np.abs(steps - step) <= UNEVEN * step).all():
        return None
    multiples = np.rint(steps / step)
    missing = int((multiples - 1).clip(0).sum())
    if missing and (np.abs(steps - multiples * step) <= UNEVEN * step).all():
        where = int((multiples > 1).sum())
        what = (
            f"{missing} slice{'s' if missing > 1 else ''} missing "
            f"({where} gap{'s' if where > 1 else ''} in steps of {step:.4g} mm)"
        )
    else:
        what = f"slices at uneven distances ({steps.min():.4g} to {steps.max():.4g} mm)"
    if allow_gaps:
        return f"taken with {what}"
    raise UnusableImageError(path.path, f"{what}: --allow_gaps takes it all the same")


def arrange(headers: Sequence[SliceHeader], allow_gaps: bool = False) -> Stack:
    """Order slices of one orientation and size.

    Raises:
        UnusableImageError: several images at one place, missing slices, slices that do not lie in a row.
    """
    first = headers[0]
    for header in headers[1:]:
        turned = np.abs(np.subtract(header.orientation, first.orientation)).max()  # type: ignore[arg-type]
        if turned > PARALLEL:
            raise UnusableImageError(first.path, "slices of several orientations")
        if (header.rows, header.columns) != (first.rows, first.columns):
            raise UnusableImageError(first.path, "slices of several sizes")
    places = same_place(along(headers), first.thickness)
    _refuse_repeats(first, headers, places)
    order = [place[0] for place in places]
    positions = np.array([headers[i].position for i in order])
    note = _steps_note(first, along(headers)[order], allow_gaps)
    spacing = first.spacing or (1.0, 1.0)
    row, column = np.asarray(first.orientation).reshape(2, 3)
    if len(order) > 1:
        # Of a tilted gantry the slices are shifted against each other: the third axis is not the normal then.
        step = (positions[-1] - positions[0]) / (len(order) - 1)
        if note is None:
            off = np.abs(positions - (positions[0] + np.arange(len(order))[:, None] * step)).max()
            if off > max(spacing) + UNEVEN * float(np.linalg.norm(step)):
                raise UnusableImageError(first.path, "slices that do not lie in a row")
    else:
        step = np.cross(row, column) * (first.thickness or 1.0)
    notes = [] if note is None else [note]
    if first.spacing is None:
        notes.append("taken with pixels of 1 mm: the files do not say how large they are")
    if not first.in_patient:
        return Stack(tuple(order), None, tuple(notes))
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = (
        row * spacing[1],
        column * spacing[0],
        step,
        positions[0],
    )
    affine[:2] *= -1  # DICOM's x and y run to the left and to the back
    return Stack(tuple(order), affine, tuple(notes))

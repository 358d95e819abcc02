# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How an image lies in its file, and the one place that decides which axes are space and which holds several values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from monai_memo.data.header import ImageHeader
from monai_memo.errors import UnusableImageError

COLOURS = (3, 4)
LARGEST = 2**30  # values: 8 GiB in double precision; a CT of the whole body has half as many
CHANNEL_NOTE = "read from one of several channels, as asked for"
PRESUMED_COLOUR_NOTE = "taken as colour: 3 or 4 bytes at each pixel"
UNKNOWN_NOTE = "left as stored, because the file does not state its orientation"


@dataclass(frozen=True)
class Stored:
    """A file as its header describes it.

    Attributes:
        format: ``"PNG"``, ``"NIfTI"``, ...
        shape: of the array that ``load`` gives.
        dtype: of the stored numbers.
        load: reads the pixels, and gives notes that only they tell.
        colour: the axis of colours, where the file says that there is one.
        several: axes that hold several values of one pixel or voxel (sequences, times, components).
        guess: neither is known and the shape has to tell (npy).
        rows_first: 2D images are stored as rows, columns; otherwise as x, y.
        affine: ``(4, 4)`` of the axes of space to RAS in mm; None where the file does not state its orientation.
        spacing: mm along the first axes; None where the file does not say.
        notes: what was done so far that is worth counting.
    """

    format: str
    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], tuple[np.ndarray, tuple[str, ...]]]
    colour: int | None = None
    several: tuple[int, ...] = ()
    guess: bool = False
    rows_first: bool = False
    affine: np.ndarray | None = None
    spacing: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Axes:
    """Which axes of a stored array are what.

    Attributes:
        space: axes of space longer than 1, in stored order.
        colour: the axis of colours.
        several: the axis of several values, of which ``channel`` is taken.
        channel: position along ``several``.
        notes: what is worth counting.
    """

    space: tuple[int, ...]
    colour: int | None = None
    several: int | None = None
    channel: int | None = None
    notes: tuple[str, ...] = ()


def by(shape: tuple[int, ...]) -> str:
    """``(3, 4)`` as ``"3 x 4"``."""
    return " x ".join(str(length) for length in shape)


def refuse_unclear(path: Path, shape: tuple[int, ...]) -> None:
    """Refuses ``(4, x, y, z)`` in formats that put several values last: networks give them first."""
    if 1 < shape[0] <= 8 < shape[3] and shape[0] < min(shape[1:3]):
        raise UnusableImageError(
            path,
            f"has the shape {by(shape)} and does not tell whether its first or last axis holds several values: save "
            "one volume a file",
        )


def _guess(path: Path, stored: Stored, channel: int | None) -> Stored:
    """A bare array does not say what its axes are: colour only where bytes lie like colours, nothing silently."""
    long = [axis for axis, length in enumerate(stored.shape) if length > 1]
    lengths = tuple(stored.shape[axis] for axis in long)
    if len(long) not in (3, 4):
        return stored
    ends = [axis for axis in (0, len(long) - 1) if lengths[axis] == min(lengths)]
    others = sorted(lengths)[1]
    if len(long) == 4:
        if len(ends) != 1 or lengths.count(min(lengths)) > 1:
            raise UnusableImageError(
                path,
                f"has 4 dimensions ({by(lengths)}) and does not tell which of them holds several values: save one "
                "volume a file",
            )
        return replace(stored, several=(long[ends[0]],))
    if not ends or min(lengths) > 4 or others <= 4:
        return stored  # a volume
    axis = long[ends[-1]]
    if channel is not None:
        return replace(stored, several=(axis,))
    if stored.dtype == "uint8" and stored.shape[axis] in COLOURS:
        return replace(stored, colour=axis, notes=(*stored.notes, PRESUMED_COLOUR_NOTE))
    raise UnusableImageError(
        path,
        f"has the shape {by(lengths)}, which may mean {min(lengths)} slices or {min(lengths)} values at each pixel: "
        f"name one value with --channel 0 to {min(lengths) - 1}, save colours as PNG or a volume as NIfTI",
    )


def axes_of(path: Path, stored: Stored, channel: int | None) -> Axes:
    """Which axes are space, and which holds colours or several values.

    Args:
        path: for the error.
        channel: which of several values to take; files with one value or with colours are taken as they are.

    Raises:
        UnusableImageError: neither 2D nor 3D, too large, or several values of which none, or a missing one, was asked
            for.
    """
    if 0 in stored.shape or not stored.shape:
        raise UnusableImageError(path, "empty" if stored.shape else "has 0 dimensions")
    count = 1
    for length in stored.shape:
        count *= int(length)
    if count > LARGEST:
        raise UnusableImageError(
            path, f"needs {8 * count / 1e9:,.0f} GB of memory ({by(stored.shape)} values): more than is read"
        )
    if stored.guess:
        stored = _guess(path, stored, channel)
    several = [axis for axis in stored.several if stored.shape[axis] > 1]
    space = tuple(
        axis
        for axis, length in enumerate(stored.shape)
        if length > 1 and axis != stored.colour and axis not in stored.several
    )
    one = {2: "pixel", 3: "voxel"}.get(len(space), "place")
    whole = "volume" if len(space) == 3 else "image"
    if len(several) > 1 or (several and stored.colour is not None):
        lengths = by(tuple(stored.shape[axis] for axis in range(len(stored.shape)) if axis not in space))
        raise UnusableImageError(path, f"has {lengths} values at each {one}: save one {whole} a file")
    if len(space) not in (2, 3):
        raise UnusableImageError(path, f"has {len(space)} dimensions")
    if not several:
        return Axes(space, stored.colour, notes=stored.notes)
    number = stored.shape[several[0]]
    if channel is None:
        raise UnusableImageError(
            path,
            f"has {number} values at each {one} ({len(space) + 1}D): name one with --channel 0 to {number - 1}, "
            f"or save one {whole} a file",
        )
    if not 0 <= channel < number:
        raise UnusableImageError(path, f"has channels 0 to {number - 1}, and no channel {channel}")
    return Axes(space, several=several[0], channel=channel, notes=(*stored.notes, CHANNEL_NOTE))


def orientation_of(affine: np.ndarray | None) -> str | None:
    """Nearest axis codes, e.g. ``"LPS"``. None without an affine that states the volume's orientation."""
    import nibabel

    if affine is None or not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        return None
    codes = nibabel.orientations.aff2axcodes(affine)  # type: ignore[attr-defined, no-untyped-call]
    return None if None in codes else "".join(codes)


def header_of(path: Path, stored: Stored, channel: int | None) -> ImageHeader:
    """The header in its common form. Raises as ``axes_of`` does."""
    axes = axes_of(path, stored, channel)
    space = axes.space if len(axes.space) == 3 or stored.rows_first else axes.space[::-1]
    spacing = stored.spacing
    known = spacing is not None and all(axis < len(spacing) for axis in space)
    values = axes.colour if axes.colour is not None else axes.several
    return ImageHeader(
        format=stored.format,
        shape=tuple(stored.shape[axis] for axis in space),
        channels=1 if values is None else stored.shape[values],
        colour=axes.colour is not None,
        orientation=orientation_of(stored.affine) if len(space) == 3 else None,
        spacing=tuple(float(spacing[axis]) for axis in space) if known and spacing is not None else None,
        dtype=stored.dtype,
    )


def arrange(array: np.ndarray, stored: Stored, axes: Axes) -> np.ndarray:
    """``(channels, rows, columns)`` or ``(channels, x, y, z)`` from the array as stored."""
    space = axes.space if len(axes.space) == 3 or stored.rows_first else axes.space[::-1]
    if axes.several is not None and axes.channel is not None:
        array = np.take(array, [axes.channel], axis=axes.several)
    values = axes.colour if axes.colour is not None else axes.several
    rest = [axis for axis in range(array.ndim) if axis not in space and axis != values]
    order = [*rest, *([] if values is None else [values]), *space]
    shape = [array.shape[axis] for axis in space]
    return array.transpose(order).reshape(-1, *shape)

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Pairs at the resolution of their files, for the viewer: both images on one grid, with more than 256 grey values.

A pair lies in two files: ``pair_001.gz`` (the synthetic image, then the training image, both ``uint16``, rows or x
first, in colour all of red, then green, then blue; compressed) and ``pair_001.json`` (what the viewer needs to know).
Neither says where an image is from.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from monai_memo.audit.evidence import pixel_correlation
from monai_memo.data.cohort import CohortImage
from monai_memo.data.loading import Preprocessing
from monai_memo.data.orientation import really
from monai_memo.data.reading import read_header, read_image
from monai_memo.errors import MemoError
from monai_memo.files import write_json, write_with
from monai_memo.search.pair import ALIGNED_LENGTH, compare_pair

# Stored grey values: 0 is half the range between the two percentiles below the lower one, 8192 as much above the upper.
LOWEST, LEVELS, MOST_VALUE = -0.5, 4096, 8192
MOST_POINTS = {2: 1 << 25, 3: 1 << 26}  # of one image: what a browser holds twice; 5792 x 5792, 512 x 512 x 256
CHANNELS = (1, 3)  # grey, or red, green and blue
COMPRESSION = 3
SLAB = 1 << 22  # points that are brought to the other image at once
FIGURES = ".gz"
REMEDY = "restore it from a backup; monai-memo review-prepare --restart begins a new review"


@dataclass(frozen=True)
class NativePair:
    """Two images on one grid.

    Attributes:
        synthetic, training: ``(*spatial)``, in colour ``(3, rows, columns)``; 0 and 1 are the percentiles of the
            audit's preprocessing, and what lies beyond is kept as far as half that range. The training image is
            aligned and grey where it ends.
        extent: length of each axis, relative to the others.
        oriented: whether a volume says where its right, front and top are.
    """

    synthetic: NDArray[np.float32]
    training: NDArray[np.float32]
    extent: tuple[float, ...]
    oriented: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Points along each axis."""
        return self.synthetic.shape[-len(self.extent) :]

    @property
    def channels(self) -> int:
        """1, or 3 in colour."""
        return len(_channels(self.synthetic, len(self.shape)))


@dataclass(frozen=True)
class Whole:
    """One image as its file has it, turned upright: ``(*spatial)``, in colour ``(3, rows, columns)``."""

    image: NDArray[np.float32]
    extent: tuple[float, ...]
    oriented: bool


def load_whole(image: CohortImage, preprocessing: Preprocessing) -> Whole:
    """Read an image without resizing it. Values are scaled as the audit scales them, and not clipped.

    It is in colour where the audit compared in colour, also if this one is a grey picture: then all pairs of a review
    take the same space.

    Raises:
        UnusableImageError: see ``Preprocessing.load``.
    """
    dims = preprocessing.spatial_dims
    channels = preprocessing.channels if dims == 2 else 1
    whole = replace(preprocessing, percentiles=(0.0, 100.0), spacing=None, channels=channels)
    array = whole.unsized(image)[0]
    array = array if channels > 1 else array[0]
    low, high = np.percentile(array, preprocessing.percentiles)
    if high <= low:
        low, high = 0.0, 1.0  # as the preprocessing does it with few bright pixels on a flat background
    extent, oriented = _extent(image, array.shape[-dims:])
    return Whole(np.asarray((array - low) / (high - low), dtype=np.float32), extent, oriented)


def _channels(image: NDArray[np.float32], dims: int) -> NDArray[np.float32]:
    """``(channels, *spatial)``."""
    return image if image.ndim > dims else image[None]


def _extent(image: CohortImage, shape: tuple[int, ...]) -> tuple[tuple[float, ...], bool]:
    """Lengths of the axes in mm, or in pixels where the file does not tell; whether directions are known."""
    lies = image.reading.orientation
    spacing = read_header(image).spacing
    if len(shape) == 2:
        if spacing is None or lies is not None:
            return tuple(map(float, shape)), False
        return tuple(length * mm for length, mm in zip(shape, spacing, strict=True)), False
    affine = read_image(image).affine
    known = affine is not None or lies is not None
    if affine is None:
        affine = np.diag([*(spacing or (1.0, 1.0, 1.0)), 1.0])
    if lies is not None:
        affine = really(affine, lies)
    millimetres = np.linalg.norm(affine[:3, :3], axis=0)
    order = nibabel.orientations.io_orientation(affine)[:, 0].astype(int) if known else np.arange(3)
    turned = [1.0, 1.0, 1.0]
    for stored, axis in enumerate(order):
        turned[axis] = float(millimetres[stored])
    return tuple(length * mm for length, mm in zip(shape, turned, strict=True)), known


def native_pair(synthetic: Whole, training: Whole, preprocessing: Preprocessing, verified: bool) -> NativePair:
    """Bring a training image to a synthetic one, at a resolution at which neither loses any.

    The alignment is found at the size at which the audit finds it.

    Args:
        verified: mirror, turn, zoom and shift it, as the verification does; otherwise only mirror it.
    """
    dims = len(synthetic.extent)
    channels = len(_channels(synthetic.image, dims))
    shape = grid_of(synthetic.image.shape[-dims:], training.image.shape[-dims:], channels)
    small = replace(preprocessing, size=(ALIGNED_LENGTH[dims],) * dims, spacing=None)
    first, second = (small.sized(_channels(whole.image, dims).clip(0, 1)) for whole in (synthetic, training))
    theta = compare_pair(first, second).transform if verified else _mirror(second.mean(axis=0), first.mean(axis=0))
    return NativePair(
        synthetic=brought(synthetic.image, np.eye(dims, dims + 1, dtype=np.float32), shape),
        training=brought(training.image, theta, shape),
        extent=synthetic.extent,
        oriented=synthetic.oriented,
    )


def grid_of(synthetic: tuple[int, ...], training: tuple[int, ...], channels: int = 1) -> tuple[int, ...]:
    """Points along each axis that hold both images.

    A picture keeps the proportions of the synthetic one; a volume takes the finer one of each axis.

    Example:
        >>> grid_of((256, 256), (1024, 800)), grid_of((64, 64, 64), (128, 128, 20))
        ((1024, 1024), (128, 128, 64))
    """
    dims = len(synthetic)
    if dims == 2:
        finer = max(1.0, *(theirs / own for own, theirs in zip(synthetic, training, strict=True)))
        shape = tuple(round(length * finer) for length in synthetic)
    else:
        shape = tuple(max(pair) for pair in zip(synthetic, training, strict=True))
    points, most = float(np.prod(shape)), MOST_POINTS[dims] / channels
    if points <= most:
        return shape
    share = (most / points) ** (1 / dims)
    return tuple(max(1, int(length * share)) for length in shape)


def _mirror(training: NDArray[np.float32], synthetic: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mirror that ``evidence.align`` chooses, as a transform (last axis first)."""
    dims = training.ndim
    choices = [axes for n in range(dims + 1) for axes in combinations(range(dims), n)]
    best = max(choices, key=lambda axes: pixel_correlation(np.flip(training, axes), synthetic))
    theta = np.eye(dims, dims + 1, dtype=np.float32)
    for axis in best:
        theta[dims - 1 - axis, dims - 1 - axis] = -1
    return theta


def brought(image: NDArray[np.float32], theta: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An image on another grid of ``shape``, through a transform of coordinates from -1 to 1; 0.5 where it ends."""
    dims = len(shape)
    if image.ndim > dims:
        return np.stack([brought(channel, theta, shape) for channel in image])
    if image.shape == shape and np.array_equal(theta, np.eye(dims, dims + 1)):
        return np.asarray(image, dtype=np.float32)
    source = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None]
    matrix = torch.from_numpy(np.asarray(theta, dtype=np.float32))
    places = [(2 * torch.arange(length, dtype=torch.float32) + 1) / length - 1 for length in shape]
    rows = max(1, SLAB // max(1, int(np.prod(shape[1:]))))
    result = np.empty(shape, dtype=np.float32)
    for start in range(0, shape[0], rows):
        own = [places[0][start : start + rows], *places[1:]]
        here = torch.stack(torch.meshgrid(*own, indexing="ij")[::-1], dim=-1)
        grid = here @ matrix[:, :dims].T + matrix[:, dims]
        values = functional.grid_sample(source, grid[None], padding_mode="border", align_corners=False)[0, 0]
        inside = (grid.abs() <= 1).all(dim=-1)
        result[start : start + rows] = torch.where(inside, values, torch.full_like(values, 0.5)).numpy()
    return result


def encoded(image: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Grey values as they are stored.

    Example:
        >>> encoded(np.array([-2.0, -0.5, 0.0, 1.0, 9.0])).tolist()
        [0, 0, 2048, 6144, 8192]
    """
    return np.round((image - LOWEST) * LEVELS).clip(0, MOST_VALUE).astype("<u2")


def save_native(folder: Path, pair_id: str, pair: NativePair) -> None:
    """Write one pair, atomically."""
    parts = [encoded(image) for image in (pair.synthetic, pair.training)]

    def write(path: Path) -> None:
        # Without a time and a name of its own: both would be of this machine.
        with open(path, "wb") as stream, gzip.GzipFile("", "wb", COMPRESSION, stream, mtime=0) as packed:
            for part in parts:
                packed.write(np.ascontiguousarray(part).data)

    write_with(folder / f"{pair_id}{FIGURES}", write)
    longest = max(pair.extent)
    told = {
        "shape": list(pair.shape),
        "channels": pair.channels,
        "extent": [round(length / longest, 6) for length in pair.extent],
        "oriented": pair.oriented,
    }
    write_json(folder / f"{pair_id}.json", told)


def read_told(folder: Path, pair_id: str) -> dict[str, Any]:
    """What the viewer needs to know of a pair.

    Raises:
        MemoError: the file is not there, or not what was written.
    """
    path = folder / f"{pair_id}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        told = {key: record[key] for key in ("shape", "extent", "oriented")}
        told["channels"] = record.get("channels", 1)  # of an earlier version: grey
        dims = len(told["shape"])
        if dims not in (2, 3) or len(told["extent"]) != dims or not isinstance(told["oriented"], bool):
            raise ValueError("another form is expected")
        if not all(type(length) is int and length > 0 for length in told["shape"]):
            raise ValueError("lengths must be whole numbers")
        if not all(type(length) in (int, float) and 0 < length <= 1 for length in told["extent"]):
            raise ValueError("extents must be numbers from 0 to 1")
        if told["channels"] not in CHANNELS:
            raise ValueError("channels must be 1 or 3")
        return told
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MemoError(f"{path} is missing or damaged: {REMEDY}") from error


def require_whole(path: Path, told: Mapping[str, Any]) -> None:
    """Unpack the images of a pair once, without keeping them: a browser tells nobody which file is damaged.

    Raises:
        MemoError: they cannot be unpacked, or are not what ``read_told`` says.
    """
    status = path.stat()
    if _unpacked_bytes(path, status.st_mtime_ns, status.st_size) != 2 * 2 * told["channels"] * math.prod(told["shape"]):
        raise MemoError(f"{path} is damaged: {REMEDY}")


@lru_cache(maxsize=10_000)
def _unpacked_bytes(path: Path, changed: int, size: int) -> int | None:
    """How much there is; None where it cannot be unpacked."""
    found = 0
    try:
        with gzip.open(path) as stream:
            while part := stream.read(SLAB):
                found += len(part)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return None
    return found


def unpacked(folder: Path, pair_id: str) -> bytes:
    """What the viewer gets: both images, as many bytes for every pair of one shape.

    Packed, a copy takes less than two patients do, and an image that had to be moved takes more than one that lies
    where its original does: the size would tell.

    Raises:
        MemoError: the file is damaged.
    """
    path = folder / f"{pair_id}{FIGURES}"
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MemoError(f"{path} is damaged: {REMEDY}") from error


def as_bytes(pair: NativePair) -> bytes:
    """The same, for pairs that are not stored at their resolution."""
    return b"".join(encoded(image).tobytes() for image in (pair.synthetic, pair.training))


def read_native(folder: Path, pair_id: str) -> NativePair:
    """Inverse of ``save_native``, but for rounding."""
    told = read_told(folder, pair_id)
    with gzip.open(folder / f"{pair_id}{FIGURES}") as stream:
        colours = (3,) if told["channels"] == 3 else ()
        both = np.frombuffer(stream.read(), dtype="<u2").reshape(2, *colours, *told["shape"])
    values = both.astype(np.float32) / LEVELS + np.float32(LOWEST)
    return NativePair(values[0], values[1], tuple(told["extent"]), told["oriented"])

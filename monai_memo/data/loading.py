# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""One preprocessing for all cohorts: orientation, spacing, size and intensity.

Real and synthetic images have to go through the very same steps: a difference in preprocessing would look like a
difference between real and synthetic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Orientation, Spacing
from torch.nn import functional

from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.colours import Colours, colours_of, says_colour
from monai_memo.data.orientation import orientation, really
from monai_memo.data.reading import as_image, read_header, read_image, with_affine
from monai_memo.data.stored import UNKNOWN_NOTE
from monai_memo.errors import CohortError, ConfigurationError, UnusableImageError

DEFAULT_SIZE = {2: (64, 64), 3: (32, 32, 32)}
LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
AXIS_LABELS = (("L", "R"), ("P", "A"), ("I", "S"))
COLOUR_NOTE = "converted from colour"
NOTE_SEPARATOR = "; "  # between the notes of one image


def _windowed(path: Path, array: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Values beyond the window become its ends. An image that lies beyond as a whole has other units."""
    low, high = window
    least, most = float(array.min()), float(array.max())
    if most <= low or least >= high:
        raise UnusableImageError(
            path, f"lies outside the window {low:g} to {high:g}: its values reach from {least:g} to {most:g}"
        )
    return np.clip(array.astype(np.float64), low, high)


@dataclass(frozen=True)
class Preprocessing:
    """From a file to the array that the detector sees.

    Attributes:
        spatial_dims: 2 or 3.
        size: pixels or voxels per axis after resizing, rows first in 2D, (x, y, z) in 3D.
        channels: 1 (colour becomes luminance) or 3.
        spacing: voxel size in mm to resample to before resizing; 3D files with an affine only.
        orientation: axis codes that volumes with an affine are turned to.
        percentiles: intensities at these percentiles of each image become 0 and 1; what lies beyond is clipped.
    """

    spatial_dims: int
    size: tuple[int, ...]
    channels: int = 1
    spacing: tuple[float, ...] | None = None
    orientation: str = "RAS"
    percentiles: tuple[float, float] = (0.5, 99.5)

    def __post_init__(self) -> None:
        if self.spatial_dims not in (2, 3):
            raise ConfigurationError(f"spatial_dims must be 2 or 3, got {self.spatial_dims!r}")
        if len(self.size) != self.spatial_dims or min(self.size) < 8:
            raise ConfigurationError(f"size must have {self.spatial_dims} numbers of at least 8, got {self.size!r}")
        if self.channels not in (1, 3):
            raise ConfigurationError(f"channels must be 1 or 3, got {self.channels!r}")
        if self.spacing is not None and (len(self.spacing) != 3 or self.spatial_dims != 3 or min(self.spacing) <= 0):
            raise ConfigurationError(
                f"spacing must have three positive numbers (mm) and needs 3D, got {self.spacing!r}"
            )
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ConfigurationError(f"percentiles must rise between 0 and 100, got {self.percentiles!r}")

    def __call__(self, image: CohortImage | str | Path) -> np.ndarray:
        """``(channels, *size)`` float32 in [0, 1]. See ``load``."""
        return self.load(image)[0]

    def load(self, image: CohortImage | str | Path) -> tuple[np.ndarray, str | None]:
        """Read and preprocess one image.

        Returns:
            ``(channels, *size)`` float32 in [0, 1], and what was done that is worth counting, joined by
            ``NOTE_SEPARATOR``; None if nothing was.

        Raises:
            UnusableImageError: missing, unreadable, of other dimensions, with NaN or infinity, empty or constant.
        """
        array, note = self.unsized(image)
        return self.sized(array), note

    def unsized(self, image: CohortImage | str | Path) -> tuple[np.ndarray, str | None]:
        """``load`` up to the last step: scaled and turned, at its own size."""
        image = as_image(image)
        path, lies, window = image.path, image.reading.orientation, image.reading.window
        array, affine, found = read_image(image)
        notes = [note for note in found if lies is None or note != UNKNOWN_NOTE]
        if array.ndim - 1 != self.spatial_dims:
            raise UnusableImageError(path, f"a {array.ndim - 1}D image in a {self.spatial_dims}D audit")
        if len(array) > 4:
            raise UnusableImageError(path, f"has {len(array)} channels, which is no colour")
        if len(array) > 1 and self.channels == 1:
            notes.append(COLOUR_NOTE)
        if len(array) > 1:  # an alpha channel is left out
            array = array[:1] if len(array) == 2 else array[:3].astype(np.float64)
        if self.channels == 1 and len(array) == 3:
            array = np.tensordot(LUMINANCE, array, axes=1)[None]
        if self.channels == 3 and len(array) == 1:
            array = np.repeat(array, 3, axis=0)
        if window is not None:
            array = _windowed(path, array, window)
            notes.append(f"clipped to the window {window[0]:g} to {window[1]:g}")
        scaled = self._scale(path, array)
        if lies is not None:
            notes.append(f"turned, as orientation {lies} says")
        if lies is not None and self.spatial_dims == 2:
            scaled = np.asarray(orientation(lies, 2)(scaled))
        if self.spatial_dims == 3:
            scaled = self._turned_and_resampled(image, scaled, affine)
        return scaled, NOTE_SEPARATOR.join(notes) or None

    def sized(self, array: np.ndarray) -> np.ndarray:
        """The last step of ``load``: at the detector's size, in [0, 1]."""
        return self._resize(array).clip(0, 1)

    def _turned_and_resampled(self, image: CohortImage, volume: np.ndarray, affine: np.ndarray | None) -> np.ndarray:
        lies = image.reading.orientation
        if affine is not None and not (np.isfinite(affine).all() and np.linalg.matrix_rank(affine[:3, :3]) == 3):
            raise UnusableImageError(image.path, "has an affine that gives no orientation")
        sized = affine
        if affine is None and self.spacing is not None:
            millimetres = read_header(image).spacing  # a file may tell its voxel size and not its orientation
            sized = None if millimetres is None else np.diag([*millimetres, 1.0])
        known = sized if lies is None else really(sized, lies)
        if known is None:
            return volume
        turned: Any = with_affine(volume, known)
        if affine is not None or lies is not None:
            turned = Orientation(axcodes=self.orientation, labels=AXIS_LABELS)(turned)
        if self.spacing is not None and sized is not None:
            turned = Spacing(pixdim=self.spacing, mode="bilinear", padding_mode="zeros")(turned)
        return np.asarray(turned)

    def from_array(self, image: np.ndarray, name: str = "image") -> np.ndarray:
        """Scale and resize an image that is in memory already, as ``load`` does with one from a file.

        Orientation and spacing are not touched: an array does not state it.

        Args:
            image: ``(channels, *spatial)`` with as many channels as this preprocessing gives.
            name: for the error.

        Returns:
            ``(channels, *size)`` float32 in [0, 1].

        Raises:
            UnusableImageError: another shape, NaN or infinity, or constant.
        """
        if image.ndim != self.spatial_dims + 1 or len(image) != self.channels:
            raise UnusableImageError(
                name, f"has shape {image.shape} instead of {self.channels} channels and {self.spatial_dims} axes"
            )
        return self.sized(self._scale(name, image))

    def _scale(self, path: str | Path, array: np.ndarray) -> np.ndarray:
        """Per image, since scanners and exports differ by factors of 10,000 and more."""
        values = array.astype(np.float64)
        if not np.isfinite(values).all():
            raise UnusableImageError(path, "contains NaN or infinity")
        low, high = np.percentile(values, self.percentiles)
        if high <= low:  # few bright pixels on a flat background
            low, high = values.min(), values.max()
        if high <= low:
            raise UnusableImageError(path, "constant")
        with np.errstate(over="ignore"):
            width = high - low
        if not np.isfinite(width):
            raise UnusableImageError(path, "has a range of intensity too wide for its numbers")
        return (np.clip(values, low, high) - low) / width

    def _resize(self, array: np.ndarray) -> np.ndarray:
        tensor = torch.as_tensor(np.ascontiguousarray(array, dtype=np.float32))[None]
        shape = tuple(tensor.shape[2:])
        # Averaging while shrinking keeps fine structure from turning into aliases; enlarging is linear.
        shrunk = tuple(min(have, want) for have, want in zip(shape, self.size, strict=True))
        if shrunk != shape:
            pool: Any = functional.adaptive_avg_pool2d if self.spatial_dims == 2 else functional.adaptive_avg_pool3d
            tensor = pool(tensor, shrunk)
        if shrunk != self.size:
            mode = "bilinear" if self.spatial_dims == 2 else "trilinear"
            tensor = functional.interpolate(tensor, size=self.size, mode=mode, align_corners=False)
        return tensor[0].numpy()

    def resized(self, size: int | Sequence[int]) -> Preprocessing:
        """The same preprocessing at another size."""
        return replace(self, size=as_size(size, self.spatial_dims))

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON and for the detector file."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Preprocessing:
        """Inverse of ``to_dict``."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
        return cls(**values)

    def describe(self) -> str:
        """One sentence for the report."""
        size = " x ".join(str(length) for length in self.size)
        steps = []
        if self.spatial_dims == 3:
            steps.append(f"turned to {self.orientation} orientation where the file states its own")
            if self.spacing is not None:
                steps.append(f"resampled to {' x '.join(f'{mm:g}' for mm in self.spacing)} mm")
        if self.channels == 1:
            steps.append("reduced to grey values")
        else:
            steps.append("kept in its colours")
        steps.append(
            f"scaled by itself so that its {self.percentiles[0]:g}th and {self.percentiles[1]:g}th percentile of "
            "intensity become 0 and 1"
        )
        steps.append(f"resized to {size} {'pixels' if self.spatial_dims == 2 else 'voxels'}")
        return "Every image of all three cohorts was " + ", ".join(steps[:-1]) + " and " + steps[-1] + "."


def as_size(size: int | Sequence[int] | None, spatial_dims: int) -> tuple[int, ...]:
    """One number for all axes, or one for each."""
    if size is None:
        return DEFAULT_SIZE[spatial_dims]
    return (int(size),) * spatial_dims if isinstance(size, int | float) else tuple(int(length) for length in size)


def guess_preprocessing(
    cohorts: Sequence[Cohort],
    size: int | Sequence[int] | None = None,
    spacing: float | Sequence[float] | None = None,
) -> Preprocessing:
    """Look at the cohorts and decide between 2D and 3D, and for pictures between grey and colour. See ``look_over``."""
    return look_over(cohorts, size, spacing)[0]


def look_over(
    cohorts: Sequence[Cohort],
    size: int | Sequence[int] | None = None,
    spacing: float | Sequence[float] | None = None,
) -> tuple[Preprocessing, Colours]:
    """Look at the cohorts and decide between 2D and 3D, and for pictures between grey and colour.

    Pictures are compared in colour where all cohorts are in colour, see ``data.colours``.

    Args:
        size: pixels or voxels per axis; 64 in 2D and 32 in 3D by default.
        spacing: mm; one number for all axes or three.

    Raises:
        CohortError: 2D and 3D images are mixed, or no image can be read.
    """
    examples: dict[int, str] = {}
    counts: dict[str, Counter[int]] = {}
    reasons: dict[str, str] = {}
    said: dict[str, tuple[int, int]] = {}
    for cohort in cohorts:
        counter: Counter[int] = Counter()
        coloured = 0
        for image in cohort.images:
            try:
                header = read_header(image)
            except UnusableImageError as error:  # named and counted when it is loaded
                reasons.setdefault(error.reason, f"{image.image_id} ({cohort.name})")
                continue
            dims = header.spatial_dims
            counter[dims] += 1
            coloured += says_colour(header)
            examples.setdefault(dims, f"{image.image_id} ({cohort.name})")
        counts[cohort.name] = counter
        said[cohort.name] = (coloured, counter.total())
    if not examples:
        causes = "; ".join(f"{name}: {reason}" for reason, name in list(reasons.items())[:3])
        sources = ", ".join(cohort.source for cohort in cohorts)
        raise CohortError(f"none of the images of {sources} can be read ({causes})")
    if len(examples) > 1:
        detail = "; ".join(
            f"{name}: " + ", ".join(f"{number} in {dims}D" for dims, number in sorted(counter.items()))
            for name, counter in counts.items()
        )
        raise CohortError(
            f"2D and 3D images are mixed ({detail}; for example {examples[2]} is 2D, {examples[3]} is 3D). "
            "An audit compares one kind: remove the others, or cut the volumes into slices."
        )
    dims = next(iter(examples))
    colours = colours_of(cohorts, said if dims == 2 else {})
    mm = None if spacing is None else (spacing,) * 3 if isinstance(spacing, int | float) else tuple(spacing)
    resampled = None if mm is None else tuple(float(value) for value in mm)
    return Preprocessing(dims, as_size(size, dims), 3 if colours.everywhere else 1, resampled), colours

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A sample of the intensities of a cohort, as they stand in its files, and where they pile up."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.loading import LUMINANCE
from monai_memo.data.reading import read_image
from monai_memo.errors import UnusableImageError
from monai_memo.progress import following

SAMPLE = 100  # images
PIXELS = 2000  # of each image
END = 0.01  # share of the scale that belongs to a heap at its end
HEAP = 0.02  # share of pixels that makes a heap
ZONE, ZONE_BINS, SCALE_BINS = 6, 3, 128  # of the scale, where the peak of a heap is looked for, and how wide it may be
SCALES = 3.0  # images whose highest values differ by more have no scale in common (MRI)


@dataclass(frozen=True)
class Intensities:
    """Intensities of a sample of a cohort's images, as they stand in the files (after the window that people named).

    Attributes:
        lowest, highest: of each image.
        values: ``(images, PIXELS)``, some pixels of each image, sorted.
    """

    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def one_scale(self) -> bool:
        """Whether the images share their unit, as in CT and in pictures; MRI scanners have units of their own."""
        spread = np.quantile(self.values[:, int(0.99 * PIXELS)] - self.values[:, int(0.01 * PIXELS)], (0.1, 0.9))
        return bool(spread[1] <= SCALES * spread[0])

    def relative(self) -> Intensities:
        """Each image on a scale of its own: its lowest and highest value become 0 and 1."""
        low, width = self.lowest[:, None], np.maximum(self.highest - self.lowest, 1e-30)[:, None]
        ones = np.ones(len(self))
        return Intensities(0 * ones, ones, (self.values - low) / width)

    @property
    def ends(self) -> tuple[float, float]:
        """Where the scale begins and ends: at its heaps, if there are some.

        What a network wrote scatters around the heaps, so that its lowest and highest values lie beyond them.
        """
        low, high = float(np.median(self.lowest)), float(np.median(self.highest))
        counts, edges = np.histogram(self.values, bins=SCALE_BINS, range=(low, max(high, low + 1e-30)))
        shares = counts / self.values.size
        found = []
        for shares_here, edges_here, end in ((shares, edges, low), (shares[::-1], edges[::-1], high)):
            peak = int(np.argmax(shares_here[:ZONE]))
            near = shares_here[max(peak - ZONE_BINS, 0) : peak + ZONE_BINS + 1].sum()
            # A heap stands out: what lies beside it is much lower.
            beside = shares_here[peak + ZONE_BINS + 1 : peak + 2 * ZONE_BINS + 2].sum()
            stands_out = peak > 0 and near >= HEAP and near > 4 * beside
            found.append(float((edges_here[peak] + edges_here[peak + 1]) / 2) if stands_out else end)
        return found[0], found[1]

    @property
    def heaps(self) -> tuple[float, float]:
        """Share of pixels at the lowest and at the highest end of the scale."""
        low, high = self.ends
        # As far beyond the heap as the values scatter on its other side.
        below = max(END * (high - low), low - float(np.median(self.lowest)))
        above = max(END * (high - low), float(np.median(self.highest)) - high)
        return float(np.mean(self.values <= low + below)), float(np.mean(self.values >= high - above))

    def describe(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        levels = (1, 50, 99)
        low, high = self.heaps
        return {
            "images": len(self),
            "lowest": float(self.lowest.min()),
            "highest": float(self.highest.max()),
            "percentiles": {str(level): float(np.percentile(self.values, level)) for level in levels},
            "one_scale": self.one_scale,
            "share_at_lowest": low,
            "share_at_highest": high,
        }


def intensities_of(array: NDArray[np.generic], window: tuple[float, float] | None = None, seed: int = 0) -> Intensities:
    """Intensities of one image ``(channels, *spatial)``: grey, or the luminance of colours.

    Raises:
        UnusableImageError: no finite number in it.
    """
    values = array[:3].astype(np.float64) if len(array) > 2 else array[:1].astype(np.float64)
    values = np.tensordot(LUMINANCE, values, axes=1).ravel() if len(values) == 3 else values.ravel()
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise UnusableImageError("image", "contains no finite number")
    if window is not None:
        values = np.clip(values, *window)
    picked = np.random.default_rng(seed).integers(0, values.size, PIXELS)
    return Intensities(np.array([values.min()]), np.array([values.max()]), np.sort(values[picked])[None])


def join(parts: Sequence[Intensities]) -> Intensities | None:
    """The samples of several images as one; None of none."""
    if not parts:
        return None
    names = ("lowest", "highest", "values")
    return Intensities(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def sample_of(cohort: Cohort, most: int = SAMPLE, seed: int = 0) -> list[CohortImage]:
    """Images of a cohort by chance, in order."""
    picked = np.random.default_rng([seed, 15]).permutation(len(cohort))[:most]
    return [cohort.images[int(place)] for place in sorted(picked)]


def _one(image: CohortImage, seed: int) -> Intensities | None:
    try:
        return intensities_of(read_image(image).array, image.reading.window, seed)
    except UnusableImageError:
        return None  # skipped by name where the images are prepared


def sample_intensities(
    cohort: Cohort, most: int = SAMPLE, seed: int = 0, workers: int | None = None, progress: bool = False
) -> Intensities | None:
    """Intensities of a sample of a cohort's images; None if none of these can be read."""
    chosen = sample_of(cohort, most, seed)
    with ThreadPoolExecutor(workers or cpu_count() or 1) as pool:
        found = pool.map(lambda item: _one(item[1], seed + item[0]), enumerate(chosen))
        shown = following(found, f"intensities of {cohort.name}", len(chosen), progress)
        return join([item for item in shown if item is not None])

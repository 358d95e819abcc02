# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Windows that only one of two cohorts went through.

A window (a pair of intensities at which an image is cut off, such as -160 to 240 HU for soft tissue) leaves heaps of
pixels at both ends of the scale. Where only one cohort has such heaps, the window is the one that gives the other
cohort the same histogram, between the heaps and in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from monai_memo.data.intensities import END, HEAP, Intensities

CUT = 0.08  # share of the other cohort's range that the window takes away at an end
BINS = 50  # of the histogram between the heaps
GRID = 120  # windows tried along each end, before the best one is refined
BETTER, GAIN = 0.6, 0.1  # of the histograms' distance, against the best window that takes nothing away
FIT, LIKELY = 0.25, 0.4  # largest distance of the histograms (0 to 2) at which the window is named, and is believed in
SATURATED, TIMES = (
    0.06,
    3.0,
)  # share of pixels at the bright end that no natural image has, and against the other cohort


@dataclass(frozen=True)
class Windowing:
    """One cohort went through a window that another one did not go through.

    Attributes:
        windowed, other: the cohorts' names.
        heaps: share of pixels at the lowest and at the highest value of the windowed cohort.
        other_heaps: the same of the other cohort.
        window: estimate in the other cohort's intensities (with ``relative``, in shares of each image's range); None
            where the histograms do not fit.
        relative: the other cohort's images have no scale in common.
    """

    windowed: str
    other: str
    heaps: tuple[float, float]
    other_heaps: tuple[float, float]
    window: tuple[float, float] | None
    relative: bool = False

    @property
    def sentence(self) -> str:
        """What was seen and what to do; without names of files."""
        mine, theirs = word_for(self.windowed), word_for(self.other)
        text = (
            f"The {mine} images pile up at their ends ({_percent(self.heaps[0])} of the pixels at the lowest, "
            f"{_percent(self.heaps[1])} at the highest value; {theirs} images: {_percent(self.other_heaps[0])} and "
            f"{_percent(self.other_heaps[1])}), the {theirs} images go on beyond: the {mine} images look windowed. "
        )
        wrong = "copies can be missed" if "synthetic" in (self.windowed, self.other) else "the threshold can be off"
        if self.window is None or self.relative:
            return text + f"Cut the intensities of both cohorts off alike before the audit; otherwise {wrong}."
        low, high = (f"{value:g}" for value in self.window)
        text += f"A window of about {low} to {high} gives the {theirs} images the same histogram"
        if self.windowed == "synthetic":
            return text + f": try --window={low},{high}. Without it {wrong}."
        return text + f": clip the {theirs} images there before the audit. Otherwise {wrong}."


def word_for(cohort: str) -> str:
    """A cohort's name in a sentence."""
    return {"heldout": "held-out"}.get(cohort, cohort)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 or share == 0 else f"{100 * share:.1f} %"


def _rounded(value: float, width: float) -> float:
    """To a number that people would have chosen: in steps of a hundredth of the window, or a little less."""
    step = 10.0 ** np.floor(np.log10(width / 40))
    return float(np.round(value / step) * step)


@dataclass(frozen=True)
class WindowFit:
    """The window that gives one cohort the histogram of another one.

    Attributes:
        low, high: in the first cohort's intensities.
        distance: of the histograms: sum of the absolute differences of their shares, those beyond the window by half.
        uncut: the smallest distance that a window which takes (nearly) nothing away reaches.
        cut: share of the first cohort's range that lies below and above the window.
    """

    low: float
    high: float
    distance: float
    uncut: float
    cut: tuple[float, float]


def fit_window(windowed: Intensities, other: Intensities) -> WindowFit:
    """The window that gives the other cohort the histogram of the windowed one.

    Peaks of tissue have to lie on one another, which is why histograms are compared and not quantiles: these depend on
    how much of each tissue a cohort shows.
    """
    low, high = windowed.ends
    ours = np.sort((windowed.values.ravel() - low) / max(high - low, 1e-30))
    theirs = np.sort(other.values.ravel())
    edges = np.linspace(END, 1 - END, BINS + 1)
    at_low, at_high = windowed.heaps
    between = np.diff(np.searchsorted(ours, edges) / len(ours))

    def distances(lows: NDArray[np.float64], highs: NDArray[np.float64]) -> NDArray[np.float64]:
        places = lows[:, None] + (highs - lows)[:, None] * edges
        shares = np.searchsorted(theirs, places.ravel()).reshape(places.shape) / len(theirs)
        inner = np.abs(gaussian_filter1d(np.diff(shares, axis=1) - between, 1.0, axis=1)).sum(axis=1)
        return np.asarray(inner + 0.5 * (np.abs(shares[:, 0] - at_low) + np.abs(1 - shares[:, -1] - at_high)))

    lowest, highest = np.quantile(theirs, (0.005, 0.995))
    reach = max(highest - lowest, 1e-30)
    step = 1.6 * reach / GRID

    def search(lows: NDArray[np.float64], highs: NDArray[np.float64], most: float) -> tuple[float, float, float]:
        """The best of the windows that take no more than this share away at an end."""
        size = step
        for _ in range(4):
            first, second = (axis.ravel() for axis in np.meshgrid(lows, highs, indexing="ij"))
            fits = (
                (second - first > 0.03 * reach) & (first <= lowest + most * reach) & (second >= highest - most * reach)
            )
            first, second = first[fits], second[fits]
            found = distances(first, second)
            best = int(found.argmin())
            size /= 6
            lows = first[best] + np.linspace(-12, 12, 17) * size
            highs = second[best] + np.linspace(-12, 12, 17) * size
        return float(first[best]), float(second[best]), float(found[best])

    start = np.linspace(lowest - 0.6 * reach, highest, GRID), np.linspace(lowest, highest + 0.6 * reach, GRID)
    start_uncut = (np.linspace(lowest - 0.5 * reach, lowest + CUT * reach, GRID // 2),
                   np.linspace(highest - CUT * reach, highest + 2 * reach, GRID // 2))  # fmt: skip
    low, high, distance = search(*start, 1.0)
    uncut = search(*start_uncut, CUT)
    if uncut[2] < distance:
        low, high, distance = uncut
    return WindowFit(low, high, distance, uncut[2], ((low - lowest) / reach, (highest - high) / reach))


def windowing(windowed: str, other: str, first: Intensities, second: Intensities) -> Windowing | None:
    """Whether the first cohort went through a window and the second did not.

    Heaps alone do not tell: air is a heap in CT and the background one in MRI. The window has to take something away,
    and without it the histograms must not fit.
    """
    relative = not second.one_scale
    first, second = (item if item.one_scale else item.relative() for item in (first, second))
    heaps, theirs = first.heaps, second.heaps
    if max(heaps) < HEAP:
        return None
    fit = fit_window(first, second)
    takes = any(heap >= HEAP and share >= CUT for heap, share in zip(heaps, fit.cut, strict=True))
    better = fit.distance <= BETTER * fit.uncut and fit.uncut - fit.distance >= GAIN
    # Where the cohorts show different things, only heaps at the bright end are a sign: few images have them by nature.
    saturated = heaps[1] >= SATURATED and heaps[1] > TIMES * theirs[1]
    if not (takes and better and fit.distance <= LIKELY) and not saturated:
        return None
    width = fit.high - fit.low
    named = takes and better and fit.distance <= FIT
    window = (_rounded(fit.low, width), _rounded(fit.high, width)) if named else None
    return Windowing(windowed, other, heaps, theirs, window, relative)


def check_windows(samples: Mapping[str, Intensities | None]) -> list[Windowing]:
    """Every pair of cohorts, in both directions."""
    found = []
    for one, other in combinations(samples, 2):
        first, second = samples[one], samples[other]
        if first is None or second is None or not len(first) or not len(second):
            continue
        for names, pair in (((one, other), (first, second)), ((other, one), (second, first))):
            result = windowing(*names, *pair)
            if result is not None:
                found.append(result)
    return found

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Are these images in colour? By what their headers say, and by their pixels: grey images often have three channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_memo.data.cohort import Cohort
from monai_memo.data.header import ImageHeader
from monai_memo.data.reading import read_image
from monai_memo.errors import UnusableImageError

SAMPLE = 24  # images of each cohort whose pixels are looked at
COLOURED = 0.02  # mean difference of the channels, as a share of the image's range, that is more than a mark in colour
MOST = 0.9  # share of the sample: a single faded picture makes no cohort grey


def says_colour(header: ImageHeader) -> bool:
    """Whether a header tells of red, green and blue."""
    return header.colour and header.channels in (3, 4)


def has_colours(array: NDArray[np.generic]) -> bool:
    """Whether ``(3 or 4, *spatial)`` has channels that differ by more than a mark or the loss of a compression."""
    values = array[:3].astype(np.float64)
    width = np.ptp(values)
    return bool(np.isfinite(width) and width > 0 and np.ptp(values, axis=0).mean() > COLOURED * width)


@dataclass(frozen=True)
class Colours:
    """What the images of several cohorts are.

    Attributes:
        said: by cohort, how many images have colours by their headers, and how many could be looked at.
        shown: by cohort, the share of a sample whose pixels have colours; empty where the headers settle it.
    """

    said: Mapping[str, tuple[int, int]]
    shown: Mapping[str, float]

    @property
    def everywhere(self) -> bool:
        """All cohorts are in colour, so that they are compared in colour."""
        return bool(self.shown) and all(share >= MOST for share in self.shown.values())

    @property
    def remark(self) -> str | None:
        """What to tell where only some are; None where all are alike."""
        if self.everywhere:
            return None
        parts = []
        for name, (coloured, number) in self.said.items():
            share = self.shown.get(name, coloured / number if number else 0.0)
            parts.append((name, "in colour" if share >= MOST else "in grey" if share <= 1 - MOST else "mixed"))
        if all(kind == "in grey" for _, kind in parts):
            return None
        told = ", ".join(f"{name} {kind}" for name, kind in parts)
        return (
            f"Not all images are in colour ({told}): all were compared in grey values. Images that differ in colour "
            "alone count as equal."
        )


def colours_of(cohorts: Sequence[Cohort], said: Mapping[str, tuple[int, int]]) -> Colours:
    """Look at the pixels of some images, where all headers tell of colours.

    Args:
        said: see ``Colours``.
    """
    if not said or any(coloured < number or number == 0 for coloured, number in said.values()):
        return Colours(said, {})
    shown = {}
    for cohort in cohorts:
        places = np.unique(np.linspace(0, len(cohort) - 1, min(SAMPLE, len(cohort))).round().astype(int))
        found = []
        for place in places:
            try:
                array = read_image(cohort.images[int(place)]).array
            except UnusableImageError:  # skipped by name when the cohort is prepared
                continue
            found.append(len(array) in (3, 4) and has_colours(array))
        shown[cohort.name] = float(np.mean(found)) if found else 0.0
    return Colours(said, shown)

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Planted copies of rising strength: up to where is a copy still found?

Copies are planted in images larger than the detector's and then go through the same scaling and shrinking as a file
that a user hands in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_memo.data.alterations import ALTERATIONS, VOLUMES_ONLY, Images
from monai_memo.data.loading import Preprocessing
from monai_memo.errors import ConfigurationError

# Strengths in the units of data.alterations, weakest first.
LADDER: dict[str, tuple[float, ...]] = {
    "flip": (0,),
    "rotation": (5, 10, 20),
    "zoom": (0.10, 0.15),
    "shift": (0.05, 0.10),
    "gamma": (0.25, 0.5),
    "contrast": (0.15, 0.3),
    "window": (0.15, 0.3),
    "blur": (0.01, 0.02, 0.03),
    "noise": (0.03, 0.08, 0.15),
    "jpeg": (70, 90),
    "resolution": (2, 4),
    "erasing": (0.10, 0.25),
    "replacement": (0.10, 0.25),
    "slice_offset": (1.0, 2.5),
    "slice_thickness": (2, 3),
}
UNITS: dict[str, str] = {
    "flip": "mirrored",
    "rotation": "degrees",
    "zoom": "of the size",
    "shift": "of the length",
    "gamma": "logarithm of the exponent",
    "contrast": "more or less contrast",
    "window": "of the intensities cut off",
    "blur": "of the length, standard deviation",
    "noise": "of the intensity range, standard deviation",
    "jpeg": "loss (100 minus quality)",
    "resolution": "times coarser",
    "erasing": "of the image erased",
    "replacement": "of the image taken from another patient",
    "slice_offset": "slices",
    "slice_thickness": "times thicker slices",
}
COMBINATION = "combination"
GROUPS = (
    ("rotation", "zoom", "shift", "flip"),
    ("gamma", "contrast", "window"),
    ("blur", "noise", "jpeg", "resolution"),
)


@dataclass(frozen=True)
class Planted:
    """A kind of planted copy at one strength."""

    kind: str
    strength: float

    @property
    def name(self) -> str:
        """For tables: ``rotation 10``."""
        return f"{self.kind} {self.strength:g}" if self.strength else self.kind


def kinds_of(spatial_dims: int) -> dict[str, tuple[float, ...]]:
    """Kinds that exist in 2D or 3D, with their strengths; a combination of three has none."""
    known = {kind: levels for kind, levels in LADDER.items() if spatial_dims == 3 or kind not in VOLUMES_ONLY}
    return {**known, COMBINATION: (0.0,)}


def chosen_levels(known: dict[str, tuple[float, ...]], kinds: Sequence[str] | None = None) -> list[Planted]:
    """All strengths of all kinds, or of some.

    Raises:
        ConfigurationError: an unknown kind, or one that does not exist in this dimension.
    """
    unknown = sorted(set(kinds or ()) - set(known))
    if unknown:
        raise ConfigurationError(f"kinds must be among {', '.join(known)}, got {', '.join(unknown)}")
    return [Planted(kind, float(level)) for kind in kinds or known for level in known[kind]]


def draws_of(planted: Planted, seed: int) -> np.random.Generator:
    """The generator of all draws of one kind and strength."""
    return np.random.default_rng([seed, *planted.kind.encode(), int(1000 * planted.strength)])


def altered(images: NDArray[np.floating], planted: Planted, seed: int) -> Images:
    """One copy of each image, at the size of the images.

    Args:
        images: ``(n, channels, *spatial)`` in [0, 1].
        seed: of all draws.
    """
    rng = draws_of(planted, seed)
    images = np.asarray(images, dtype=np.float32)
    if planted.kind != COMBINATION:
        return ALTERATIONS[planted.kind](images, rng, np.full(len(images), planted.strength))
    for group in GROUPS:
        # Each image draws its own kinds; alterations that take the others' pixels are not among them.
        picks = rng.integers(0, len(group), len(images))
        changed = images.copy()
        for number, kind in enumerate(group):
            rows = np.flatnonzero(picks == number)
            if len(rows):
                levels = rng.choice(LADDER[kind][:2], len(rows)).astype(float)
                changed[rows] = ALTERATIONS[kind](images[rows], rng, levels)
        images = changed
    return images


def as_handed_in(images: NDArray[np.floating], preprocessing: Preprocessing) -> Images:
    """Images of any size as the detector gets them: ``(n, channels, *preprocessing.size)`` in [0, 1].

    A copy of which an alteration left nothing (all that was bright erased) becomes a black image: it counts as missed.
    """
    black = np.zeros((preprocessing.channels, *preprocessing.size))
    return np.stack([preprocessing.from_array(image) if np.ptp(image) > 0 else black for image in images]).astype(
        np.float32
    )

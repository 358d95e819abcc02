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

from monai_memo.data.alterations import VOLUMES_ONLY, Images
from monai_memo.data.further_alterations import EVERY
from monai_memo.data.loading import Preprocessing
from monai_memo.errors import ConfigurationError

# Strengths in the units of data.alterations and data.further_alterations, weakest first.
LADDER: dict[str, tuple[float, ...]] = {
    "flip": (0,),
    "rotation": (5, 10, 20, 30, 45),
    "zoom": (0.10, 0.15, 0.35),
    "shift": (0.05, 0.10, 0.25),
    "gamma": (0.25, 0.5),
    "contrast": (0.15, 0.3),
    "window": (0.15, 0.3),
    "blur": (0.01, 0.02, 0.03, 0.06),
    "noise": (0.03, 0.08, 0.15, 0.3),
    "jpeg": (70, 90),
    "resolution": (2, 4),
    "erasing": (0.10, 0.25),
    "replacement": (0.10, 0.25),
    "slice_offset": (1.0, 2.5),
    "slice_thickness": (2, 3),
    "margins": (0.15, 0.25),
    "white_margins": (0.10,),
    "letterbox": (0.20,),
    "bars": (0.20,),
    "crop": (0.3, 0.4),
    "crop_corner": (0.3,),
    "turn": (90, 180),
    "upside_down": (0,),
    "transposed": (0,),
    "tilted": (20, 30),
    "front_to_back": (0,),
    "reoriented": (0,),
    "anisotropic": (0.2,),
    "shear": (0.15,),
    "perspective": (0.10, 0.15),
    "elastic": (0.03, 0.06),
    "rescanned": (0.03,),
    "speckle": (0.4, 0.8),
    "inverted": (0,),
    "grid": (0.02,),
    "text": (6,),
    "blend": (0.3, 0.5),
    "half_replaced": (0,),
    "part_kept": (0,),
    "parts_exchanged": (0,),
    "boxes": (0.5,),
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
    "margins": "of the length, black, on each side",
    "white_margins": "of the length, white, on each side",
    "letterbox": "of the height on either side, squeezed between",
    "bars": "of the height on either side covered",
    "crop": "of each axis cut off around",
    "crop_corner": "of each axis cut off at one end",
    "turn": "degrees, exactly",
    "upside_down": "mirrored upside down",
    "transposed": "axes exchanged",
    "tilted": "degrees about any axis",
    "front_to_back": "mirrored front to back",
    "reoriented": "stored along other axes",
    "anisotropic": "of one axis stretched or squeezed",
    "shear": "of the way slanted",
    "perspective": "narrower on each side of one end",
    "elastic": "of the length bent",
    "rescanned": "of the length bent, uneven light, noise",
    "speckle": "of the intensity, standard deviation",
    "inverted": "black and white exchanged",
    "grid": "of the length wide white lines",
    "text": "lines of text across",
    "blend": "of another patient mixed in",
    "half_replaced": "half is another patient",
    "part_kept": "only a quarter (in volumes an eighth) kept",
    "parts_exchanged": "quarters (in volumes eighths) exchanged",
    "boxes": "of the image taken from another patient, in boxes",
}
# Beyond what is found as a rule, so that the limit of an audit shows where copies begin to be missed. Added to LADDER.
BEYOND: dict[str, tuple[float, ...]] = {
    "zoom": (0.60,),
    "blur": (0.12,),
    "noise": (0.6,),
    "replacement": (0.75,),
    "margins": (0.38,),
    "crop": (0.7,),
    "crop_corner": (0.65,),
    "anisotropic": (0.5,),
    "perspective": (0.3,),
    "elastic": (0.12,),
    "blend": (0.85,),
}
COMBINATION = "combination"
JOINED = ("replacement", "blend", "half_replaced", "part_kept", "boxes")  # kinds that take pixels of another image
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


def levels_of_a_limit(spatial_dims: int) -> list[Planted]:
    """What an audit plants for its limit of detection: the ladder, and of some kinds more than is found as a rule."""
    kinds = {kind: (*levels, *BEYOND.get(kind, ())) for kind, levels in kinds_of(spatial_dims).items()}
    return chosen_levels(kinds)


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


def altered(
    images: NDArray[np.floating], planted: Planted, seed: int, others: NDArray[np.floating] | None = None
) -> Images:
    """One copy of each image, at the size of the images.

    Args:
        images: ``(n, channels, *spatial)`` in [0, 1].
        seed: of all draws.
        others: ``(n, channels, *spatial)`` that copies are joined with, for kinds that take pixels of another image; by
            default they take those of one another.
    """
    rng = draws_of(planted, seed)
    images = np.asarray(images, dtype=np.float32)
    if others is not None and planted.kind in JOINED:
        # Two by two: the other one of the pair is the only one that pixels can come from.
        pairs = np.stack([images, np.asarray(others, dtype=np.float32)], axis=1)
        return np.concatenate([EVERY[planted.kind](pair, rng, np.full(2, planted.strength))[:1] for pair in pairs])
    if planted.kind != COMBINATION:
        return EVERY[planted.kind](images, rng, np.full(len(images), planted.strength))
    for group in GROUPS:
        # Each image draws its own kinds; alterations that take the others' pixels are not among them.
        picks = rng.integers(0, len(group), len(images))
        changed = images.copy()
        for number, kind in enumerate(group):
            rows = np.flatnonzero(picks == number)
            if len(rows):
                levels = rng.choice(LADDER[kind][:2], len(rows)).astype(float)
                changed[rows] = EVERY[kind](images[rows], rng, levels)
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

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The planted copies of the benchmark: every kind at every strength, made at the resolution of the source.

Copies are planted in images larger than the detector's and then go through the same scaling and shrinking as a file
that a user hands in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_memo.benchmark.generator import ImageGenerator
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
GENERATED: dict[str, tuple[float, ...]] = {"round_trip": (0,), "denoising": (0.1, 0.2, 0.3, 0.5)}
GROUPS = (
    ("rotation", "zoom", "shift", "flip"),
    ("gamma", "contrast", "window"),
    ("blur", "noise", "jpeg", "resolution"),
)
COMBINATION = "combination"
APART = ((COMBINATION, 0.0), ("denoising", 0.5))  # reported, but not part of the mean


@dataclass(frozen=True)
class Planted:
    """A kind of planted copy at one strength."""

    kind: str
    strength: float

    @property
    def name(self) -> str:
        """For tables: ``rotation 10``."""
        return f"{self.kind} {self.strength:g}" if self.strength else self.kind

    @property
    def apart(self) -> bool:
        """Whether it is left out of the mean over kinds."""
        return (self.kind, self.strength) in APART


def ladder(spatial_dims: int, generated: bool, kinds: Sequence[str] | None = None) -> list[Planted]:
    """All kinds and strengths for images of this dimension.

    Args:
        generated: include the kinds that need a generator.
        kinds: only these.

    Raises:
        ConfigurationError: an unknown kind, or one that does not exist in this dimension.
    """
    known = {kind: levels for kind, levels in LADDER.items() if spatial_dims == 3 or kind not in VOLUMES_ONLY}
    known[COMBINATION] = (0.0,)
    if generated:
        known.update(GENERATED)
    unknown = sorted(set(kinds or ()) - set(known))
    if unknown:
        raise ConfigurationError(f"kinds must be among {', '.join(known)}, got {', '.join(unknown)}")
    return [Planted(kind, float(level)) for kind in kinds or known for level in known[kind]]


def plant_at_source(
    sources: NDArray[np.floating],
    planted: Planted,
    preprocessing: Preprocessing,
    seed: int,
    generator: ImageGenerator | None = None,
) -> Images:
    """Copies as the detector gets them.

    Args:
        sources: ``(n, channels, *source)`` in [0, 1], larger than or as large as the detector's images.
        preprocessing: the detector's.
        seed: of all draws.
        generator: for the kinds that need one; it works on images of the detector's size.

    Returns:
        ``(n, channels, *preprocessing.size)`` float32 in [0, 1].
    """
    rng = np.random.default_rng([seed, *planted.kind.encode(), int(1000 * planted.strength)])
    images = np.asarray(sources, dtype=np.float32)
    if planted.kind in GENERATED:
        if generator is None:
            raise ConfigurationError(f"{planted.kind} needs a generator")
        small = np.stack([preprocessing.from_array(image) for image in images])
        if planted.kind == "round_trip":
            images = generator.round_trip(small)
        else:
            images = generator.denoise_from(small, planted.strength, seed)
    elif planted.kind == COMBINATION:
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
    else:
        images = ALTERATIONS[planted.kind](images, rng, np.full(len(images), planted.strength))
    return np.stack([preprocessing.from_array(image) for image in images]).astype(np.float32)

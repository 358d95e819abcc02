# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Copies made on purpose, to see whether an audit finds them: kinds with the strengths that people and programs use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from monai_memo.data.alterations import ALTERATIONS, Images
from monai_memo.errors import ConfigurationError

Planter = Callable[[Images, np.random.Generator], Images]

# Strength of each kind, drawn uniformly; units in data.alterations.
RANGES: Mapping[str, tuple[float, float]] = {
    "flip": (0, 0),
    "rotation": (4, 12),
    "zoom": (0.08, 0.15),
    "shift": (0.03, 0.08),
    "gamma": (0.2, 0.51),
    "contrast": (0.1, 0.3),
    "window": (0.1, 0.3),
    "blur": (0.008, 0.023),
    "noise": (0.02, 0.08),
    "jpeg": (60, 90),
    "resolution": (1.5, 3.0),
    "erasing": (0.1, 0.25),
    "replacement": (0.1, 0.25),
}


def _planter(kind: str) -> Planter:
    def planter(images: Images, rng: np.random.Generator) -> Images:
        return ALTERATIONS[kind](images, rng, rng.uniform(*RANGES[kind], len(images)))

    return planter


def combination(images: Images, rng: np.random.Generator) -> Images:
    """Three kinds at once: one of place, one of intensity, one of sharpness."""
    for group in (("rotation", "zoom", "shift", "flip"), ("gamma", "contrast", "window"), ("blur", "noise", "jpeg")):
        images = KINDS[group[int(rng.integers(len(group)))]](images, rng)
    return images


KINDS: Mapping[str, Planter] = {**{kind: _planter(kind) for kind in RANGES}, "combination": combination}
MIXTURE = tuple(RANGES)


def plant(images: NDArray[np.floating], kind: str, seed: int) -> Images:
    """One copy of each image.

    Args:
        images: ``(n, channels, *spatial)`` in [0, 1], 2D or 3D.
        kind: a name in ``KINDS``.
        seed: of all draws.

    Raises:
        ConfigurationError: unknown kind or images of another shape.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if images.ndim not in (4, 5):
        raise ConfigurationError(f"images must have shape (n, channels, *spatial) in 2D or 3D, got {images.shape}")
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    return KINDS[kind](np.asarray(images, dtype=np.float32), rng).astype(np.float32)


def plant_mixture(
    images: NDArray[np.floating], seed: int, kinds: Sequence[str] | None = None
) -> tuple[Images, list[str]]:
    """One copy of each image, the kinds taking turns in a random order.

    Args:
        kinds: names in ``KINDS``; all but ``combination`` by default.

    Returns:
        The copies, and the kind of each.
    """
    chosen = list(kinds or MIXTURE)
    turns = np.random.default_rng([seed, 101]).permutation(np.resize(np.arange(len(chosen)), len(images)))
    result = np.empty(images.shape, dtype=np.float32)
    for number, kind in enumerate(chosen):
        rows = np.flatnonzero(turns == number)
        if kind == "replacement" and len(rows) == 1:
            # The other image is borrowed from the rest.
            other = (rows[0] + 1) % len(images)
            result[rows] = plant(images[[rows[0], other]], kind, seed)[:1] if len(images) > 1 else images[rows]
        elif len(rows):
            result[rows] = plant(images[rows], kind, seed)
    return result, [chosen[turn] for turn in turns]

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What the phantoms are drawn with: coordinates, soft shapes, smooth noise, the randomness of persons and visits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.float32]


def grid(size: Sequence[int]) -> list[NDArray[np.float64]]:
    """Coordinates from -1 to 1 along each axis."""
    return list(np.meshgrid(*(np.linspace(-1, 1, length) for length in size), indexing="ij"))


def texture(size: Sequence[int], smooth: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth noise with standard deviation 1; ``smooth`` in shares of the length."""
    noise = ndimage.gaussian_filter(rng.standard_normal(size), [smooth * length for length in size], mode="wrap")
    return np.asarray((noise - noise.mean()) / noise.std())


def soft(inside: NDArray[np.float64], edge: float = 0.06) -> NDArray[np.float64]:
    """1 inside (negative values), 0 outside, with a soft edge."""
    return np.asarray(1 / (1 + np.exp(np.clip(inside / edge, -40, 40))))


def posed(
    axes: list[NDArray[np.float64]], rng: np.random.Generator, turn: float, move: float
) -> list[NDArray[np.float64]]:
    """Turn and shift the coordinates a little, as patients never lie the same way."""
    angle = rng.normal(0, turn)
    first, second, *rest = axes
    turned = [np.cos(angle) * first - np.sin(angle) * second, np.sin(angle) * first + np.cos(angle) * second, *rest]
    return [axis + rng.normal(0, move) for axis in turned]


def rngs(patient: int, visit: int, kind: int) -> tuple[np.random.Generator, np.random.Generator]:
    """Randomness of the person, and of the visit (pose and noise)."""
    return np.random.default_rng([kind, patient]), np.random.default_rng([kind, patient, visit + 1])


def finish(image: NDArray[np.float64], rng: np.random.Generator, noise: float) -> Volume:
    image = image + noise * rng.standard_normal(image.shape)
    return np.clip(image, 0, 1).astype(np.float32)[None]

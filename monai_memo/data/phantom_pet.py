# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""PET of nobody: blobs of uptake, blurred by the scanner, with the noise of counts; slices and volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_memo.data.phantom_shapes import Volume, grid, posed, rngs, soft, texture

SLICE_KIND, VOLUME_KIND = 5, 6  # of the phantoms, for their seeds
POINT_SPREAD = 0.014  # of the length, standard deviation: in a field of 60 cm 20 mm at half height, a coarse scanner
FILTER = 0.010  # of the length: what reconstructions are smoothed with
COUNTS = 60.0  # in a voxel of uptake 1, in 32 voxels a length
WHITE = 3.0  # uptake that is shown white
Field = NDArray[np.float64]


def counted(
    activity: Field, rng: np.random.Generator, counts: float = COUNTS, spread: float = POINT_SPREAD,
    smooth: float = FILTER,
) -> Field:  # fmt: skip
    """What a scanner measures of an activity: blurred by its point spread, counted, smoothed.

    Args:
        counts: expected in a voxel of activity 1.
        spread, smooth: standard deviations in shares of the length of each axis, before and after counting.

    Returns:
        activity; its noise is Poisson's, so that the variance rises with the activity.
    """
    blurred = ndimage.gaussian_filter(activity, [spread * length for length in activity.shape])
    measured = rng.poisson(blurred.clip(0) * counts) / counts
    return np.asarray(ndimage.gaussian_filter(measured, [smooth * length for length in activity.shape]))


def _ellipsoid(
    axes: Sequence[Field], middle: Sequence[float], radii: Sequence[float] | Field, edge: float = 0.1
) -> Field:
    inside = sum(((axis - m) / r) ** 2 for axis, m, r in zip(axes, middle, radii, strict=True)) - 1
    return soft(np.asarray(inside), edge)


def _uptake(x: Field, y: Field, z: Field, person: np.random.Generator) -> Field:
    """Activity at places from -1 to 1 (right to left, back to front, feet to head): trunk and head of a person."""
    axes = (x, y, z)

    def near(value: float, spread: float) -> float:
        return float(person.normal(value, spread))

    wide, thick, waist = near(0.60, 0.05), near(0.55, 0.05), near(0.1, 0.04)
    narrowed = wide * (1 - waist * np.exp(-(((z + near(0.25, 0.05)) / 0.25) ** 2)) - 0.35 * soft(0.5 - z, 0.07))
    trunk = soft((np.abs(x) / narrowed) ** 4 + (np.abs(y) / thick) ** 4 + soft(0.62 - z, 0.03) * 9 - 1, 0.12)
    head = _ellipsoid(axes, (0, near(0, 0.03), near(0.80, 0.02)), (0.22, 0.3, 0.24))
    neck = _ellipsoid(axes, (0, 0, 0.62), (0.14, 0.2, 0.2))
    image = near(0.5, 0.06) * np.maximum(np.maximum(trunk, head), neck)
    lungs = sum(
        _ellipsoid(axes, (side * near(0.3, 0.02), near(0, 0.03), near(0.32, 0.04)), (0.2, 0.4, near(0.27, 0.03)))
        for side in (-1, 1)
    )
    image = image * (1 - 0.6 * np.asarray(lungs).clip(0, 1))
    organs = [  # middle, radii, uptake
        ((0, near(0.02, 0.03), near(0.82, 0.02)), (near(0.17, 0.01), 0.24, near(0.17, 0.01)), near(5.5, 0.6)),  # brain
        ((near(-0.28, 0.03), 0.1, near(-0.05, 0.04)), (near(0.27, 0.03), 0.34, near(0.17, 0.02)), near(1.3, 0.15)),
        ((near(0.36, 0.03), -0.15, near(-0.02, 0.04)), (0.12, 0.16, near(0.13, 0.02)), near(0.9, 0.1)),  # spleen
        ((near(0.0, 0.03), 0.25, near(-0.80, 0.03)), (near(0.15, 0.03), 0.2, near(0.11, 0.02)), near(6.5, 1.5)),
    ]
    for side in (-1, 1):
        kidney = (side * near(0.32, 0.03), near(-0.18, 0.04), near(-0.30, 0.05))
        organs.append((kidney, (near(0.085, 0.01), 0.1, near(0.13, 0.015)), near(3.5, 0.8)))
    for middle, radii, uptake in organs:
        image = image + uptake * _ellipsoid(axes, middle, radii, 0.2)
    heart = (near(0.12, 0.03), near(0.15, 0.05), near(0.22, 0.03))
    muscle = sum(((axis - m) / r) ** 2 for axis, m, r in zip(axes, heart, (0.16, 0.2, 0.14), strict=True))
    image = image + abs(near(2.0, 1.2)) * np.exp(-(((np.asarray(muscle) - 0.7) / 0.4) ** 2))  # some hearts are dark
    for _ in range(int(person.integers(4, 9))):  # bowel
        middle = (person.uniform(-0.4, 0.4), person.uniform(-0.1, 0.3), person.uniform(-0.7, -0.25))
        image += person.uniform(0.3, 1.6) * _ellipsoid(axes, middle, person.uniform(0.07, 0.16, 3), 0.4)
    for _ in range(int(person.integers(1, 8))):  # lesions
        middle = (person.uniform(-0.45, 0.45), person.uniform(-0.3, 0.3), person.uniform(-0.7, 0.6))
        image += person.uniform(1.5, 6) * _ellipsoid(axes, middle, person.uniform(0.05, 0.1, 3), 0.4)
    return np.asarray(image)


def pet_phantom(patient: int, size: Sequence[int] = (64, 64), visit: int = 0) -> Volume:
    """A frontal slice of a PET of sorts, from the head to the bladder.

    Returns:
        ``(1, rows, columns)`` in [0, 1], the head up.
    """
    person, exam = rngs(patient, visit, SLICE_KIND)
    down, across = posed(grid(size), exam, turn=0.02, move=0.015)
    depth = np.full(across.shape, person.normal(0.05, 0.03) + exam.normal(0, 0.01))
    image = _uptake(across, depth, -down, person) * _uneven(patient, SLICE_KIND, size)
    return _shown(image, exam)


def pet_volume_phantom(patient: int, size: Sequence[int] = (32, 32, 32), visit: int = 0) -> Volume:
    """A PET volume of sorts, from the head to the bladder.

    Returns:
        ``(1, x, y, z)`` in [0, 1]; z runs from the bladder up to the head.
    """
    person, exam = rngs(patient, visit, VOLUME_KIND)
    x, y, z = posed(grid(size), exam, turn=0.03, move=0.02)
    return _shown(_uptake(x, y, z, person) * _uneven(patient, VOLUME_KIND, size), exam)


def _uneven(patient: int, kind: int, size: Sequence[int]) -> Field:
    """Tissue of a person takes up unevenly; drawn apart, so that proportions do not depend on the size."""
    return 1 + 0.15 * texture(size, 0.04, np.random.default_rng([kind, patient, 0]))


def _shown(activity: Field, exam: np.random.Generator) -> Volume:
    """Measured, with the dose of the day, and scaled to what is shown."""
    dose = float(np.exp(exam.normal(0, 0.1)))
    # A slice is a scanner's voxel thick, however fine its pixels are: finer ones have fewer counts.
    counts = COUNTS * dose * np.prod([32 / length for length in activity.shape[:2]])
    return np.asarray((counted(activity, exam, counts) / WHITE).clip(0, 1), dtype=np.float32)[None]

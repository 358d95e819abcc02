# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The ways in which a volume is looked at before it is looked up: how a copy may have been turned, cropped or zoomed.

All of it in coordinates of a box, from -1 to 1 along each axis (last axis first), whatever the lengths of its sides: a
volume that was stored along other axes and brought to the same shape fills its box as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, permutations, product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

NEAR, CROPPED, TURNED, REORIENTED = range(4)
FAMILIES = 4
DIMS = 3
# Size of what a query shows beside its original, steps of shifts to either side, and the largest shift.
SIZES = ((0.62, 1, 0.13), (0.72, 1, 0.13), (0.86, 1, 0.13), (1.0, 1, 0.2))
CROPS = ((1.15, 1, 0.13), (1.3, 2, 0.24), (1.45, 2, 0.31), (1.65, 2, 0.4))
STRETCHES = (0.6, 0.8, 1.25, 1.67)  # of one axis
TURNS, AXES = (13.0, 23.0, 33.0), 60  # degrees, and axes that volumes are turned about
MOVE = 0.2  # of reoriented volumes
OTHER_SIZES = (0.75, 1.33)  # of reoriented volumes
Matrix = NDArray[np.float64]
UPRIGHT = (np.eye(DIMS), np.diag([1.0, 1.0, -1.0]))  # as it lies, and mirrored along the first axis
NOWHERE = np.zeros(DIMS)
Version = tuple[int, float, Matrix, Matrix]  # family, size, matrix and shift


@dataclass(frozen=True)
class Versions:
    """Ways of looking at a volume, ordered by family and size.

    Attributes:
        thetas: ``(v, 3, 4)`` which point of the query a point of the version shows.
        sizes: how many versions follow one another with which size of what the query shows, beside the original.
        families: how many there are of ``NEAR``, ``CROPPED``, ``TURNED`` and ``REORIENTED``. Those of a family are
            compared with each other alone, since little of a volume agrees by chance more easily than all of it.
    """

    thetas: Tensor
    sizes: tuple[tuple[float, int], ...]
    families: tuple[int, ...]


def versions(shape: Sequence[int]) -> Versions:
    """All of them.

    Args:
        shape: spatial shape of the volumes, which are turned as they are and not as boxes.
    """
    unit = np.array(shape[::-1]) / max(shape)
    moves = [NOWHERE, *(way * MOVE * axis for axis in np.eye(DIMS) for way in (-1, 1))]
    every = sorted([*_upright(), *_turned(unit), *_reoriented(moves)], key=lambda version: version[:2])
    thetas = np.stack([np.column_stack([linear, shift]) for _, _, linear, shift in every])
    return Versions(
        torch.from_numpy(thetas.astype(np.float32)),
        tuple((size, len(list(some))) for (_, size), some in groupby(every, key=lambda version: version[:2])),
        tuple(sum(version[0] == family for version in every) for family in range(FAMILIES)),
    )


def _steps(count: int, most: float) -> list[Matrix]:
    """Shifts along all axes."""
    return [np.array(step) * most / count for step in product(range(-count, count + 1), repeat=DIMS)]


def _upright() -> list[Version]:
    found: list[Version] = []
    for size, count, most in (*SIZES, *CROPS):
        family = NEAR if size <= 1 else CROPPED
        found += [
            (family, size, size * side, -size * (side @ shift)) for side in UPRIGHT for shift in _steps(count, most)
        ]
    for axis, size in product(range(DIMS), STRETCHES):
        stretch = np.where(np.arange(DIMS) == axis, size, 1.0)
        found += [(NEAR, 1.0, np.diag(stretch) @ side, NOWHERE) for side in UPRIGHT]
    return found


def _axes() -> Matrix:
    """``(axes, 3)`` directions all over the sphere, on a spiral (Fibonacci)."""
    number = np.arange(AXES)
    height, angle = 1 - (2 * number + 1) / AXES, np.pi * (3 - 5**0.5) * number
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)


def _turned(unit: Matrix) -> list[Version]:
    found: list[Version] = []
    for side, degrees, axis in product(UPRIGHT, TURNS, _axes()):
        turn = Rotation.from_rotvec(np.radians(degrees) * axis).as_matrix()
        found.append((TURNED, 1.0, turn * unit[None, :] / unit[:, None] @ side, NOWHERE))
    return found


def _reoriented(moves: Sequence[Matrix]) -> list[Version]:
    """All 48 symmetries of a cube, without those that leave it upright."""
    found: list[Version] = []
    for order, signs in product(permutations(range(DIMS)), product((1.0, -1.0), repeat=DIMS)):
        symmetry = np.diag(signs)[list(order)]
        if any(np.array_equal(symmetry, side) for side in UPRIGHT):
            continue
        found += [(REORIENTED, 1.0, symmetry, move) for move in moves]
        found += [(REORIENTED, size, size * symmetry, NOWHERE) for size in OTHER_SIZES]
    return found

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The ways in which a volume is looked at before it is looked up: what a copy may have been turned, cropped or zoomed by.

All of it in coordinates of a box, from -1 to 1 along each axis (last axis first), whatever the lengths of its sides: a
volume that was stored along other axes and brought to the same shape fills its box as before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations, product

import torch
from torch import Tensor

from monai_memo.registration.affine import mirror

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
Version = tuple[int, float, Tensor, Tensor]


@dataclass(frozen=True)
class Versions:
    """Ways of looking at a volume, ordered by family and size.

    Attributes:
        thetas: ``(v, 3, 4)`` which point of the query a point of the version shows.
        sizes: ``(v,)`` of what the query shows, beside the original.
        families: ``(v,)`` one of ``NEAR``, ``CROPPED``, ``TURNED``, ``REORIENTED``: those of a family are compared with
            each other alone, since little of a volume agrees by chance more easily than all of it.
    """

    thetas: Tensor
    sizes: Tensor
    families: Tensor

    def __len__(self) -> int:
        return len(self.thetas)


def _steps(count: int, most: float) -> list[Tensor]:
    """Shifts along all axes."""
    return [torch.tensor(step) * most / count for step in product(range(-count, count + 1), repeat=DIMS)]


def _axes() -> list[tuple[float, float, float]]:
    """Directions all over the sphere, on a spiral (Fibonacci)."""
    found = []
    for number in range(AXES):
        height, angle = 1 - (2 * number + 1) / AXES, math.pi * (3 - 5**0.5) * number
        radius = (1 - height**2) ** 0.5
        found.append((radius * math.cos(angle), radius * math.sin(angle), height))
    return found


def _turn(axis: tuple[float, float, float], degrees: float) -> Tensor:
    """``(3, 3)`` rotation about an axis of length 1 (Rodrigues)."""
    x, y, z = axis
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    angle = math.radians(degrees)
    turned = torch.eye(DIMS, dtype=torch.float64) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    return turned.float()


def _symmetries() -> list[Tensor]:
    """All 48 of a cube."""
    return [
        torch.diag(torch.tensor(signs, dtype=torch.float32))[list(order)]
        for order in permutations(range(DIMS))
        for signs in product((1, -1), repeat=DIMS)
    ]


def _upright(sides: list[Tensor]) -> list[Version]:
    found: list[Version] = []
    for size, count, most in (*SIZES, *CROPS):
        family = NEAR if size <= 1 else CROPPED
        found += [
            (family, size, size * side, -size * (side @ shift)) for side in sides for shift in _steps(count, most)
        ]
    for axis, size in product(range(DIMS), STRETCHES):
        stretch = torch.ones(DIMS)
        stretch[axis] = size
        found += [(NEAR, 1.0, torch.diag(stretch) @ side, torch.zeros(DIMS)) for side in sides]
    return found


def _turned(sides: list[Tensor], unit: Tensor) -> list[Version]:
    return [
        (TURNED, 1.0, _turn(axis, degrees) * unit / unit[:, None] @ side, torch.zeros(DIMS))
        for side, degrees, axis in product(sides, TURNS, _axes())
    ]


def _reoriented(sides: list[Tensor], moves: list[Tensor]) -> list[Version]:
    found: list[Version] = []
    for symmetry in _symmetries():
        if any(torch.equal(symmetry, side) for side in sides):
            continue
        found += [(REORIENTED, 1.0, symmetry, move) for move in moves]
        found += [(REORIENTED, size, size * symmetry, moves[0]) for size in OTHER_SIZES]
    return found


def versions(unit: Tensor) -> Versions:
    """All of them.

    Args:
        unit: ``(3,)`` lengths of the axes, last axis first: volumes are turned as they are, not as boxes.
    """
    sides = [torch.eye(DIMS), mirror(DIMS)]
    moves = [torch.zeros(DIMS), *(way * MOVE * axis for axis in torch.eye(DIMS) for way in (-1, 1))]
    every = [*_upright(sides), *_turned(sides, unit), *_reoriented(sides, moves)]
    every.sort(key=lambda version: version[:2])
    return Versions(
        torch.stack([torch.cat([linear, shift[:, None]], dim=1) for _, _, linear, shift in every]),
        torch.tensor([size for _, size, _, _ in every]),
        torch.tensor([family for family, _, _, _ in every]),
    )

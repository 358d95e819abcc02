# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Planes of a volume for people: upright, named, and where they tell most about a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PLANES = ("sagittal", "coronal", "axial")
# Top, bottom, left and right of each plane of a volume in RAS order, as ``planes_at`` lays it.
ENDS = (("S", "I", "P", "A"), ("S", "I", "L", "R"), ("A", "P", "L", "R"))
CONTENT = 0.5  # share of the structure of the richest slice from which on a slice can be shown
AGREES, DIFFERS = "agrees", "differs"


@dataclass(frozen=True)
class Plane:
    """One plane of a volume.

    Attributes:
        axis: that it leaves out, 0 to 2.
        place: slice along this axis, from 0.
        of: slices along it.
        shows: ``"agrees"``, ``"differs"``, or empty for the middle.
    """

    axis: int
    place: int
    of: int
    shows: str = ""

    @property
    def name(self) -> str:
        """``"sagittal"``, ``"coronal"`` or ``"axial"``, of a volume in RAS order."""
        return PLANES[self.axis]

    @property
    def ends(self) -> tuple[str, ...]:
        """Letters of its top, bottom, left and right."""
        return ENDS[self.axis]


def planes_at(volume: NDArray[np.float32], planes: Sequence[Plane]) -> NDArray[np.float32]:
    """``(x, y, z)`` to ``(planes, rows, columns)``, each upright and all of the same size."""
    found = [np.rot90(np.take(volume, plane.place, axis=plane.axis)) for plane in planes]
    rows, columns = (max(plane.shape[axis] for plane in found) for axis in (0, 1))
    padded = np.zeros((len(found), rows, columns), dtype=np.float32)
    for number, plane in enumerate(found):
        top, left = (rows - plane.shape[0]) // 2, (columns - plane.shape[1]) // 2
        padded[number, top : top + plane.shape[0], left : left + plane.shape[1]] = plane
    return padded


def central_planes(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(x, y, z)`` to the three planes through its middle, each upright and of the same size."""
    return planes_at(volume, [Plane(axis, length // 2, length) for axis, length in enumerate(volume.shape)])


def telling_planes(
    synthetic: NDArray[np.float32], training: NDArray[np.float32], agreement: NDArray[np.float32] | None = None
) -> tuple[Plane, ...]:
    """Of each direction the slice where a pair agrees most, then of each the one where it differs most.

    Slices that hold little of the images are passed over: two empty ones agree, whatever is between them.

    Args:
        synthetic, training: ``(x, y, z)`` in [0, 1], the training image brought to the synthetic one.
        agreement: ``(x, y, z)`` local agreement, -1 to 1, 0 where nothing was compared; by default slices are
            correlated.
    """
    apart = np.abs(synthetic - training)
    agree, differ = [], []
    for axis, length in enumerate(synthetic.shape):
        others = tuple(other for other in range(3) if other != axis)
        structure = np.minimum(synthetic.std(axis=others), training.std(axis=others))
        empty = structure < CONTENT * structure.max()
        alike = _correlations(synthetic, training, axis) if agreement is None else _means(agreement, others)
        agree.append(Plane(axis, int(np.where(empty, -np.inf, alike).argmax()), length, AGREES))
        differ.append(Plane(axis, int(np.where(empty, -np.inf, apart.mean(axis=others)).argmax()), length, DIFFERS))
    return (*agree, *differ)


def _means(agreement: NDArray[np.float32], others: tuple[int, ...]) -> NDArray[np.float64]:
    """Mean of each slice over the places that were compared."""
    seen = (agreement != 0).sum(axis=others)
    return np.asarray(agreement.sum(axis=others) / np.maximum(seen, 1), dtype=np.float64)


def _correlations(first: NDArray[np.float32], second: NDArray[np.float32], axis: int) -> NDArray[np.float64]:
    """Pearson correlation of each slice of one volume with that of the other; 0 where one is constant."""
    a, b = (np.moveaxis(volume, axis, 0).reshape(volume.shape[axis], -1) for volume in (first, second))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.where(lengths > 0, lengths, np.inf), dtype=np.float64)

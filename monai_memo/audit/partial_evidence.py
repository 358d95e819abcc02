# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Copies in part, shown in place: the region outlined in the synthetic and in the training image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.audit.evidence import SHOWN_SIZE
from monai_memo.audit.parts import PartialMatch
from monai_memo.audit.slices import Plane
from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import Preprocessing
from monai_memo.errors import UnusableImageError
from monai_memo.registration.affine import warp

Box = NDArray[np.float64]  # (dims, 2) first and last pixel edge along each axis


@dataclass(frozen=True)
class PartialEvidence:
    """One copy in part.

    Attributes:
        match: names, score and region.
        synthetic, training: ``(*spatial)`` each as it is, in colour ``(rows, columns, 3)``.
        brought: the training image brought to lie on the synthetic one; black where it ends.
        corners: ``(2 ** dims, dims)`` of the region in the training image, in pixels, in the order of ``corners_of``.
    """

    match: PartialMatch
    synthetic: NDArray[np.float32]
    training: NDArray[np.float32]
    brought: NDArray[np.float32]
    corners: NDArray[np.float64]

    @property
    def box(self) -> Box:
        """The region in the synthetic image, in pixels."""
        return np.array(self.match.region) * np.array(self.synthetic.shape)[: len(self.match.region), None]


def corners_of(box: Box) -> NDArray[np.float64]:
    """All corners of a box, the last axis changing fastest."""
    return np.array(list(product(*box)), dtype=np.float64)


def brought_to_training(points: NDArray[np.float64], transform: Sequence[Sequence[float]], shape: Sequence[int]) -> Box:
    """Places of a synthetic image in the training image, both in pixels, first axis first.

    Args:
        points: ``(n, dims)``.
        transform: see ``registration.affine``.

    Example:
        >>> brought_to_training(np.array([[0.0, 32.0]]), [[1, 0, 0.5], [0, 1, 0.25]], (64, 64)).tolist()
        [[8.0, 48.0]]
    """
    lengths, matrix = np.array(shape, dtype=np.float64), np.array(transform, dtype=np.float64)
    longest = lengths.max()
    centred = (points - lengths / 2)[:, ::-1] * 2 / longest
    moved = centred @ matrix[:, :-1].T + matrix[:, -1]
    found: Box = moved[:, ::-1] * longest / 2 + lengths / 2
    return found


def partial_evidence(
    match: PartialMatch, synthetic: NDArray[np.float32], training: NDArray[np.float32]
) -> PartialEvidence:
    """Evidence for one match, of images of the same shape ``(channels, *spatial)`` in [0, 1]."""
    if len(synthetic) != 3 or synthetic.ndim != 3:
        synthetic, training = (image.mean(axis=0, keepdims=True) for image in (synthetic, training))
    theta = torch.tensor([match.transform], dtype=torch.float32)
    warped, inside = warp(torch.from_numpy(np.ascontiguousarray(training, dtype=np.float32))[None], theta)
    shape = synthetic.shape[1:]
    box = np.array(match.region) * np.array(shape)[:, None]
    corners = brought_to_training(corners_of(box), match.transform, shape)
    brought = _as_shown((warped * inside)[0].numpy())
    return PartialEvidence(match, _as_shown(synthetic), _as_shown(training), brought, corners)


def _as_shown(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(channels, *spatial)`` to ``(*spatial)``, or in colour ``(rows, columns, 3)``."""
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)


def collect_partial_evidence(
    matches: Sequence[PartialMatch], synthetic: Cohort, training: Cohort, preprocessing: Preprocessing
) -> list[PartialEvidence]:
    """Load the pairs again, at a size for people. A file that has become unreadable is left out."""
    shown = preprocessing.resized(SHOWN_SIZE[preprocessing.spatial_dims])
    pictures = {image.image_id: image for image in synthetic.images}
    originals = {image.image_id: image for image in training.images}
    evidence = []
    for match in matches:
        try:
            pair = shown(pictures[match.synthetic]), shown(originals[match.training])
        except UnusableImageError:
            continue
        evidence.append(partial_evidence(match, *pair))
    return evidence


Outlined = tuple[NDArray[np.float32], Plane | None, str]  # picture, plane of a volume, corners of the region in it


def _plane(image: NDArray[np.float32], centre: Sequence[float], axis: int) -> tuple[NDArray[np.float32], Plane | None]:
    """The plane through a point, upright; a picture is its own plane (axis -1)."""
    if axis < 0:
        return image, None
    plane = Plane(axis, int(np.clip(centre[axis], 0, image.shape[axis] - 1)), image.shape[axis])
    return np.rot90(np.take(image, plane.place, axis=axis)), plane


def _outline(corners: NDArray[np.float64], axis: int, shape: Sequence[int]) -> str:
    """Corners of a region in a picture, around, as ``x,y`` in pixels.

    Args:
        shape: of the whole image.
    """
    kept = [other for other in range(corners.shape[1]) if other != axis]
    # Both faces across the plane, averaged: where the plane through the middle cuts a box, turned a little or not.
    face = corners if axis < 0 else corners.reshape(2, 2, 2, 3).mean(axis=axis).reshape(4, 3)
    around = face[[0, 1, 3, 2]][:, kept]
    # A plane of a volume stands upright: its first axis runs to the right, its second one up.
    places = around[:, ::-1] if axis < 0 else np.stack([around[:, 0], shape[kept[1]] - around[:, 1]], axis=1)
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def outlined(pair: PartialEvidence) -> list[tuple[Outlined, Outlined, Outlined, Outlined]]:
    """Synthetic image and training image with the region outlined, and the region alone from both; in 3D by plane."""
    box, corners = pair.box, pair.corners
    shape = pair.synthetic.shape[: len(box)]
    middle, there, own = box.mean(axis=1), corners.mean(axis=0), corners_of(box)
    cut = tuple(slice(int(np.floor(low)), int(np.ceil(high))) for low, high in box)
    inside = [place - begin.start for place, begin in zip(middle, cut, strict=True)]
    rows = []
    for axis in (-1,) if len(box) == 2 else range(3):
        rows.append((
            (*_plane(pair.synthetic, middle, axis), _outline(own, axis, shape)),
            (*_plane(pair.training, there, axis), _outline(corners, axis, shape)),
            (*_plane(pair.synthetic[cut], inside, axis), ""),
            (*_plane(pair.brought[cut], inside, axis), ""),
        ))  # fmt: skip
    return rows

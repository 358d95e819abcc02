# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Copies in part, shown in place: the region outlined in the synthetic and in the training image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy.typing import NDArray

from monai_memo.audit.evidence import PLANES, SHOWN_SIZE
from monai_memo.audit.parts import PartialMatch
from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import Preprocessing
from monai_memo.errors import UnusableImageError
from monai_memo.registration.affine import warp

OUTLINE = "#D55E00"
Box = NDArray[np.float64]  # (dims, 2) first and last pixel edge along each axis


@dataclass(frozen=True)
class PartialEvidence:
    """One copy in part.

    Attributes:
        match: names, score and region.
        synthetic, training: ``(*spatial)`` each as it is.
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
        return np.array(self.match.region) * np.array(self.synthetic.shape)[:, None]


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
    first, second = synthetic.mean(axis=0), training.mean(axis=0)
    theta = torch.tensor([match.transform], dtype=torch.float32)
    warped, inside = warp(torch.from_numpy(np.ascontiguousarray(second, dtype=np.float32))[None, None], theta)
    box = np.array(match.region) * np.array(first.shape)[:, None]
    corners = brought_to_training(corners_of(box), match.transform, first.shape)
    return PartialEvidence(match, first, second, (warped * inside)[0, 0].numpy(), corners)


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


def _planes(image: NDArray[np.float32], centre: Sequence[float]) -> list[tuple[NDArray[np.float32], int]]:
    """The planes through a point, with the axis that each leaves out; a picture is its own plane (-1)."""
    if image.ndim == 2:
        return [(image, -1)]
    places = [int(np.clip(place, 0, length - 1)) for place, length in zip(centre, image.shape, strict=True)]
    return [(np.take(image, places[axis], axis=axis), axis) for axis in range(3)]


def _outline(corners: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """``(4, 2)`` columns and rows of the outline in a plane, around."""
    kept = [other for other in range(corners.shape[1]) if other != axis]
    if axis < 0:
        face = corners
    else:
        # Both faces across the plane, averaged: where the plane through the middle cuts a box, turned a little or not.
        grid = corners.reshape(2, 2, 2, 3)
        face = grid.mean(axis=axis).reshape(4, 3)
    around = face[[0, 1, 3, 2]][:, kept]
    return np.asarray(around[:, ::-1] - 0.5)


def partial_figure(pair: PartialEvidence) -> Figure:
    """Synthetic image and training image with the region outlined, and the region alone from both; in 3D by plane."""
    box, corners = pair.box, pair.corners
    middle, there = box.mean(axis=1), corners.mean(axis=0)
    rows = list(zip(
        _planes(pair.synthetic, middle), _planes(pair.training, there), _planes(pair.brought, middle), strict=True
    ))  # fmt: skip
    figure = Figure(figsize=(8.8, 2.3 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 4, squeeze=False)
    own = corners_of(box)
    for row, ((first, axis), (second, _), (brought, _)) in enumerate(rows):
        kept = [other for other in range(len(box)) if other != axis]
        cut = tuple(slice(int(np.floor(box[k, 0])), int(np.ceil(box[k, 1]))) for k in kept)
        for place, picture in enumerate((first, second, first[cut], brought[cut])):
            shown = axes[row, place]
            shown.imshow(picture, cmap="gray", vmin=0, vmax=1)
            shown.set_xticks([])
            shown.set_yticks([])
            for spine in shown.spines.values():
                spine.set_visible(False)
        for place, outline in enumerate((own, corners)):
            axes[row, place].add_patch(Polygon(_outline(outline, axis), closed=True, fill=False, ec=OUTLINE, lw=2))
        if axis >= 0:
            axes[row, 0].set_ylabel(PLANES[axis], fontsize=8)
    return figure

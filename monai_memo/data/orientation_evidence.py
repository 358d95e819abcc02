# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How well images fit a reference cohort as stored and turned by every symmetry: the numbers behind the check.

Two things are measured on small versions of the images. A linear rule for each symmetry, learnt from the reference
cohort, tells upright images from turned ones (discriminant of the differences between an image and its turned self,
with a strongly regularised covariance); and each image is correlated with the reference image nearest to it. Both are
measured on the reference cohort itself as well, every patient judged by the others: this says how sure the answer is
and which symmetries its anatomy does not tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from monai_memo.data.orientation import Symmetry, symmetries
from monai_memo.files import rows_at_once

LENGTH = {2: 32, 3: 12}  # pixels or voxels per axis of the small versions
MOST_REFERENCE = {2: 300, 3: 150}  # reference images that are judged by the others
MOST_OTHERS = {2: 400, 3: 150}
MOST_GALLERY = {2: 4000, 3: 2000}
MOST_VALUES = 2e8  # of all reference images that are looked at: bounds the reading of large images
FOLDS = 5
NOTHING = 1e-6
Floats = NDArray[np.float32]


def sampled(n: int, most: int, seed: int) -> NDArray[np.int64]:
    """Random positions, sorted; all if there are no more."""
    return np.sort(np.random.default_rng([seed, 19]).permutation(n)[:most])


def small_versions(pixels: NDArray[np.floating], chosen: NDArray[np.int64], length: int) -> Floats:
    """``(n, values)`` of images at this length per axis, each of mean 0 and length 1."""
    dims = pixels.ndim - 2
    pool: Any = functional.adaptive_avg_pool2d if dims == 2 else functional.adaptive_avg_pool3d
    small = []
    step = rows_at_once(pixels.shape[1:])
    for start in range(0, len(chosen), step):
        images = np.asarray(pixels[chosen[start : start + step]], dtype=np.float32)
        tensor = torch.from_numpy(images).mean(dim=1, keepdim=True)
        small.append(pool(tensor, (length,) * dims).flatten(1).numpy())
    values = np.concatenate(small)
    values -= values.mean(axis=1, keepdims=True)
    whole: Floats = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), NOTHING)
    return whole


class Group:
    """All symmetries of small versions, as orders of their values, and which follows from two of them.

    Attributes:
        members: the identity first.
        orders: ``(symmetries, values)``.
        product: ``product[second, first]`` is the number of ``second`` after ``first``.
        inverse: number of each one's inverse.
    """

    def __init__(self, dims: int, length: int) -> None:
        self.members: tuple[Symmetry, ...] = symmetries(dims)
        grid = np.arange(length**dims).reshape((length,) * dims)
        self.orders = np.stack([one(grid).ravel() for one in self.members])
        number = {one: place for place, one in enumerate(self.members)}
        self.product = np.array([[number[second.after(first)] for first in self.members] for second in self.members])
        self.inverse = np.array([number[one.inverse()] for one in self.members])

    def __len__(self) -> int:
        return len(self.members)


def nearest(
    images: Floats, gallery: Floats, group: Group, barred: NDArray[np.bool_] | None = None
) -> tuple[Floats, NDArray[np.int64]]:
    """``(symmetries, n)``: correlation of each turned image with the gallery image nearest to it, and which that is.

    Args:
        barred: ``(n, gallery)`` pairs that are passed over.
    """
    result = np.empty((len(group), len(images)), dtype=np.float32)
    places = np.empty(result.shape, dtype=np.int64)
    for place, order in enumerate(group.orders):
        similarity = images[:, order] @ gallery.T
        if barred is not None:
            similarity[barred] = -1
        places[place] = similarity.argmax(axis=1)
        result[place] = np.take_along_axis(similarity, places[place][:, None], axis=1)[:, 0]
    return result, places


def discriminants(images: Floats, group: Group) -> Floats:
    """``(symmetries, values)``: for each symmetry, weights under which upright images lie above turned ones."""
    result = np.zeros((len(group), images.shape[1]), dtype=np.float32)
    for place in range(1, len(group)):
        change = images - images[:, group.orders[place]]
        mean = change.mean(axis=0)
        centred = change - mean
        inner = (centred @ centred.T / len(images)).astype(np.float64)
        ridge = max(float(np.trace(inner)) / len(images), NOTHING)
        solved = np.linalg.solve(inner + ridge * np.eye(len(images)), (centred @ mean).astype(np.float64))
        result[place] = (mean - centred.T @ (solved / len(images)).astype(np.float32)) / ridge
    return result


def by_rule(images: Floats, weights: Floats, group: Group) -> Floats:
    """``(h, g, n)``: how much more upright an image turned by g looks when it is turned by h as well, by the rules."""
    looks = np.stack([images[:, order] @ weights.T for order in group.orders])  # g, image, h
    return np.stack([looks[group.product[h], :, h] - looks[:, :, h] for h in range(len(group))])


def by_nearest(similarity: Floats, group: Group) -> Floats:
    """The same by the nearest reference image."""
    return np.stack([similarity[group.product[h]] - similarity for h in range(len(group))])


def patient_folds(patients: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """A number for each image, the same for all of a patient."""
    shuffled = np.random.default_rng([seed, 23]).permutation(int(patients.max()) + 1)
    return shuffled[patients] % FOLDS


@dataclass(frozen=True)
class Fit:
    """How the images of one cohort fit the reference cohort.

    Attributes:
        gains: ``(h, g, n)``: how much better an image turned by g fits when it is turned by h as well; log likelihood
            ratios as of normal distributions. ``gains[:, 0]`` is about the images as stored.
        nearest: ``(symmetries, n)`` correlation with the nearest reference image.
        mean: ``(values,)`` of the cohort's mean image.
        spread: how different the images are from one another, 0 to 1.
    """

    gains: Floats
    nearest: Floats
    mean: Floats
    spread: float

    def __len__(self) -> int:
        return self.nearest.shape[1]


@dataclass(frozen=True)
class Fits:
    """A reference cohort judged by itself, and another cohort judged by it.

    Attributes:
        places: position in the other cohort of each of its images that were looked at.
        partners: ``(symmetries, n)`` position in the reference cohort of the image nearest to each of them.
    """

    group: Group
    reference: Fit
    other: Fit
    places: NDArray[np.int64]
    partners: NDArray[np.int64]

    def mean_correlation(self, place: int) -> float:
        """Of the mean images, the other one turned."""
        turned, mean = self.other.mean[self.group.orders[place]], self.reference.mean
        return float(turned @ mean / max(float(np.linalg.norm(turned) * np.linalg.norm(mean)), NOTHING))


def measure(
    reference: NDArray[np.floating],
    patient_ids: Sequence[str],
    other: NDArray[np.floating],
    seed: int = 0,
) -> Fits | None:
    """Both cohorts under all symmetries.

    Args:
        reference, other: ``(n, channels, *spatial)``, prepared alike.
        patient_ids: of the reference cohort.
        seed: of the samples.

    Returns:
        None where the reference cohort has too few patients to be judged by itself.
    """
    dims = reference.ndim - 2
    length = min(LENGTH[dims], *reference.shape[2:])
    group = Group(dims, length)
    values = int(np.prod(reference.shape[1:]))
    most = min(MOST_GALLERY[dims], max(MOST_REFERENCE[dims], int(MOST_VALUES / values)))
    chosen = sampled(len(reference), most, seed)
    patients = np.unique(np.asarray(patient_ids)[chosen], return_inverse=True)[1].astype(np.int64)
    if patients.max() + 1 < FOLDS:
        return None
    gallery = small_versions(reference, chosen, length)
    own = sampled(len(gallery), MOST_REFERENCE[dims], seed + 1)
    judged, of = gallery[own], patients[own]
    similarity, _ = nearest(judged, gallery, group, of[:, None] == patients[None])
    rules = np.zeros((len(group), len(group), len(own)), dtype=np.float32)
    folds = patient_folds(of, seed)
    for fold in np.unique(folds):
        inside = folds == fold
        rules[:, :, inside] = by_rule(judged[inside], discriminants(judged[~inside], group), group)
    places = sampled(len(other), MOST_OTHERS[dims], seed + 2)
    images = small_versions(other, places, length)
    other_similarity, partners = nearest(images, gallery, group)
    kinds = [
        (rules, by_rule(images, discriminants(judged, group), group)),
        (by_nearest(similarity, group), by_nearest(other_similarity, group)),
    ]
    gains = [np.zeros_like(kinds[0][which]) for which in (0, 1)]
    for kind in kinds:
        upright = kind[0][:, 0]
        weight = 2 * np.maximum(-np.median(upright, axis=1), 0) / np.maximum(upright.var(axis=1), NOTHING**2)
        for which in (0, 1):
            gains[which] += weight[:, None, None].astype(np.float32) * kind[which]
    own_fit, other_fit = (
        Fit(gain, found, whole.mean(axis=0), float(1 - np.square(whole.mean(axis=0)).sum()))
        for gain, found, whole in zip(gains, (similarity, other_similarity), (judged, images), strict=True)
    )
    return Fits(group, own_fit, other_fit, places, chosen[partners])

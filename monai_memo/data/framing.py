# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Were images of other proportions cut or padded? Whole images are compared, and a copy that was cut does not match.

Generators need images of one shape. Real images of another shape are squeezed to it, cut about the centre, or padded.
What was squeezed fits as it is, because every image is resized to the detector's shape. Which of the three was done is
told by the mean image: the real images, treated in each of the three ways, against the synthetic ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_memo.data.cohort import Cohort
from monai_memo.data.intensities import sample_of
from monai_memo.data.loading import Preprocessing
from monai_memo.data.reading import read_header
from monai_memo.data.windows import word_for
from monai_memo.errors import UnusableImageError

ASPECT = 1.05  # ratio of the proportions from which a cut is worth asking about
SAMPLE = 60  # images of each cohort
FEWEST = 8  # with fewer images means say little
CLEAR = 0.02  # of correlation, by which another way has to fit better than squeezing
ALIKE = 0.5  # correlation of the mean images; below it they lie otherwise or show something else, and nothing is told
LONGEST = {2: 256, 3: 64}  # pixels or voxels per axis that are kept in memory
VOTES = 0.6  # share of the synthetic images that have to agree
Array = NDArray[np.floating]
WORDS = {"cut": "cut about their centre", "padded": "padded"}


@dataclass(frozen=True)
class Framing:
    """A cohort whose images seem to be cut or padded.

    Attributes:
        reference, other: the cohorts' names.
        way: ``"cut"`` or ``"padded"``.
        correlations: of the other cohort's mean image with that of the reference, by ``"squeezed"``, ``"cut"``,
            ``"padded"``.
        shapes: median shapes of both cohorts, after turning them.
    """

    reference: str
    other: str
    way: str
    correlations: dict[str, float]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def sentence(self) -> str:
        """What was seen and what to do; without names of files."""
        real, made = word_for(self.reference), word_for(self.other)
        one, two = (" x ".join(map(str, shape)) for shape in self.shapes)
        return (
            f"The {real} images measure {one}, the {made} images {two} (medians), and the {made} images fit the {real} "
            f"images better when these are {WORDS[self.way]} to the same proportions (correlation of the mean images "
            f"{self.correlations[self.way]:.2f}) than when they are squeezed ({self.correlations['squeezed']:.2f}), as "
            f"they are here: the {made} images seem to be {WORDS[self.way]}. Prepare the real images in the same way "
            "before the audit, or copies are missed."
        )


def box(shape: Sequence[float], proportions: Sequence[float] | Array, inside: bool) -> Array:
    """Lengths of the largest box of these proportions in an image, or the smallest around it, by the image's own."""
    ratio = np.array(shape, dtype=float) / np.array(proportions, dtype=float)
    return (ratio.min() if inside else ratio.max()) / ratio


def cut(image: Array, shares: Array) -> Array:
    """The part about the centre of ``(channels, *spatial)`` that has these shares of its lengths."""
    size = [max(round(length * float(share)), 1) for length, share in zip(image.shape[1:], shares, strict=True)]
    starts = [(length - part) // 2 for length, part in zip(image.shape[1:], size, strict=True)]
    return image[(slice(None), *(slice(start, start + part) for start, part in zip(starts, size, strict=True)))]


def padded(image: Array, shares: Array) -> Array:
    """``(channels, *spatial)`` with as much black around it as gives it these multiples of its lengths."""
    missing = [round(length * float(share - 1)) for length, share in zip(image.shape[1:], shares, strict=True)]
    sides = [(number // 2, number - number // 2) for number in missing]
    return np.pad(image, [(0, 0), *sides], constant_values=image.min())


@dataclass(frozen=True)
class _Sample:
    """Images turned and scaled, shrunk to lengths that fit in memory; their shapes before."""

    images: list[Array]
    shapes: list[tuple[int, ...]]

    @classmethod
    def of(cls, cohort: Cohort, preprocessing: Preprocessing, seed: int) -> _Sample:
        images: list[Array] = []
        shapes: list[tuple[int, ...]] = []
        for image in sample_of(cohort, SAMPLE, seed):
            try:
                found = preprocessing.unsized(image)[0]
            except UnusableImageError:
                continue  # skipped by name where the images are prepared
            shapes.append(found.shape[1:])
            most = LONGEST[preprocessing.spatial_dims]
            images.append(preprocessing.resized([min(max(length, 8), most) for length in shapes[-1]]).sized(found))
        return cls(images, shapes)

    def rows(self, preprocessing: Preprocessing, change: Callable[[Array, tuple[int, ...]], Array]) -> Array:
        """Grey images of the detector's size as rows of mean 0 and length 1."""
        changed = (change(image, shape) for image, shape in zip(self.images, self.shapes, strict=True))
        rows = np.stack([preprocessing.sized(image).mean(axis=0).ravel() for image in changed])
        rows = rows - rows.mean(axis=1, keepdims=True)
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _unlike(shapes: Sequence[Sequence[float]], proportions: Array) -> bool:
    """Whether most shapes have other proportions."""
    ratios = np.array(shapes, dtype=float) / proportions
    return bool(np.median(ratios.max(axis=1) / ratios.min(axis=1)) >= ASPECT)


def _said(cohort: Cohort, seed: int) -> list[list[int]]:
    """Lengths that a sample of the headers tells, longest first: reading these takes no time."""
    found = []
    for image in sample_of(cohort, SAMPLE, seed):
        try:
            found.append(sorted(read_header(image).shape, reverse=True))
        except UnusableImageError:
            continue
    return found


def compare_framing(reference: Cohort, other: Cohort, preprocessing: Preprocessing, seed: int = 0) -> Framing | None:
    """Whether the other cohort's images are cut or padded, where the cohorts have other proportions.

    Args:
        reference: the training cohort, as it was found.
        other: the synthetic cohort.
        preprocessing: as in the audit.
        seed: of the samples that are read.

    Returns:
        None where the proportions agree, squeezing fits as well, no way fits, or there are too few images to tell.
    """
    if preprocessing.spacing is None:
        said = [_said(cohort, seed) for cohort in (reference, other)]
        if not all(said) or not _unlike(said[0], np.median(said[1], axis=0)):
            return None
    real, made = (_Sample.of(cohort, preprocessing, seed) for cohort in (reference, other))
    if min(len(real.images), len(made.images)) < FEWEST:
        return None
    one, two = (np.median(sample.shapes, axis=0) for sample in (real, made))
    if not _unlike(real.shapes, two):
        return None
    ways: dict[str, Callable[[Array, tuple[int, ...]], Array]] = {
        "squeezed": lambda image, shape: image,
        "cut": lambda image, shape: cut(image, box(shape, two, True)),
        "padded": lambda image, shape: padded(image, box(shape, two, False)),
    }
    rows = made.rows(preprocessing, ways["squeezed"])
    means = {way: real.rows(preprocessing, change).mean(axis=0) for way, change in ways.items()}
    fits = {way: rows @ (mean / max(float(np.linalg.norm(mean)), 1e-12)) for way, mean in means.items()}
    whole = rows.mean(axis=0)
    found = {
        way: float(whole @ mean / max(float(np.linalg.norm(whole) * np.linalg.norm(mean)), 1e-12))
        for way, mean in means.items()
    }
    best = max(found, key=lambda way: found[way])
    agree = float(np.mean(fits[best] > fits["squeezed"]))
    if best == "squeezed" or found[best] < ALIKE or found[best] < found["squeezed"] + CLEAR or agree < VOTES:
        return None
    shapes = tuple(tuple(int(length) for length in shape) for shape in (one, two))
    return Framing(reference.name, other.name, best, found, (shapes[0], shapes[1]))

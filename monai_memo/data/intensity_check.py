# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The check of intensities between cohorts: a window that only one went through, and negatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from monai_memo.data.cohort import Cohort
from monai_memo.data.intensities import SAMPLE, Intensities, sample_intensities
from monai_memo.data.orientation import Symmetry, name_of, symmetries, words_for
from monai_memo.data.prepared import PreparedCohort
from monai_memo.data.windows import check_windows, word_for

CLEAR = 0.3  # correlation with the mean image from which an image is like it, or like its negative
MARGIN = 0.1  # by which the negative fits better than every turned image
FEW, SHARE = 2, 0.1  # images of a cohort that have to look like negatives


@dataclass(frozen=True)
class Negatives:
    """Images of a cohort that look like photographic negatives of another cohort.

    Attributes:
        reference, other: the cohorts' names.
        found, of: how many of the sample.
        correlation: median of these images with the mean image of the reference; below 0.
        turn: what most of them need besides, so that they lie like the reference; None if nothing.
    """

    reference: str
    other: str
    found: int
    of: int
    correlation: float
    turn: Symmetry | None = None

    @property
    def sentence(self) -> str:
        """What was seen and what to do; without names of files."""
        turned = f" {words_for(self.turn)}" if self.turn else ""
        further = ""
        if self.turn and self.other == "synthetic":
            further = f", and name --orientation {name_of(self.turn)}"
        elif self.turn:
            further = " and turn them"
        return (
            f"{self.found} of {self.of} {word_for(self.other)} images look like negatives of the "
            f"{word_for(self.reference)} images{turned} (correlation {self.correlation:.2f} with their mean image): "
            f"bright and dark are exchanged. Invert them before the audit{further}, or copies are missed."
        )


def _standardised(pixels: NDArray[np.floating]) -> NDArray[np.float32]:
    """Grey images as rows of mean 0 and length 1."""
    rows = np.asarray(pixels, dtype=np.float32).mean(axis=1).reshape(len(pixels), -1)
    rows -= rows.mean(axis=1, keepdims=True)
    lengths: NDArray[np.float32] = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return rows / lengths


def _some(pixels: NDArray[np.floating], most: int, seed: int) -> NDArray[np.floating]:
    picked = np.sort(np.random.default_rng([seed, 16]).permutation(len(pixels))[:most])
    return pixels[picked]


def find_negatives(
    names: tuple[str, str],
    reference: NDArray[np.floating],
    other: NDArray[np.floating],
    most: int = SAMPLE,
    seed: int = 0,
) -> Negatives | None:
    """Negatives among the images of another cohort.

    Args:
        names: of the reference and of the other cohort.
        reference, other: ``(n, channels, *spatial)`` in [0, 1], as prepared for the detector.

    Returns:
        None where there are none, or where the images of the reference have so little in common that it cannot be told.
    """
    mine = _standardised(_some(reference, most, seed))
    mean = mine.mean(axis=0)
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        return None
    mean /= length
    own = mine @ mean
    if float(np.median(own)) < CLEAR:
        return None
    spatial = reference.shape[2:]
    turns = [turn for turn in symmetries(len(spatial)) if turn(mean.reshape(spatial)).shape == spatial]
    views = np.stack([turn(mean.reshape(spatial)).ravel() for turn in turns]).T
    found, chance = _standardised(_some(other, most, seed)) @ views, _are_negative(mine @ views).mean()
    negative = _are_negative(found)
    n_negative = int(negative.sum())
    if n_negative < min(FEW, len(found)) or negative.mean() < SHARE or chance > negative.mean() / 3:
        return None
    lying = np.bincount(found[negative].argmin(axis=1), minlength=len(turns))
    usual = int(lying.argmax())
    turn = turns[usual].inverse() if usual and 2 * lying[usual] > n_negative else None
    return Negatives(*names, n_negative, len(found), float(np.median(found[negative].min(axis=1))), turn)


def _are_negative(found: NDArray[np.floating]) -> NDArray[np.bool_]:
    """``(n,)`` by the correlation with every turned mean image, ``(n, turns)``.

    An image that is turned correlates negatively as well, where dark lies on bright, but positively with another turn.
    """
    lowest: NDArray[np.floating] = found.min(axis=1)
    return (lowest < -CLEAR) & (-lowest > found.max(axis=1) + MARGIN)


@dataclass(frozen=True)
class IntensityFindings:
    """Sentences without names of files.

    Attributes:
        warnings: all that a person has to see.
        concerns: those of them because of which finding no copies says little.
    """

    warnings: list[str]
    concerns: list[str]


def check_intensities(
    samples: Mapping[str, Intensities | None], prepared: Mapping[str, PreparedCohort], seed: int = 0
) -> IntensityFindings:
    """Windows and negatives.

    Args:
        samples: of each cohort, as read.
        prepared: the same cohorts in the same order, the training cohort first.
    """
    found, concerns = [windowing.sentence for windowing in check_windows(samples)], []
    for one, other in combinations(prepared, 2):
        if "training" in (one, other):
            negatives = find_negatives((one, other), prepared[one].pixels, prepared[other].pixels, seed=seed)
            found += [negatives.sentence] if negatives else []
            concerns += [negatives.sentence] if negatives and {one, other} == {"training", "synthetic"} else []
    return IntensityFindings(found, concerns)


def intensity_findings(
    cohorts: Mapping[str, Cohort], prepared: Mapping[str, PreparedCohort], seed: int = 0, workers: int | None = None
) -> IntensityFindings:
    """``check_intensities`` for cohorts whose files have not been looked at yet: a sample of each is read."""
    samples = {name: sample_intensities(cohort, SAMPLE, seed, workers) for name, cohort in cohorts.items()}
    return check_intensities(samples, prepared, seed)

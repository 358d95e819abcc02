# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Patients who are near to many of the synthetic images, because these look like everybody and not because of a copy.

Samples near the mean of many patients have the same few patients nearest to them. Whether such a patient stands among
the training or among the held-out patients is one draw that moves all samples at once, so that a threshold from
held-out patients says little about training patients. So what a patient shows to one in seven samples (``SHARE``) is no
evidence for any one of them: it is taken off the similarity of every sample to that patient, as far as it is above what
samples show with their third nearest image (after the local scaling of Conneau et al., ICLR 2018). The same is done in
every gallery that the samples are looked up in; held-out images that pose as samples keep what they have.

A patient who is copied in fewer samples loses nothing by these copies, and no more than ``MOST`` is ever taken off:
look-alikes are that far above a threshold at most, most copies further. Weak copies of one patient in many samples are
not told from look-alikes: audits keep the similarity before (``audit.comparison.Found``) and tell of such images.
"""

from __future__ import annotations

import math

import numpy as np

from monai_memo.statistics.similarities import NOT_COMPARED, Floats, Integers, fisher

SHARE, FEWEST = 0.15, 5  # of the samples, and how many of them at least
FEWEST_PATIENTS = 20  # of a gallery: among fewer everybody is near to many samples
THIRD = 2  # column of the third nearest image
MOST = 0.25  # on Fisher's scale


def usual_nearness(similarity: Floats) -> float:
    """What samples show with their third nearest image, in the middle; on Fisher's scale.

    Where that was not compared, the least similar one that was stands for it.
    """
    third = similarity[:, : THIRD + 1]
    return float(np.median(fisher(np.where(third > NOT_COMPARED, third, np.inf).min(axis=1))))


def without_hubs(images: Integers, similarity: Floats, patients: Integers, usual: float | None = None) -> Floats:
    """Similarities of samples, lowered where a patient is near to many of them: no longer best first.

    Args:
        images: ``(n, k)`` candidates of each sample in a gallery, -1 where there are no more.
        similarity: ``(n, k)``, best first.
        patients: of the images of the gallery.
        usual: ``usual_nearness`` of the samples in the gallery of training images; by default in this one.

    Example:
        >>> near = np.tile([0.9, 0.8, 0.7], (20, 1))
        >>> without_hubs(np.tile([0, 1, 2], (20, 1)), near, np.arange(20))[0].round(2).tolist()
        [0.84, 0.7, 0.7]
    """
    if len(np.unique(patients)) < FEWEST_PATIENTS:
        return similarity
    wanted = max(FEWEST, math.ceil(SHARE * len(similarity)))
    rows, columns = np.nonzero((images >= 0) & (similarity > NOT_COMPARED))
    whose, values = patients[images[rows, columns]], fisher(similarity[rows, columns])
    order = np.lexsort((-values, rows, whose))
    _, first = np.unique(np.stack([whose[order], rows[order]]), axis=1, return_index=True)
    best = order[first]  # of each patient's images, the one most similar to a sample
    best = best[np.lexsort((-values[best], whose[best]))]
    codes, start, count = np.unique(whose[best], return_index=True, return_counts=True)
    near = count >= wanted
    if not near.any():
        return similarity
    usual = usual_nearness(similarity) if usual is None else usual
    off = np.zeros(len(codes))
    off[near] = np.clip(values[best[start[near] + wanted - 1]] - usual, 0, MOST)
    taken = off[np.searchsorted(codes, whose)]
    lowered = similarity.copy()
    lowered[rows, columns] = np.where(taken > 0, np.tanh(values - taken), similarity[rows, columns])
    return lowered


def best_without_hubs(
    images: Integers, similarity: Floats, patients: Integers, usual: float | None = None
) -> tuple[Integers, Floats]:
    """Candidates and their similarities as ``without_hubs`` leaves them, best first."""
    lowered = without_hubs(images, similarity, patients, usual)
    order = np.argsort(-lowered, axis=1, kind="stable")
    return np.take_along_axis(images, order, axis=1), np.take_along_axis(lowered, order, axis=1)

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Find pairs: by the hash of the pixels, and by the search of an audit among all images but the one itself."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_memo.data.cohort import CohortImage
from monai_memo.data.reading import read_image
from monai_memo.errors import UnusableImageError
from monai_memo.progress import Progress
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.gallery import Gallery
from monai_memo.search.local_features import LocalFeatureRetriever
from monai_memo.search.runner import Runner
from monai_memo.search.shape_retriever import ShapeRetriever
from monai_memo.statistics.outstanding import Outstanding, outstanding_threshold


@dataclass(frozen=True)
class Near:
    """Near-duplicates.

    Attributes:
        pairs: positions and similarity, most similar first.
        other: threshold between images of different patients; None with too few images.
        same: threshold between different images of one patient; None where ``other`` serves for these too.
    """

    pairs: tuple[tuple[int, int, float], ...]
    other: Outstanding | None
    same: Outstanding | None


def pixel_hash(image: CohortImage) -> str | None:
    """Hash of an image's values as read, whatever the file's format and tags; None where it cannot be read."""
    try:
        array = read_image(image).array
    except UnusableImageError:
        return None
    values = np.ascontiguousarray(array, dtype=np.float64)
    return hashlib.sha256(repr(array.shape).encode() + values.tobytes()).hexdigest()


def equal_pixels(images: Sequence[CohortImage], progress: bool = True) -> list[list[int]]:
    """Positions of images with equal pixels, each group in order."""
    found: dict[str, list[int]] = defaultdict(list)
    with Progress(len(images), "compare pixels", shown=progress) as bar:
        for place, image in enumerate(images):
            value = pixel_hash(image)
            if value is not None:
                found[value].append(place)
            bar.update(1)
    return [places for places in found.values() if len(places) > 1]


def near_duplicates(
    pixels: NDArray[np.floating],
    patients: Sequence[str],
    runner: Runner,
    quantile: float = 0.99,
    store: Path | None = None,
) -> Near:
    """Look each image up among all others.

    The nearest image of *another* patient sets the threshold: the quantile of these similarities, without those that
    stand out (see ``statistics.outstanding``), since a patient can stand under two names. Different images of one
    patient resemble each other more than that, and have a threshold of their own where there are 20 such images.

    Args:
        pixels: ``(n, channels, *spatial)`` in [0, 1]; of images with equal pixels one only.
        patients: of each image.
        store: file that keeps what is done.
    """
    n = len(pixels)
    alone = np.arange(n, dtype=np.int64)
    search = CopySearch([ShapeRetriever(), LocalFeatureRetriever()])
    search.fit(Gallery(pixels, alone), runner)
    found = search.search(pixels, store, alone)  # passes over the image itself
    codes = np.unique(np.asarray(patients), return_inverse=True)[1]
    there = found.candidates >= 0
    theirs = codes[np.maximum(found.candidates, 0)] == codes[:, None]
    others = np.where(there & ~theirs, found.similarity, -1.0).max(axis=1)
    own = np.where(there & theirs, found.similarity, -1.0).max(axis=1)
    other = outstanding_threshold(others[others > -1], quantile)
    same = outstanding_threshold(own[own > -1], quantile)
    if other is None:
        return Near((), None, None)
    if same is not None and same.threshold < other.threshold:
        same = None
    limits = np.where(theirs, other.threshold if same is None else same.threshold, other.threshold)
    best: dict[tuple[int, int], float] = {}
    for query, rank in zip(*np.nonzero(there & (found.similarity > limits)), strict=True):
        key = tuple(sorted((int(query), int(found.candidates[query, rank]))))
        pair = (key[0], key[1])
        best[pair] = max(best.get(pair, -1.0), float(found.similarity[query, rank]))
    pairs = sorted(((one, two, value) for (one, two), value in best.items()), key=lambda pair: -pair[2])
    return Near(tuple(pairs), other, same)

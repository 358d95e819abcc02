# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Likeness of whole images where they lie, for copies whose detail was drawn anew.

A diffusion model that starts from a training image keeps the layout and redraws the detail that a comparison place by
place rests on. Then the plain squared error says more. It is judged by the query's errors to further training images,
as by Carlini et al. (Extracting Training Data from Diffusion Models, USENIX Security 2023), because smooth, average
images are near to many patients; and by the errors of the training image to those of other patients, because one in a
crowd is near to many queries (speaker recognition normalises its scores by both sides for the same reason). Medians, so
that an image that stands twice in the cohort, which is copied first of all, is not taken for one in a crowd.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.registration.coarse import resized

LENGTH = {2: 64, 3: 32}
BACKGROUND = 10  # training images that a query's likeness is judged by, the nearest one not among them
CROWD = 5  # training images of other patients that a training image is judged by
WEIGHT = 0.4  # of the median log error to either
SMALLEST_ERROR = 1e-6
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Likeness:
    """The nearest training image of ``n`` queries.

    Attributes:
        nearest: ``(n,)`` index of the training image.
        value: ``(n,)`` its likeness, unbounded, higher is more alike.
        background: ``(n,)`` what was subtracted for the query's further neighbours.
    """

    nearest: NDArray[np.int64]
    value: NDArray[np.float64]
    background: NDArray[np.float64]


class WholeImages:
    """All training images and their mirror images, searched by squared error (FAISS, exact).

    Args:
        blocks: ``(n, 1, *spatial)`` blocks of the training cohort, in order, in [0, 1].
        shape: spatial shape of the images.
        patients: a number for each training image's patient, for ``likeness(own=...)``.
    """

    def __init__(self, blocks: Iterable[Tensor], shape: Sequence[int], patients: NDArray[np.int64]) -> None:
        self.dims = len(shape)
        self.shape = tuple(min(length, LENGTH[self.dims]) for length in shape)
        vectors = np.concatenate([self.vectors(block) for block in blocks])
        self.training, self.patients = vectors, patients
        self.index = faiss.IndexFlatL2(vectors.shape[1])
        self.index.add(vectors)
        self.index.add(self.mirrored(vectors))
        self._crowds = np.full(len(vectors), np.nan)

    def __len__(self) -> int:
        return len(self.training)

    def vectors(self, images: Tensor) -> Vectors:
        """``(n, 1, *spatial)`` to ``(n, values)``, scaled so that distances are mean squared errors."""
        flat = resized(images, self.shape).flatten(1).numpy().astype(np.float32)
        return np.ascontiguousarray(flat / np.sqrt(flat.shape[1]))

    def mirrored(self, vectors: Vectors) -> Vectors:
        """Left and right exchanged: the last axis in 2D, the first in 3D, as in ``alignment``."""
        images = vectors.reshape(-1, *self.shape)
        return np.ascontiguousarray(np.flip(images, -1 if self.dims == 2 else 1)).reshape(vectors.shape)

    def likeness(self, vectors: Vectors, own: NDArray[np.int64] | None = None) -> Likeness:
        """The nearest training image of each query.

        Args:
            vectors: of the queries.
            own: ``(n,)`` the patient of each query, whose images are passed over.
        """
        excluded = None if own is None else own[:, None]
        logs, places = self._neighbours(vectors, BACKGROUND, excluded)
        values = logs[:, :CROWD] - self._crowding(places[:, :CROWD], own)
        best = values.argmax(axis=1)
        rows = np.arange(len(vectors))
        further = np.ones_like(places, dtype=bool)
        further[rows, best] = False
        background = WEIGHT * np.median(logs[further].reshape(len(vectors), -1), axis=1)
        return Likeness(places[rows, best], values[rows, best] - background, background)

    def _neighbours(
        self, vectors: Vectors, count: int, excluded: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The nearest training images, mirror images among them: minus log squared error and index, ``(n, count)``.

        Args:
            excluded: ``(n, patients)`` whose images are passed over (they come last in tiny cohorts).
        """
        most = 0 if excluded is None else 2 * excluded.shape[1] * int(np.bincount(self.patients).max())
        errors, places = self.index.search(vectors, min(count + most, self.index.ntotal))
        places = places.astype(np.int64) % len(self)
        logs = -np.log(np.maximum(errors, SMALLEST_ERROR)).astype(np.float64)
        if excluded is not None:
            barred = (self.patients[places][:, :, None] == excluded[:, None, :]).any(axis=2)
            order = np.argsort(barred, axis=1, kind="stable")  # allowed ones first, nearest first
            logs, places = np.take_along_axis(logs, order, axis=1), np.take_along_axis(places, order, axis=1)
        return logs[:, :count], places[:, :count]

    def _crowding(self, candidates: NDArray[np.int64], own: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """What is subtracted for other patients' images near to the candidates, ``(n, r)`` like these.

        Args:
            own: ``(n,)`` the patient of each query, who is no other patient either.
        """
        if own is not None:
            pairs, back = np.unique(
                np.stack([candidates, np.broadcast_to(own[:, None], candidates.shape)], axis=2).reshape(-1, 2),
                axis=0, return_inverse=True,
            )  # fmt: skip
            excluded = np.stack([self.patients[pairs[:, 0]], pairs[:, 1]], axis=1)
            logs, _ = self._neighbours(self.training[pairs[:, 0]], CROWD, excluded)
            crowding: NDArray[np.float64] = WEIGHT * np.median(logs, axis=1)
            return crowding[back.reshape(candidates.shape)]
        unknown = np.unique(candidates[np.isnan(self._crowds[candidates])])
        if len(unknown):
            logs, _ = self._neighbours(self.training[unknown], CROWD, self.patients[unknown][:, None])
            self._crowds[unknown] = WEIGHT * np.median(logs, axis=1)
        return self._crowds[candidates]

    def of_candidates(
        self, vectors: Vectors, candidates: NDArray[np.int64], background: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Likeness of chosen training images.

        Args:
            vectors: ``(n, values)`` of the queries.
            candidates: ``(n, r)`` indices; those below 0 are no candidates.
            background: ``(n,)`` of ``likeness``.

        Returns:
            ``(n, r)``; minus infinity where there is no candidate.
        """
        result = np.full(candidates.shape, -np.inf)
        for column in range(candidates.shape[1]):
            rows = np.flatnonzero(candidates[:, column] >= 0)
            others = self.training[candidates[rows, column]]
            errors = [((vectors[rows] - side) ** 2).sum(axis=1) for side in (others, self.mirrored(others))]
            logs = -np.log(np.maximum(np.minimum(*errors), SMALLEST_ERROR))
            result[rows, column] = logs - background[rows] - self._crowding(candidates[rows, column])
        return result


@dataclass(frozen=True)
class CommonScale:
    """Brings likeness to the scale of the place-by-place similarity, so that equal values are equally rare.

    Both are measured on training images that are looked up among the other patients' ones: held-out images stay
    unused, so that thresholds and p-values that come from them remain valid.

    Attributes:
        likeness, similarity: median and 90th percentile of each; similarity on Fisher's scale.
    """

    likeness: tuple[float, float]
    similarity: tuple[float, float]

    @classmethod
    def between(cls, likeness: NDArray[np.float64], similarity: NDArray[np.float64]) -> CommonScale | None:
        """From values of the same cohort; None where one of them does not vary."""
        both = []
        for values in (likeness, np.arctanh(np.clip(similarity, -1 + SMALLEST_ERROR, 1 - SMALLEST_ERROR))):
            middle, high = np.quantile(values, [0.5, 0.9])
            if not high > middle:
                return None
            both.append((float(middle), float(high)))
        return cls(*both)

    def __call__(self, likeness: NDArray[np.float64]) -> NDArray[np.float64]:
        """Likeness to a similarity from -1 to 1."""
        (middle, high), (to_middle, to_high) = self.likeness, self.similarity
        scaled: NDArray[np.float64] = np.tanh(to_middle + (likeness - middle) * (to_high - to_middle) / (high - middle))
        return np.minimum(scaled, 1 - SMALLEST_ERROR)

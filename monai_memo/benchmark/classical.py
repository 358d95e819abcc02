# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Baselines of classical image retrieval for 2D images, where their packages are installed (extra ``baselines``)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from monai_memo.benchmark.baselines import Found, Scorer
from monai_memo.search.gallery import as_tensor, grey


def _grey(images: NDArray[np.floating]) -> NDArray[np.uint8]:
    """``(n, channels, height, width)`` in 0 to 1 as ``(n, height, width)`` in 0 to 255."""
    return (255 * grey(as_tensor(images, torch.device("cpu")))[:, 0].numpy().clip(0, 1)).round().astype(np.uint8)


class PerceptualHash:
    """The 64-bit perceptual hash of the package ImageHash; similarity is the share of equal bits."""

    name = "perceptual hash"
    package = "imagehash"

    def __init__(self, training: NDArray[np.floating]) -> None:
        self.bits = self._hash(training)

    @staticmethod
    def _hash(images: NDArray[np.floating]) -> NDArray[np.float32]:
        import imagehash
        from PIL import Image

        bits = [imagehash.phash(Image.fromarray(image)).hash.ravel() for image in _grey(images)]
        return np.where(np.stack(bits), 1.0, -1.0).astype(np.float32)

    def __call__(self, queries: NDArray[np.float32]) -> Found:
        equal = self._hash(queries) @ self.bits.T / self.bits.shape[1]
        nearest = equal.argmax(axis=1)
        return 0.5 + 0.5 * equal.max(axis=1).astype(np.float64), nearest.astype(np.int64)


class Described(NamedTuple):
    """Keypoints of an image: places ``(n, 2)`` and descriptors ``(n, 128)``."""

    places: NDArray[np.float32]
    descriptors: NDArray[np.float32]


class Keypoints:
    """SIFT keypoints (OpenCV) that agree on one similarity transform: how photographs are searched for copies.

    Each keypoint of a query, and of its mirror image, votes for the training image with the most similar keypoint; the
    images with most votes are matched to the query (Lowe's ratio test, RANSAC). Similarity is the number of keypoints
    that agree, the share of votes deciding between equal ones. Source: Lowe 2004, "Distinctive image features from
    scale-invariant keypoints".

    Args:
        training: ``(n, channels, height, width)`` in 0 to 1.
        candidates: training images per query that are matched.
        size: pixels of the longer side at which keypoints are looked for.
        per_image: strongest keypoints kept of each image.
    """

    name = "keypoints (SIFT)"
    package = "cv2"

    def __init__(
        self, training: NDArray[np.floating], candidates: int = 10, size: int = 256, per_image: int = 100
    ) -> None:
        import cv2

        self.cv2, self.candidates, self.size = cv2, candidates, size
        self.sift = cv2.SIFT.create(nfeatures=per_image, contrastThreshold=0.02)
        self.found = [self._describe(image) for image in _grey(training)]
        counts = [len(image.places) for image in self.found]
        self.owner = np.repeat(np.arange(len(counts)), counts)
        described = np.concatenate([image.descriptors for image in self.found])
        self.neighbours = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(described) if len(described) else None

    def _describe(self, image: NDArray[np.uint8]) -> Described:
        factor = self.size / max(image.shape)
        larger = self.cv2.resize(image, None, fx=factor, fy=factor, interpolation=self.cv2.INTER_CUBIC)
        keypoints, descriptors = self.sift.detectAndCompute(larger, None)
        places = np.asarray([keypoint.pt for keypoint in keypoints], dtype=np.float32).reshape(-1, 2)
        return Described(places, np.zeros((0, 128), np.float32) if descriptors is None else descriptors)

    def _agreeing(self, query: Described, other: Described) -> int:
        """Keypoints of the query that one similarity transform brings onto those of the other image."""
        if min(len(query.places), len(other.places)) < 3:
            return 0
        pairs = self.cv2.BFMatcher().knnMatch(query.descriptors, other.descriptors, k=2)
        kept = [first for first, second in pairs if first.distance < 0.8 * second.distance]
        if len(kept) < 3:
            return 0
        here = np.stack([query.places[pair.queryIdx] for pair in kept])
        there = np.stack([other.places[pair.trainIdx] for pair in kept])
        self.cv2.setRNGSeed(0)
        _, inliers = self.cv2.estimateAffinePartial2D(here, there, ransacReprojThreshold=5.0)
        return 0 if inliers is None else int(inliers.sum())

    def _best(self, query: NDArray[np.uint8]) -> tuple[float, int]:
        best = (0.0, 0)
        for image in (query, np.ascontiguousarray(query[:, ::-1])):
            described = self._describe(image)
            if self.neighbours is None or not len(described.places):
                continue
            nearest = self.neighbours.kneighbors(described.descriptors, return_distance=False)[:, 0]
            votes = np.bincount(self.owner[nearest], minlength=len(self.found)) / len(nearest)
            for candidate in np.argsort(-votes, kind="stable")[: self.candidates]:
                similarity = self._agreeing(described, self.found[candidate]) + 0.5 * float(votes[candidate])
                best = max(best, (similarity, int(candidate)), key=lambda found: found[0])
        return best

    def __call__(self, queries: NDArray[np.float32]) -> Found:
        found = [self._best(query) for query in _grey(queries)]
        similarity, nearest = zip(*found, strict=True)
        return np.array(similarity, dtype=np.float64), np.array(nearest, dtype=np.int64)


def classical_baselines(training: NDArray[np.floating]) -> list[Scorer]:
    """Those whose package is installed; none for volumes."""
    if training.ndim != 4:
        return []
    return [kind(training) for kind in (PerceptualHash, Keypoints) if find_spec(kind.package) is not None]

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Numbers that readers of papers on generators know, on the embeddings of an audit.

None of them decides anything here. Most are means over a set, and one copy among a hundred samples does not move
a mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from monai_memo.statistics.similarities import Floats

Vectors = NDArray[np.floating]
MOST = 2000  # images of each cohort, drawn at random: all pairs are compared
NEIGHBOURS = 5  # of precision, recall, density and coverage
IF_COPIED = {  # what copies do to each number; next to that of unseen patients
    "C_T": "lower",
    "DCR share": "higher",
    "NNDR": "lower",
    "authenticity": "lower",
    "MiFID": "either way",
    "precision": "higher, as with quality",
    "recall": "higher, as with quality",
    "density": "higher, as with quality",
    "coverage": "higher, as with quality",
    "Vendi score": "either way",
}
MIFID_FAR = 0.1  # cosine distance from which on MiFID counts no memorization


@dataclass(frozen=True)
class Embeddings:
    """Of the three cohorts, ``(n, dim)`` each, centred and of length one: distances go with Pearson correlation."""

    training: Floats
    unseen: Floats
    synthetic: Floats

    @classmethod
    def of(cls, training: Vectors, unseen: Vectors, synthetic: Vectors, seed: int = 0) -> Embeddings:
        """At most ``MOST`` of each cohort, and as many training as unseen images: distances to more are shorter."""
        rng = np.random.default_rng([seed, 23])
        real = min(len(training), len(unseen), MOST)
        parts = []
        for vectors, most in ((training, real), (unseen, real), (synthetic, MOST)):
            chosen = np.sort(rng.permutation(len(vectors))[:most])
            rows = np.asarray(vectors[chosen], dtype=np.float64)
            rows -= rows.mean(axis=1, keepdims=True)
            parts.append(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
        return cls(*parts)


@dataclass(frozen=True)
class StandardNumber:
    """One of them.

    Attributes:
        name: as papers call it.
        value: of the synthetic images; NaN does not occur.
        expected: the same for unseen real images in their place, or what theory says; None where there is none.
        says: what it measures, with its source.
        misses: what it does not see.
    """

    name: str
    value: float
    expected: float | None
    says: str
    misses: str


def distances(queries: Floats, gallery: Floats) -> Floats:
    """Euclidean, ``(n, m)``."""
    return np.asarray(np.sqrt(np.maximum(2 - 2 * queries @ gallery.T, 0)), dtype=np.float64)


def _others(gallery: Floats) -> Floats:
    """Distances within a set, an image to itself infinite."""
    found = distances(gallery, gallery)
    np.fill_diagonal(found, np.inf)
    return found


def three_sample_c_t(training: Floats, unseen: Floats, synthetic: Floats) -> float:
    """Meehan, Chaudhuri, Dasgupta (AISTATS 2020), with one cell: z of the Mann-Whitney statistic."""
    ours, theirs = distances(synthetic, training).min(axis=1), distances(unseen, training).min(axis=1)
    n, m = len(ours), len(theirs)
    statistic = float(mannwhitneyu(ours, theirs).statistic)
    return (statistic - n * m / 2) / (n * m * (n + m + 1) / 12) ** 0.5


def nearer_to_training(training: Floats, unseen: Floats, synthetic: Floats) -> float:
    """Share nearer to a training than to an unseen image; of equal distances half counts."""
    ours, theirs = distances(synthetic, training).min(axis=1), distances(synthetic, unseen).min(axis=1)
    return float((ours < theirs).mean() + (ours == theirs).mean() / 2)


def distance_ratio(training: Floats, queries: Floats) -> float:
    """Median of the distance to the nearest training image over that to the second nearest."""
    nearest = np.partition(distances(queries, training), 1, axis=1)[:, :2]
    return float(np.median(nearest[:, 0] / np.maximum(nearest[:, 1], 1e-12)))


def authenticity(training: Floats, queries: Floats) -> float:
    """Alaa et al. (ICML 2022): share that is farther from its nearest training image than any other such image is."""
    found = distances(queries, training)
    nearest = found.argmin(axis=1)
    return float((found.min(axis=1) > _others(training).min(axis=1)[nearest]).mean())


def frechet_distance(first: Floats, second: Floats) -> float:
    """Between Gaussians fitted to both (Heusel et al., NeurIPS 2017)."""
    means, centred = [], []
    for vectors in (first, second):
        means.append(vectors.mean(axis=0))
        centred.append((vectors - means[-1]) / max(1, len(vectors) - 1) ** 0.5)
    # The trace of the root of a product of covariances is the sum of the singular values of the product of their roots.
    shared = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    spread = sum(float((part**2).sum()) for part in centred)
    return float(max(0.0, ((means[0] - means[1]) ** 2).sum() + spread - 2 * shared))


def mifid(training: Floats, queries: Floats) -> float:
    """Memorization-informed distance (Bai et al., KDD 2021): the Frechet distance, divided where samples are near."""
    nearest = float(((distances(queries, training) ** 2 / 2).min(axis=1)).mean())
    return frechet_distance(training, queries) / (nearest if nearest < MIFID_FAR else 1.0) if nearest > 0 else np.inf


def precision_and_coverage(real: Floats, samples: Floats, k: int = NEIGHBOURS) -> tuple[float, float, float, float]:
    """Precision, recall (Kynkaanniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020)."""
    k = min(k, len(real) - 1, len(samples) - 1)
    reach, own = (np.partition(_others(part), k - 1, axis=1)[:, k - 1] for part in (real, samples))
    found = distances(real, samples)
    inside = found < reach[:, None]
    return (
        float(inside.any(axis=0).mean()),
        float((found < own[None]).any(axis=1).mean()),
        float(inside.sum(axis=0).mean() / k),
        float((found.min(axis=1) < reach).mean()),
    )


def vendi_score(samples: Floats) -> float:
    """Friedman and Dieng (TMLR 2023): exponential of the entropy of the eigenvalues; as many different images."""
    values = np.linalg.svd(samples, compute_uv=False) ** 2 / len(samples)
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def standard_numbers(embeddings: Embeddings) -> list[StandardNumber]:
    """All of them, none where a cohort has fewer than three images.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> real, unseen = rng.normal(size=(50, 16)), rng.normal(size=(50, 16))
        >>> found = standard_numbers(Embeddings.of(real, unseen, real[:20]))
        >>> found[0].name, found[0].value < -3, found[1].value
        ('C_T', True, 1.0)
    """
    training, unseen, synthetic = embeddings.training, embeddings.unseen, embeddings.synthetic
    if min(len(training), len(unseen), len(synthetic)) < 3:
        return []
    numbers: list[StandardNumber] = []

    def add(name: str, of: Callable[[Floats], float], expected: float | None, says: str, misses: str) -> None:
        value = of(synthetic)
        if np.isfinite(value):
            numbers.append(StandardNumber(name, float(value), expected, says, misses))

    add("C_T", lambda ours: three_sample_c_t(training, unseen, ours), 0.0,
        "Are synthetic images nearer to training images than unseen ones are? A z-score; below -3 is copying "
        "(Meehan et al. 2020, one cell).",
        "Ranks over the whole set: 1 % of copies do not move it, and soft samples near the mean do.")  # fmt: skip
    add(
        "DCR share",
        lambda ours: nearer_to_training(training, unseen, ours),
        0.5,
        "Share of synthetic images nearer to a training than to a held-out image, of equally many.",
        "Far images count like near ones, so that few copies drown among them.",
    )
    add(
        "NNDR",
        lambda ours: distance_ratio(training, ours),
        distance_ratio(training, unseen),
        "Distance to the nearest training image over that to the second nearest, median.",
        "A median: half of the images can be copies before it moves. Two images of one patient hide a copy.",
    )
    add(
        "authenticity",
        lambda ours: authenticity(training, ours),
        authenticity(training, unseen),
        "Share of synthetic images that are farther from their nearest training image than it is from the next one "
        "(Alaa et al. 2022).",
        "Novel images near a remote training image count as copies; copies of patients with two images do not.",
    )
    add("MiFID", lambda ours: mifid(training, ours), mifid(training, unseen),
        "Frechet distance, divided by the mean distance to the nearest training image where that is small "
        "(Bai et al. 2021), on these embeddings.",
        "Two means in one number: poor quality hides copying, and 1 % of copies changes neither.")  # fmt: skip
    names = ("precision", "recall", "density", "coverage")
    ours, theirs = precision_and_coverage(training, synthetic), precision_and_coverage(training, unseen)
    for place, (name, says) in enumerate(zip(names, (
        "Share of synthetic images among the training images.", "Share of training images among the synthetic ones.",
        "How crowded the training images are where synthetic ones lie.",
        "Share of training images with a synthetic one nearby.",
    ), strict=True)):  # fmt: skip
        add(name, lambda _, place=place: ours[place], theirs[place], f"{says} Five neighbours.",  # type: ignore[misc]
            "Quality and variety: a perfect copy of the training cohort has the best value.")  # fmt: skip
    add("Vendi score", vendi_score, vendi_score(unseen[: len(synthetic)]),
        "How many different images the synthetic ones amount to (Friedman and Dieng 2023).",
        "Variety only: copies of many patients have a high one.")  # fmt: skip
    return numbers

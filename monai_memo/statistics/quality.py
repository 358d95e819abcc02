# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How far samples are from unseen real images, in features that the caller brings; and paired differences of that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from monai_memo.statistics.intervals import Interval, percentile_interval
from monai_memo.statistics.standard import NEIGHBOURS, frechet_distance

Floats = NDArray[np.float64]


def cubic_kernel(first: Floats, second: Floats) -> Floats:
    """``(x y / d + 1) ** 3`` of all pairs, ``(n, m)``."""
    return np.asarray((first @ second.T / first.shape[1] + 1) ** 3, dtype=np.float64)


class KernelDistance:
    """KID (Binkowski et al., ICLR 2018): unbiased squared MMD with the cubic kernel, of samples and real images.

    It does not depend on how many images there are, so that it compares cohorts of different size; it can be negative.

    Args:
        samples: features ``(n, d)``.
        reference: of real images ``(m, d)``.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> real, same, other = rng.normal(size=(200, 8)), rng.normal(size=(200, 8)), rng.normal(2, 1, size=(200, 8))
        >>> abs(KernelDistance(same, real).value()) < 0.1 < KernelDistance(other, real).value()
        True
    """

    def __init__(self, samples: NDArray[np.floating], reference: NDArray[np.floating]) -> None:
        ours, real = (np.asarray(part, dtype=np.float64) for part in (samples, reference))
        if min(len(ours), len(real)) < 2 or ours.shape[1:] != real.shape[1:]:
            raise ValueError(f"two images each and the same features are needed, got {ours.shape} and {real.shape}")
        self.within = cubic_kernel(ours, ours)
        np.fill_diagonal(self.within, 0.0)
        self.across = cubic_kernel(ours, real).mean(axis=1)
        among = cubic_kernel(real, real)
        self.among = float((among.sum() - np.trace(among)) / (len(real) * (len(real) - 1)))

    def __len__(self) -> int:
        return len(self.within)

    def value(self, weights: Floats | None = None) -> float:
        """The distance.

        Args:
            weights: how often each sample counts, for resampling. A sample is never paired with itself.
        """
        w = np.ones(len(self)) if weights is None else weights
        total = w.sum()
        within = float(w @ self.within @ w) / float(total**2 - (w**2).sum())
        return within + self.among - 2 * float(w @ self.across) / float(total)


def paired_difference(
    pairs: Sequence[tuple[KernelDistance, KernelDistance]],
    confidence: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean over seeds of the distance of an arm minus that of the arm it is compared with.

    Samples are resampled within each seed, the same ones of both arms: sample ``i`` of both began with the same noise.

    Args:
        pairs: of each seed the arm, and what it is compared with, with equally many samples.
    """
    rng = np.random.default_rng([seed, 29])
    draws = np.zeros(n_bootstrap)
    for arm, plain in pairs:
        if len(arm) != len(plain):
            raise ValueError(f"pairs need equally many samples, got {len(arm)} and {len(plain)}")
        counts = rng.multinomial(len(arm), np.full(len(arm), 1 / len(arm)), size=n_bootstrap).astype(np.float64)
        draws += np.array([arm.value(w) - plain.value(w) for w in counts]) / len(pairs)
    value = float(np.mean([arm.value() - plain.value() for arm, plain in pairs]))
    return percentile_interval(value, draws, confidence)


def neighbour_scores(samples: Floats, real: Floats, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision, recall (Kynkaanniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020).

    By Euclidean distances, unlike ``statistics.standard``, whose vectors have length one: a sample that differs from
    real images in the length of its features alone is no real image.
    """
    k = min(k, len(real) - 1, len(samples) - 1)
    reach, own = (np.sort(cdist(part, part), axis=1)[:, k] for part in (real, samples))
    found = cdist(real, samples)
    inside = found < reach[:, None]
    return {
        "precision": float(inside.any(axis=0).mean()),
        "recall": float((found < own[None]).any(axis=1).mean()),
        "density": float(inside.sum(axis=0).mean() / k),
        "coverage": float((found.min(axis=1) < reach).mean()),
    }


def feature_scores(samples: NDArray[np.floating], reference: NDArray[np.floating]) -> dict[str, float]:
    """KID, FID, precision, recall, density and coverage of samples against real images, in the same features.

    FID grows where there are fewer images: compare cohorts of the same size.
    """
    ours, real = (np.asarray(part, dtype=np.float64) for part in (samples, reference))
    return {
        "kid": KernelDistance(ours, real).value(),
        "fid": frechet_distance(ours, real),
        **neighbour_scores(ours, real),
    }


def gradient_energy(images: NDArray[np.floating]) -> Floats:
    """Mean squared difference of neighbours along all axes, of each image ``(n, channels, *spatial)``.

    Blur lowers it, noise raises it.

    Example:
        >>> gradient_energy(np.array([[[[0.0, 1.0], [0.0, 1.0]]]])).tolist()
        [0.5]
    """
    pixels = np.asarray(images, dtype=np.float64)
    axes = range(2, pixels.ndim)
    energies = [(np.diff(pixels, axis=axis) ** 2).reshape(len(pixels), -1).mean(axis=1) for axis in axes]
    return np.asarray(np.mean(energies, axis=0), dtype=np.float64)

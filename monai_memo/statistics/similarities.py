# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The similarities that an audit is calibrated and counted on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
ALMOST_ONE = 1 - 1e-9
NOT_COMPARED = -1.0  # similarity of a pair that was not verified


@dataclass(frozen=True)
class Similarities:
    """Nearest-neighbour similarities (Pearson correlations, -1 to 1) between the three cohorts.

    Attributes:
        synthetic_to_training: ``(n_synthetic,)``, each synthetic image to its nearest training image.
        heldout_to_training: ``(n_heldout,)``, each held-out image to its nearest training image.
        training_to_synthetic: ``(n_train, j)``, each training image to its ``j`` (1 or 2) nearest synthetic images.
        synthetic_neighbours: ``(n_train, j)``, which synthetic images these are.
        training_to_heldout: ``(n_train, k)``, each training image to its ``k`` nearest held-out images, highest first.
        heldout_neighbours: ``(n_train, k)``, which held-out images these are.
        training_patients: ``(n_train,)`` integer code of each training image's patient.
        heldout_patients: ``(n_heldout,)`` integer code of each held-out image's patient.
    """

    synthetic_to_training: Floats
    heldout_to_training: Floats
    training_to_synthetic: Floats
    synthetic_neighbours: Integers
    training_to_heldout: Floats
    heldout_neighbours: Integers
    training_patients: Integers
    heldout_patients: Integers

    def __post_init__(self) -> None:
        for name in ("heldout", "synthetic"):
            found, neighbours = getattr(self, f"training_to_{name}"), getattr(self, f"{name}_neighbours")
            if found.ndim != 2 or found.shape != neighbours.shape:
                raise ValueError(
                    f"training_to_{name} and {name}_neighbours must both have shape (n_train, k), got "
                    f"{found.shape} and {neighbours.shape}"
                )
        lengths = {
            "training_to_synthetic": (len(self.training_to_synthetic), self.n_train),
            "training_to_heldout": (len(self.training_to_heldout), self.n_train),
            "heldout_patients": (len(self.heldout_patients), self.n_heldout),
        }
        for name, (received, expected) in lengths.items():
            if received != expected:
                raise ValueError(f"{name} must have {expected} rows, got {received}")
        for name in ("synthetic_to_training", "heldout_to_training", "training_to_synthetic", "training_to_heldout"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name} holds values that are not finite")

    @property
    def n_train(self) -> int:
        return len(self.training_patients)

    @property
    def n_heldout(self) -> int:
        return len(self.heldout_to_training)

    @property
    def n_synthetic(self) -> int:
        return len(self.synthetic_to_training)

    @property
    def training_to_nearest_heldout(self) -> Floats:
        """``(n_train,)``, each training image to its nearest held-out image."""
        return self.training_to_heldout[:, 0]

    @property
    def training_to_nearest_synthetic(self) -> Floats:
        """``(n_train,)``, each training image to its nearest synthetic image."""
        return self.training_to_synthetic[:, 0]

    @classmethod
    def from_matrices(
        cls,
        training_heldout: Floats,
        training_synthetic: Floats,
        training_patients: Integers | None = None,
        heldout_patients: Integers | None = None,
        k: int | None = None,
    ) -> Similarities:
        """Reduce two full similarity matrices, ``(n_train, n_heldout)`` and ``(n_train, n_synthetic)``.

        Example:
            >>> import numpy as np
            >>> s = Similarities.from_matrices(np.array([[0.1, 0.3], [0.2, 0.0]]), np.array([[0.9], [0.4]]))
            >>> s.training_to_nearest_heldout.tolist(), s.synthetic_to_training.tolist()
            ([0.3, 0.2], [0.9])
        """
        n_train, n_heldout = training_heldout.shape
        to_heldout, heldout_neighbours = _nearest(training_heldout, min(k or n_heldout, n_heldout))
        to_synthetic, synthetic_neighbours = _nearest(training_synthetic, min(2, training_synthetic.shape[1]))
        return cls(
            synthetic_to_training=training_synthetic.max(axis=0),
            heldout_to_training=training_heldout.max(axis=0),
            training_to_synthetic=to_synthetic,
            synthetic_neighbours=synthetic_neighbours,
            training_to_heldout=to_heldout,
            heldout_neighbours=heldout_neighbours,
            training_patients=np.arange(n_train) if training_patients is None else training_patients,
            heldout_patients=np.arange(n_heldout) if heldout_patients is None else heldout_patients,
        )

    @classmethod
    def from_candidates(
        cls,
        synthetic: tuple[Integers, Floats],
        heldout: tuple[Integers, Floats],
        training_patients: Integers,
        heldout_patients: Integers,
    ) -> Similarities:
        """From the verified candidates of each query instead of all pairs.

        A pair that was not verified is less similar than any that was (-1). Held-out and synthetic images go through
        the same search, so this holds for both alike and the calibration stays what it is.

        Args:
            synthetic, heldout: for each query ``(n, r)`` training images (-1 for none) and ``(n, r)`` similarities,
                highest first.

        Example:
            >>> import numpy as np
            >>> found = (np.array([[1, 0]]), np.array([[0.9, 0.4]]))
            >>> s = Similarities.from_candidates(found, found, np.arange(3), np.arange(1))
            >>> s.training_to_nearest_synthetic.tolist(), s.synthetic_to_training.tolist()
            ([0.4, 0.9, -1.0], [0.9])
        """
        n_train = len(training_patients)
        to_synthetic, synthetic_neighbours = _reversed(*synthetic, n_train, most=2)
        to_heldout, heldout_neighbours = _reversed(*heldout, n_train)
        return cls(
            synthetic_to_training=synthetic[1][:, 0],
            heldout_to_training=heldout[1][:, 0],
            training_to_synthetic=to_synthetic,
            synthetic_neighbours=synthetic_neighbours,
            training_to_heldout=to_heldout,
            heldout_neighbours=heldout_neighbours,
            training_patients=training_patients,
            heldout_patients=heldout_patients,
        )


def fisher(similarity: Floats | float) -> Floats:
    """Fisher's scale, on which correlations add up; finite for those of 1 as well."""
    return np.asarray(np.arctanh(np.clip(similarity, -ALMOST_ONE, ALMOST_ONE)), dtype=np.float64)


def on_common_scale(similarity: Floats, own_reference: Floats, reference: Floats, quantile: float = 0.95) -> Floats:
    """Similarities of images of another kind (softer, say), moved until tau of their own references is tau.

    On Fisher's scale, and never upward: an image that is judged by stricter references keeps its similarity.

    Args:
        similarity: of the images.
        own_reference: of held-out images made like them.
        reference: of the held-out images as they are.
        quantile: at which both taus are taken.

    Example:
        >>> soft = np.linspace(0.5, 0.9, 101)
        >>> on_common_scale(np.array([0.88, 0.5]), soft, soft - 0.1).round(2).tolist()
        [0.78, 0.21]
    """
    taus = [float(np.quantile(values, quantile, method="weibull")) for values in (own_reference, reference)]
    moved = fisher(similarity) - max(0.0, float(fisher(taus[0]) - fisher(taus[1])))
    return np.asarray(np.where(similarity > NOT_COMPARED, np.tanh(moved), similarity), dtype=np.float64)


def _reversed(
    candidates: Integers, similarity: Floats, n_train: int, most: int | None = None
) -> tuple[Floats, Integers]:
    """For each training image the queries that have it as a candidate, most similar first, and -1 after the last."""
    rows, columns = np.nonzero(candidates >= 0)
    training, values = candidates[rows, columns], similarity[rows, columns]
    order = np.lexsort((rows, -values, training))
    training, values, rows = training[order], values[order], rows[order]
    counts = np.bincount(training, minlength=n_train)
    rank = np.arange(len(training)) - np.repeat(np.cumsum(counts) - counts, counts)
    # One column more than any list is long: what comes after the last known query is not verified.
    width = min(int(counts.max(initial=0)) + 1, len(candidates)) if most is None else min(most, len(candidates))
    kept = rank < width
    found = np.full((n_train, width), NOT_COMPARED)
    queries = np.zeros((n_train, width), dtype=np.int64)
    found[training[kept], rank[kept]] = values[kept]
    queries[training[kept], rank[kept]] = rows[kept]
    return found, queries


def _nearest(matrix: Floats, k: int) -> tuple[Floats, Integers]:
    order = np.argsort(-matrix, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(matrix, order, axis=1), order.astype(np.int64)


def neighbours_needed(n_heldout: int, n_synthetic: int, most: int = 512) -> int:
    """How many held-out neighbours per training image size-matching and its control read.

    A random subset of ``m`` among ``n_heldout`` images misses all of the ``k`` nearest with a probability of about
    ``(1 - m / n_heldout) ** k``; ``k`` keeps that under 1e-6. The control splits the held-out cohort at the ratio of
    the audit, so its held-out part can be smaller still.
    """
    ratio = n_synthetic / n_heldout
    fraction = min(1.0, ratio, 1.0 / (1.0 + ratio), ratio / (1.0 + ratio))
    needed = np.log(1e-6) / np.log1p(-min(fraction, 1 - 1e-9))
    return int(min(n_heldout, most, max(32, np.ceil(needed))))

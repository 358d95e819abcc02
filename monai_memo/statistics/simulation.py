# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Simulated audits with known truth: is the floor where it is said to be, and do the intervals cover?

Embeddings are drawn, not computed: patients are points on a sphere with a decaying spectrum (so that some patients are
commonplace and some are odd), several images of a patient and copies of an image are points nearby.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_memo.statistics.rates import audit_rates, thresholds
from monai_memo.statistics.similarities import Floats, Similarities, neighbours_needed


@dataclass(frozen=True)
class World:
    """What the simulated audits are drawn from.

    Attributes:
        n_train, n_heldout, n_synthetic: images in each cohort.
        copy_share: probability that a synthetic image copies a training image.
        copy_noise: distance of a copy from its original, relative to the distance of two patients.
        images_per_patient: number of images of each training and held-out patient.
        dim: dimensions of the embedding; fewer make patients more alike.
        decay: exponent of the spectrum; 0 is uniform on the sphere, larger values make some patients more central.
    """

    n_train: int = 400
    n_heldout: int = 200
    n_synthetic: int = 200
    copy_share: float = 0.2
    copy_noise: float = 0.12
    images_per_patient: int = 1
    dim: int = 16
    decay: float = 0.5

    def _normalised(self, points: Floats) -> Floats:
        return points / np.linalg.norm(points, axis=1, keepdims=True)

    def unseen(self, n: int, rng: np.random.Generator) -> Floats:
        """``(n, dim)`` embeddings of ``n`` images of patients never seen before."""
        patients = -(-n // self.images_per_patient)
        spectrum = 1 / np.arange(1, self.dim + 1) ** self.decay
        base = np.repeat(rng.normal(size=(patients, self.dim)) * spectrum, self.images_per_patient, axis=0)[:n]
        if self.images_per_patient > 1:
            base = base + 0.5 * rng.normal(size=base.shape) * spectrum
        return self._normalised(base)

    def synthetic(self, training: Floats, n: int, rng: np.random.Generator) -> tuple[Floats, NDArray[np.bool_]]:
        """``(n, dim)`` embeddings of synthetic images and which of them are copies."""
        novel = self.unseen(n * self.images_per_patient, rng)[:: self.images_per_patient]
        copied = rng.random(n) < self.copy_share
        originals = training[rng.integers(0, len(training), n)]
        copies = self._normalised(originals + self.copy_noise * rng.normal(size=originals.shape) / np.sqrt(self.dim))
        return np.where(copied[:, None], copies, novel), copied

    def patients(self, n: int) -> NDArray[np.int64]:
        """``(n,)`` patient codes."""
        return np.arange(n) // self.images_per_patient

    def audit(self, rng: np.random.Generator) -> tuple[Similarities, Floats]:
        """Draw all cohorts anew; return their similarities and the training embeddings."""
        training, heldout = self.unseen(self.n_train, rng), self.unseen(self.n_heldout, rng)
        synthetic, _ = self.synthetic(training, self.n_synthetic, rng)
        sims = Similarities.from_matrices(
            training @ heldout.T,
            training @ synthetic.T,
            self.patients(self.n_train),
            self.patients(self.n_heldout),
            k=neighbours_needed(self.n_heldout, self.n_synthetic),
        )
        return sims, training


def null_rates(world: World, mode: str, audits: int, seed: int, quantile: float = 0.95) -> tuple[float, float]:
    """Mean rates ``(copies, memorized)`` over simulated audits; with ``copy_share=0`` the floor of a calibration."""
    rates = []
    for child in np.random.SeedSequence(seed).spawn(audits):
        sims, _ = world.audit(np.random.default_rng(child))
        tau, tau_memorized = thresholds(sims, mode, quantile)
        rates.append(
            ((sims.synthetic_to_training > tau).mean(), (sims.training_to_nearest_synthetic > tau_memorized).mean())
        )
    copies, memorized = np.mean(rates, axis=0)
    return float(copies), float(memorized)


def _pooled_thresholds(world: World, mode: str, quantile: float, seed: int, audits: int = 200) -> tuple[float, float]:
    """Threshold and rate of the memorized count over repetitions of the whole audit, by brute force."""
    null: list[Floats] = []
    counted: list[Floats] = []
    for child in np.random.SeedSequence([seed, 1]).spawn(audits):
        rng = np.random.default_rng(child)
        training = world.unseen(world.n_train, rng)
        # The null of the memorized count: as many unseen images as there are synthetic ones (paper: held-out ones).
        n_null = world.n_heldout if mode == "paper" else world.n_synthetic
        null.append((training @ world.unseen(n_null, rng).T).max(axis=1))
        synthetic, _ = world.synthetic(training, world.n_synthetic, rng)
        counted.append((training @ synthetic.T).max(axis=1))
    tau = float(np.quantile(np.concatenate(null), quantile))
    return tau, float((np.concatenate(counted) > tau).mean())


def coverage(
    world: World,
    mode: str = "size_matched",
    audits: int = 300,
    seed: int = 0,
    n_bootstrap: int = 500,
    quantile: float = 0.95,
    fresh: int = 20_000,
) -> dict[str, dict[str, float]]:
    """How often the 95 % intervals of simulated audits hold the true value.

    Every audit draws new patients for every cohort. The truth about copies is what ``fresh`` further unseen and
    synthetic images show against the training cohort of that audit; the truth about memorized images and about the
    threshold over training images is that of the whole audit repeated with new patients.

    Returns:
        For each quantity its mean ``truth``, ``mean`` estimate, ``coverage`` and mean ``width`` of the interval.
    """
    tau_memorized, memorized = _pooled_thresholds(world, mode, quantile, seed)
    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    for number, child in enumerate(np.random.SeedSequence([seed, 2]).spawn(audits)):
        rng = np.random.default_rng(child)
        sims, training = world.audit(rng)
        unseen = (world.unseen(fresh * world.images_per_patient, rng) @ training.T).max(axis=1)
        novel = (world.synthetic(training, fresh, rng)[0] @ training.T).max(axis=1)
        tau = tau_memorized if mode == "paper" else float(np.quantile(unseen, quantile))
        copies = float((novel > tau).mean())
        truths = {
            "tau": tau,
            "tau_memorized": tau_memorized,
            "copies": copies,
            "memorized": memorized,
            "excess_copies": copies - float((unseen > tau).mean()),
        }
        rates = audit_rates(sims, mode, quantile, n_bootstrap=n_bootstrap, seed=number)
        for name, truth in truths.items():
            found = getattr(rates, name)
            row = (truth, found.value, float(found.low <= truth <= found.high), found.high - found.low)
            rows.setdefault(name, []).append(row)
    columns = ("truth", "mean", "coverage", "width")
    return {name: dict(zip(columns, np.mean(row, axis=0).tolist(), strict=True)) for name, row in rows.items()}

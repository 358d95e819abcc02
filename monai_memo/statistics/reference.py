# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The reference control: are synthetic images closer to the training patients than to patients whom nobody trained on?

The control of ``statistics.control`` asks how close unseen *real* images come to training patients. Samples of a
generator are another kind of image: soft, near the mean of many patients, close to everybody. So the same synthetic
images are looked up among training and held-out patients together. If nothing was copied, both are exchangeable as
references, whatever the samples look like: of the images that are close to somebody, each finds its nearest patient in
either gallery in proportion to their sizes. What the training patients get beyond that was copied.

* The estimate. Of ``m`` synthetic images ``a`` lie above the threshold and nearest to a training patient, ``b`` above
  it and nearest to a held-out one. As many unseen images as there are training images would have got ``ratio * b``.
  The excess ``(a - ratio * b) / m`` is the share of the synthetic images that was copied, without bias at any ratio:
  nothing has to be left out of the larger gallery. (Proteomics estimates false identifications so: target-decoy
  competition, Elias and Gygi, Nature Methods 2007; for its theory, Barber and Candes, Annals of Statistics 2015.)
* Its interval goes over images and patients alike: one patient who is near to many samples moves them all at once.
* The p-value. Patients change places between the galleries, all images of a patient together. Valid for any number of
  images a patient, at any threshold. Several thresholds are looked at, since few copies stand out at the high ones; the
  permutations pay for the choice (Westfall and Young 1993).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import norm
from scipy.stats import t as student

from monai_memo.statistics.intervals import Interval, percentile_interval
from monai_memo.statistics.similarities import Floats, Integers

PERMUTATIONS, DRAWS = 4999, 4000
HIGHER = (0.5, 0.25, 0.1)  # of the images above the threshold, at which higher thresholds lie
FEW_PATIENTS = 10  # with fewer patients hit in one gallery, how many images share a patient is read off the other one
UNEQUAL = 1.25  # ratio of images a patient in both galleries from which on it is told
POWER_Z, SIZE_Z = 0.8416, 1.6449  # 80 % power of a one-sided test at 5 %


@dataclass(frozen=True)
class NearestPatients:
    """The nearest patient of each synthetic image, among training and held-out patients together.

    Attributes:
        similarity: ``(m,)``.
        patient: ``(m,)`` index of the patient.
        training: ``(patients,)`` whether the generator was trained on this patient.
        images: ``(patients,)`` how many images of the patient were looked through.
    """

    similarity: Floats
    patient: Integers
    training: NDArray[np.bool_]
    images: Integers

    def __post_init__(self) -> None:
        if len(self.similarity) != len(self.patient) or len(self.training) != len(self.images):
            raise ValueError(
                f"each image needs one nearest patient, and each patient a number of images; got "
                f"{len(self.similarity)} and {len(self.patient)}, {len(self.training)} and {len(self.images)}"
            )
        if not self.training.any() or self.training.all() or self.images.min() < 1:
            raise ValueError("the reference control needs training and held-out patients, of one image each at least")
        if len(self.patient) == 0 or self.patient.min() < 0 or self.patient.max() >= len(self.training):
            raise ValueError(f"nearest patients must be numbers from 0 to {len(self.training) - 1}, one at least")

    @property
    def ratio(self) -> float:
        """Training images for each held-out image."""
        return float(self.images[self.training].sum() / self.images[~self.training].sum())

    def hits(self, threshold: float) -> Integers:
        """``(patients,)``, how many synthetic images above a threshold are nearest to each."""
        return np.bincount(self.patient[self.similarity > threshold], minlength=len(self.training))


@dataclass(frozen=True)
class ReferenceControl:
    """What the reference control says. Rates are shares of the synthetic images.

    Attributes:
        threshold: above which they are counted.
        to_training, to_unseen: how many are nearest to a training patient, or to a held-out one.
        rate: share nearest to a training patient.
        expected: share that as many unseen images would have got.
        excess: rate minus expected: what was copied.
        p_value: of "nothing was copied".
        n_training, n_unseen: patients in either gallery.
        patients_needed: fewest copied patients that can make the p-value 5 % or less.
        smallest_p: the smallest p-value that these galleries allow if every image above the threshold was nearest to a
            training patient of its own.
        detectable: excess that would have been seen in four of five audits like this one.
        warnings: what the galleries do not allow, in plain sentences.
    """

    threshold: float
    to_training: int
    to_unseen: int
    rate: float
    expected: float
    excess: Interval
    p_value: float
    n_training: int
    n_unseen: int
    patients_needed: int
    smallest_p: float
    detectable: float
    warnings: tuple[str, ...]


def chance_all_in_training(copied: int, n_training: int, n_unseen: int) -> float:
    """Probability that so many patients, drawn from both galleries at random, are training patients all of them.

    Example:
        >>> round(chance_all_in_training(5, 100, 100), 3), round(chance_all_in_training(2, 30, 600), 4)
        (0.03, 0.0022)
    """
    if copied > n_training:
        return 0.0
    total = float(n_training + n_unseen)
    kept = gammaln(n_training + 1) - gammaln(n_training - copied + 1)
    return float(np.exp(kept - gammaln(total + 1) + gammaln(total - copied + 1)))


def patients_needed(n_training: int, n_unseen: int, level: float = 0.05) -> int:
    """The fewest copied patients, none of them unseen, that speak against chance at this level.

    Example:
        >>> patients_needed(200, 200), patients_needed(200, 20), patients_needed(30, 600)
        (5, 30, 1)
    """
    copied = 1
    while copied < n_training and chance_all_in_training(copied, n_training, n_unseen) > level:
        copied += 1
    return copied


def reference_control(
    nearest: NearestPatients, threshold: float, confidence: float = 0.95, seed: int = 0
) -> ReferenceControl:
    """Compare how many synthetic images are nearest to training patients, and to patients whom nobody trained on.

    Args:
        nearest: of the synthetic images, in both galleries.
        threshold: above which images count.
        confidence: of the interval.
        seed: of the draws and permutations.

    Example:
        >>> import numpy as np
        >>> copied, chance = np.arange(20), np.arange(20, 60)
        >>> nearest = NearestPatients(np.r_[np.full(20, 0.99), np.full(40, 0.95)], np.r_[copied, chance],
        ...                           np.arange(80) < 40, np.ones(80, dtype=int))
        >>> found = reference_control(nearest, 0.9)
        >>> found.to_training, found.to_unseen, round(found.excess.value, 3), found.p_value < 0.01
        (40, 20, 0.333, True)
    """
    training, m, ratio = nearest.training, len(nearest.similarity), nearest.ratio
    hits = nearest.hits(threshold)
    a, b = int(hits[training].sum()), int(hits[~training].sum())
    rng_interval, rng_permutations = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    draws = _excess_draws(hits, nearest, rng_interval)
    n_training, n_unseen = int(training.sum()), int((~training).sum())
    excess = percentile_interval((a - ratio * b) / m, draws, confidence)
    needed = patients_needed(n_training, n_unseen, 1 - confidence)
    reached = min(a + b, n_training)
    return ReferenceControl(
        threshold=float(threshold),
        to_training=a,
        to_unseen=b,
        rate=a / m,
        expected=ratio * b / m,
        excess=Interval(excess.value, max(-ratio, excess.low), min(1.0, excess.high)),
        p_value=_permutation_p(nearest, threshold, rng_permutations),
        n_training=n_training,
        n_unseen=n_unseen,
        patients_needed=needed,
        smallest_p=max(chance_all_in_training(reached, n_training, n_unseen), 1 / (PERMUTATIONS + 1)),
        detectable=detectable_excess(nearest, a + b, needed),
        warnings=tuple(_warnings(nearest, needed)),
    )


def _shared(hits: Integers, images: Integers) -> float:
    """Covariance of images that share a nearest patient, beyond what patients of equal luck would show."""
    total = hits.sum()
    by_chance = total**2 * float((images**2).sum()) / float(images.sum()) ** 2
    return max(0.0, float((hits * (hits - 1)).sum()) - by_chance)


def _excess_draws(hits: Integers, nearest: NearestPatients, rng: np.random.Generator) -> Floats:
    """Excess under what is uncertain: how many images are close to somebody, and whom these are closest to.

    Beta draws of effective sizes: unlike a resampling of patients they stay honest where no held-out patient was hit.
    """
    training, m, ratio = nearest.training, len(nearest.similarity), nearest.ratio
    a, b = float(hits[training].sum()), float(hits[~training].sum())
    close = a + b
    shared_a = _shared(hits[training], nearest.images[training])
    shared_b = _shared(hits[~training], nearest.images[~training])
    few_a, few_b = (np.count_nonzero(hits[side]) < FEW_PATIENTS for side in (training, ~training))
    borrowed_a, borrowed_b = (a + 0.5) * shared_b / max(b, 1), (b + 0.5) * shared_a / max(a, 1)
    shared_a, shared_b = max(shared_a, few_a * borrowed_a), max(shared_b, few_b * borrowed_b)
    # How much images share patients is itself read off few patients, as a variance is in Student's distribution.
    squares = hits.astype(np.float64) ** 2
    effective = max(3.0, squares.sum() ** 2 / max(1.0, (squares**2).sum()))
    students = float(student.ppf(0.975, effective) / norm.ppf(0.975)) ** 2
    share = (a + 0.5) / (close + 1)
    shared = students * ((1 - share) ** 2 * shared_a + share**2 * shared_b)
    split = 1 + shared / ((close + 1) * share * (1 - share))
    rate = (close + 1) / (m + 1.5)
    whole = 1 + (shared_a + shared_b) / ((m + 1.5) * rate * (1 - rate))
    rates = rng.beta((close / whole) + 1, (m - close) / whole + 0.5, DRAWS)
    shares = rng.beta(a / split + 0.5, b / split + 0.5, DRAWS)
    return np.asarray(rates * (shares - ratio * (1 - shares)), dtype=np.float64)


def _permutation_p(nearest: NearestPatients, threshold: float, rng: np.random.Generator) -> float:
    """Share of exchanges of patients after which the training side stands out as much, at its best threshold."""
    above = np.sort(nearest.similarity[nearest.similarity > threshold])
    if not len(above):
        return 1.0
    levels = [float(threshold)] + [float(np.quantile(above, 1 - share, method="lower")) for share in HIGHER]
    hits = np.stack([nearest.hits(level) for level in dict.fromkeys(levels)], axis=1)
    hits = hits[:, hits.sum(axis=0) > 0]
    # Patients with the same hits and as many images are interchangeable: so many kinds of them are on either side.
    kinds, which = np.unique(np.column_stack([hits, nearest.images]), axis=0, return_inverse=True)
    sizes = np.bincount(which.ravel(), minlength=len(kinds))
    unseen = np.bincount(which.ravel()[~nearest.training], minlength=len(kinds))
    permuted = rng.multivariate_hypergeometric(sizes, int(unseen.sum()), PERMUTATIONS, method="marginals")
    counts, images = kinds[:, :-1].astype(np.float64), kinds[:, -1].astype(np.float64)
    total, n_images = sizes @ counts, float(sizes @ images)

    def excess(chosen: Integers) -> Floats:
        there = chosen @ images
        return np.asarray(total - chosen @ counts * (n_images / there)[:, None], dtype=np.float64)

    null, seen = excess(permuted), excess(unseen[None])
    spread = null.std(axis=0)
    usable = spread > 0
    if not usable.any():
        return 1.0
    best = (null[:, usable] / spread[usable]).max(axis=1)
    reached = (seen[:, usable] / spread[usable]).max()
    return float((1 + np.count_nonzero(best >= reached - 1e-9)) / (1 + PERMUTATIONS))


def detectable_excess(nearest: NearestPatients, close: int, needed: int) -> float:
    """Excess that the p-value would have shown in four of five audits, had all of it come on top of the look-alikes.

    Args:
        close: images above the threshold, whomever they are nearest to; none of them copies in the worst case.
        needed: of ``patients_needed``.
    """
    m, ratio = len(nearest.similarity), nearest.ratio
    share = ratio / (1 + ratio)
    spread = (1 + ratio) * np.sqrt(max(close, 1) * share * (1 - share))
    return float(min(1.0, max(needed / m, (SIZE_Z + POWER_Z) * spread / m)))


def _warnings(nearest: NearestPatients, needed: int) -> list[str]:
    training = nearest.training
    each = [float(nearest.images[side].mean()) for side in (training, ~training)]
    found = []
    if max(each) > UNEQUAL * min(each):
        found.append(
            f"There are {each[0]:.1f} images of each training patient and {each[1]:.1f} of each held-out patient: for "
            "the reference control they count by images. Choose images of both alike."
        )
    return found


def look_alike_share(nearest: NearestPatients) -> Floats:
    """For each image: of all images that are as close as this one to a training patient, how many are look-alikes?

    Estimated from those that are as close or closer to a held-out patient (target-decoy competition). A list of all
    images with a share of at most 5 % holds at most 5 % look-alikes on average, whatever the samples look like. Counted
    by images and by patients, of which the larger share holds: a patient who is near to all samples of a generator is
    a training patient by one draw, however many samples there are.

    Returns:
        ``(m,)`` from 0 to 1; 1 for images that are nearest to a held-out patient.

    Example:
        >>> import numpy as np
        >>> nearest = NearestPatients(np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 1, 0]), np.array([True, False]),
        ...                           np.array([4, 1]))
        >>> look_alike_share(nearest).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    in_training = nearest.training[nearest.patient]
    order = np.argsort(-nearest.similarity, kind="stable")
    # Equal similarities stand together: all of them count for each.
    last = np.searchsorted(-nearest.similarity[order], -nearest.similarity[order], side="right") - 1

    def among(counted: NDArray[np.bool_], ratio: float) -> Floats:
        from_training, from_unseen = (np.cumsum(counted & side[order])[last] for side in (in_training, ~in_training))
        return np.asarray(ratio * (1 + from_unseen) / np.maximum(1, from_training), dtype=np.float64)

    first = np.zeros(len(order), dtype=bool)
    first[np.unique(nearest.patient[order], return_index=True)[1]] = True
    n_training = int(nearest.training.sum())
    by_patients = among(first, max(nearest.ratio, n_training / (len(nearest.training) - n_training)))
    share = np.maximum(among(np.ones(len(order), dtype=bool), nearest.ratio), by_patients)
    smallest = np.minimum.accumulate(np.minimum(1.0, share)[::-1])[::-1]
    result = np.empty(len(order))
    result[order] = smallest
    return np.where(in_training, result, 1.0)

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How sure, and of what: the list of copies, the sampling curve, and patients told apart from images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.comparison import Comparison
from monai_memo.audit.configuration import AuditConfiguration
from monai_memo.audit.inputs import Inputs
from monai_memo.audit.parts import DiscoveriesPart, SamePatient, SamplingCurve, VerificationPart
from monai_memo.audit.searching import Searched
from monai_memo.data.prepared import PreparedCohort
from monai_memo.search.protocols import Search
from monai_memo.statistics.discoveries import Discoveries, discover
from monai_memo.statistics.rates import AuditRates, audit_rates
from monai_memo.statistics.reference import ReferenceControl, look_alike_share, reference_control
from monai_memo.statistics.sampling_curve import sampling_curve
from monai_memo.statistics.standard import Embeddings, StandardNumber, standard_numbers

SENTENCE = (
    "The training images nearest by embedding, by shape and (of pictures) by keypoints were brought to lie on the "
    "synthetic image (mirrored, turned, zoomed, shifted, inverted) and compared with it place by place in several "
    "frequency bands. The similarity is the correlation in the two fifths of all places that agree best: 1 is "
    "identical, 0 unrelated."
)
OWN_SENTENCE = (
    "Candidates were found and compared by a search that was brought along (own parts: {}). What a similarity means is "
    "theirs to say; thresholds, p-values and both controls were measured with it."
)
WHOLE_SENTENCE = (
    " Where the whole images, as stored or mirrored, are more alike than that (squared error, judged by the error to "
    "further training images and brought to the same scale), this counts instead: such copies keep the layout and "
    "redraw the detail, and their map of local agreement stays pale. So does being far ahead of the candidates of "
    "other patients, on the same scale: noise, writing or a second image over a copy lower the agreement of all alike. "
    "Where a candidate is nearer than other patients' images are by both, they add up (root of the sum of squares)."
)
MOST_PAIRS, FEWEST_PAIRS = 200, 20
SAME_IMAGE_QUANTILE = 0.95


@dataclass(frozen=True)
class Certainty:
    """What an audit says beyond its counts.

    Attributes:
        discoveries: p-values and list of copies.
        sampling_curve: see ``describe_sampling``.
        same_patient: see ``same_patient_similarity``.
        verification: how similarities came about; None where they are those of the embeddings.
    """

    discoveries: Discoveries
    sampling_curve: SamplingCurve
    same_patient: SamePatient | None
    verification: VerificationPart | None


@dataclass(frozen=True)
class Calibrated:
    """The numbers of an audit, and how sure they are.

    Attributes:
        rates: thresholds, counts and controls with their intervals.
        certainty: p-values, list of copies, and patients told apart from images.
        reference: the reference control; None where it was left out.
        look_alikes: of each synthetic image, see ``statistics.reference.look_alike_share``.
        standard: numbers that readers know from papers.
    """

    rates: AuditRates
    certainty: Certainty
    reference: ReferenceControl | None = None
    look_alikes: NDArray[np.float64] | None = None
    standard: Sequence[StandardNumber] = ()


def calibrate(settings: AuditConfiguration, inputs: Inputs, searched: Searched) -> Calibrated:
    """Thresholds from the held-out images, counts from the synthetic ones, and how sure these are."""
    rates = audit_rates(
        searched.comparison.sims,
        settings.calibration,
        settings.quantile,
        settings.confidence,
        settings.n_bootstrap,
        settings.seed,
        searched.own,
    )
    tau, nearest = rates.tau.value, searched.reference
    certainty = judge(settings, inputs.training, searched, tau)
    vectors = searched.embeddings
    embeddings = Embeddings.of(vectors["training"], vectors["heldout"], vectors["synthetic"], settings.seed)
    standard = standard_numbers(embeddings)
    if nearest is None:
        return Calibrated(rates, certainty, standard=standard)
    reference = reference_control(nearest, tau, settings.confidence, settings.seed)
    return Calibrated(rates, certainty, reference, look_alike_share(nearest), standard)


def judge(settings: AuditConfiguration, training: PreparedCohort, searched: Searched, tau: float) -> Certainty:
    """List of copies, sampling curve, and what different images of one patient look like."""
    sims, search = searched.comparison.sims, searched.search
    found = discover(
        sims.synthetic_to_training,
        sims.heldout_to_training,
        settings.fdr,
        sims.heldout_patients,
        searched.comparison.p_values,
        searched.own,
    )
    curve = describe_sampling(searched.comparison, tau, found, settings.confidence, settings.seed)
    if search is None:
        return Certainty(found, curve, None, None)
    same_patient = None
    if training.cohort.patients_known:
        same_patient = same_patient_similarity(
            search, training.pixels, training.cohort.patient_ids, tau, settings.seed, searched.matched.soften
        )
    return Certainty(found, curve, same_patient, describe_verification(search))


def describe_verification(search: Search) -> VerificationPart:
    """For the record: how similarities came about."""
    kind = search.describe()
    return {
        "neighbours": kind["neighbours"],
        "refined": kind["refined"],
        "whole_images": kind["whole_images"],
        "sentence": (OWN_SENTENCE.format(", ".join(kind["own"])) if kind["own"] else SENTENCE)
        + (WHOLE_SENTENCE if kind["whole_images"] else ""),
    }


def describe_discoveries(found: Discoveries) -> DiscoveriesPart:
    """For the record: how many are listed, at which rate, and what the held-out cohort allows."""
    return {
        "fdr": found.rate,
        "listed": int(found.listed.sum()),
        "smallest_p": found.smallest_p,
        "least": found.least,
        "warning": found.warning,
    }


def describe_sampling(
    comparison: Comparison, tau: float, found: Discoveries, confidence: float, seed: int
) -> SamplingCurve:
    """Distinct training images copied, over the number of synthetic images, from the listed copies.

    Where the list is empty for want of held-out images, the copies above tau stand in; chance matches among them make
    the curve steeper.
    """
    similarity = comparison.sims.synthetic_to_training
    from_list = bool(found.listed.any())
    called = found.listed if from_list else similarity > tau
    curve = sampling_curve(
        comparison.nearest_training[called], len(similarity), comparison.sims.n_train, confidence, seed=seed
    )
    return {
        "copies": "listed" if from_list else "above_tau",
        "drawn": curve.drawn.tolist(),
        "copied": curve.copied.round(3).tolist(),
        "low": curve.low.round(3).tolist(),
        "high": curve.high.round(3).tolist(),
        "seen": curve.seen,
        "once": curve.once,
        "twice": curve.twice,
        "limit": curve.limit,
    }


def same_patient_pairs(patient_ids: Sequence[str], most: int, seed: int) -> list[tuple[int, int]]:
    """Random pairs of different images of one patient, at most one per patient and round, until there are ``most``."""
    images: dict[str, list[int]] = defaultdict(list)
    for position, patient in enumerate(patient_ids):
        images[patient].append(position)
    rng = np.random.default_rng([seed, 11])
    pairs: set[tuple[int, int]] = set()
    several = [found for _, found in sorted(images.items()) if len(found) > 1]
    for _ in range(3):
        for place in rng.permutation(len(several)):
            if len(pairs) < most:
                first, second = rng.permutation(several[place])[:2]
                pairs.add((int(first), int(second)))
    return sorted(pairs)


def same_patient_similarity(
    search: Search,
    pixels: NDArray[np.floating],
    patient_ids: Sequence[str],
    tau: float,
    seed: int,
    soften: Callable[[NDArray[np.floating]], NDArray[np.floating]] | None = None,
) -> SamePatient | None:
    """What two different images of one patient look like to the verification.

    Returns:
        ``pairs`` measured, ``above_tau`` share of them, and ``threshold``: the similarity that 95 % of them stay below,
        so that a copy above it is the very image. None with fewer than 20 pairs in the training cohort.
    """
    pairs = same_patient_pairs(patient_ids, MOST_PAIRS, seed)
    if len(pairs) < FEWEST_PAIRS:
        return None
    first = np.array([first for first, _ in pairs])
    second = np.array([[second] for _, second in pairs], dtype=np.int64)
    codes = np.unique(np.asarray(patient_ids), return_inverse=True)[1].astype(np.int64)
    images = np.asarray(pixels[first])
    found = search.score(images if soften is None else soften(images), second, codes[first])
    similarity = found.similarity[:, 0]
    return {
        "pairs": len(pairs),
        "above_tau": float((similarity > tau).mean()),
        "threshold": max(tau, float(np.quantile(similarity, SAME_IMAGE_QUANTILE))),
    }

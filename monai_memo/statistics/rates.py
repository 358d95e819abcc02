# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""N_copies and N_mem with their thresholds, controls and intervals: the numbers of an audit.

Intervals come from one bootstrap over patients, through thresholds and counts together. Only queries are resampled: the
images whose nearest neighbour is looked up. The gallery, in which they are looked up, stays as it is: resampled, it
would hold 63 % of its images only, and every maximum would fall.

* N_mem: training patients are resampled, through the threshold and the count together.
* N_copies: held-out patients (size-matched) or training patients (paper) are resampled for tau, synthetic images for
  the count, and for what they themselves show against unseen patients (``own_references``).

The coverage of these intervals under repetition of the whole audit, with new patients in every cohort, is measured in
``monai_memo.benchmark.coverage``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from monai_memo.statistics.calibration import (
    MODES,
    memorized_level,
    require_heldout,
    threshold_copies,
    threshold_memorized,
    threshold_paper,
    upper_quantile,
)
from monai_memo.statistics.control import control_copies, control_memorized
from monai_memo.statistics.intervals import (
    Interval,
    beta_draws,
    patient_weights,
    percentile_interval,
    shared_neighbour_variance,
    widened,
)
from monai_memo.statistics.own_references import OwnReferences
from monai_memo.statistics.similarities import NOT_COMPARED, Floats, Similarities, fisher

FEW_HELDOUT = 100  # patients; the bootstrap alone is too narrow with fewer
VALUES_AT_ONCE = 1 << 25  # weights of training images in memory, 256 MB


@dataclass(frozen=True)
class AuditRates:
    """All numbers of one audit. Rates are between 0 and 1; intervals have the confidence that was asked for.

    Attributes:
        tau: threshold for copies.
        tau_control: what held-out images alone would have made it.
        of_heldout: synthetic images that seem to be copies of held-out images, far more than chance makes; 0 otherwise.
        tau_memorized: threshold for memorized training images (the same as ``tau`` in ``paper`` mode).
        copies: rate of synthetic images above ``tau``; ``n_copies`` is their number.
        memorized: rate of training images above ``tau_memorized``; ``n_memorized`` is their number.
        memorized_patients: rate of training patients with at least one memorized image.
        control_copies, control_memorized: the same rates when held-out patients pose as synthetic.
        excess_copies, excess_memorized: rate minus control rate.
        warnings: what the sizes of the cohorts do not allow, in plain sentences.
    """

    tau: Interval
    tau_control: float
    tau_memorized: Interval
    n_copies: int
    copies: Interval
    n_memorized: int
    memorized: Interval
    n_memorized_patients: int
    memorized_patients: Interval
    control_copies: Interval
    control_memorized: Interval | None
    excess_copies: Interval
    excess_memorized: Interval | None
    warnings: tuple[str, ...]
    of_heldout: int = 0


def thresholds(sims: Similarities, mode: str = "size_matched", quantile: float = 0.95) -> tuple[float, float]:
    """``(tau, tau_memorized)`` of an audit.

    Raises:
        ValueError: unknown mode or a quantile outside (0, 1).
        CalibrationError: too few held-out patients for this quantile.
    """
    if mode not in MODES:
        raise ValueError(f"calibration must be one of {MODES}, got {mode!r}")
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must lie between 0 and 1, got {quantile!r}")
    if mode == "paper":
        tau = threshold_paper(sims.training_to_nearest_heldout, quantile)
        return tau, tau
    require_heldout(len(np.unique(sims.heldout_patients)), quantile)
    return (
        float(threshold_copies(sims.heldout_to_training, quantile=quantile)[0]),
        float(threshold_memorized(sims.training_to_heldout, sims.n_heldout, sims.n_synthetic, quantile=quantile)[0]),
    )


def _weighted_rate(similarity: Floats, taus: Floats, weights: Floats) -> Floats:
    """Rate above each draw's threshold under each draw's weights."""
    return np.array(
        [row[similarity > tau].sum() / row.sum() for tau, row in zip(taus, weights, strict=True)], dtype=np.float64
    )


def _rule_of_three(total: int, confidence: float) -> float:
    """What none of so many leaves open: 3 / M at 95 %."""
    return min(1.0, float(-np.log(1 - confidence) / total))


def _at_least_three(interval: Interval, count: int, total: int, confidence: float) -> Interval:
    """Zero of M is no proof of none: the upper end stays at least at 3 / M (rule of three)."""
    three = _rule_of_three(total, confidence)
    low = min(interval.low, 1 - three) if count == total else interval.low
    high = max(interval.high, three) if count == 0 else interval.high
    return Interval(interval.value, max(0.0, low), min(1.0, high))


def _excess_with_few(
    n_copies: int, n_synthetic: int, n_patients: int, quantile: float, draws: int, seed: int
) -> Floats:
    """Excess of copies over the share of unseen patients that pass tau, which itself is random.

    Resampled held-out images never exceed the largest one, near which tau lies where they are few. The share of unseen
    patients above a quantile of n others has a beta distribution (Vovk, ACML 2012).
    """
    rng = np.random.default_rng([seed, 19])
    expected = (1 - quantile) * (n_patients + 1)
    passing = rng.beta(expected, n_patients + 1 - expected, draws)
    return np.asarray(rng.beta(n_copies + 0.5, n_synthetic - n_copies + 0.5, draws) - passing, dtype=np.float64)


def _size_warnings(sims: Similarities, n_patients: int, mode: str, quantile: float) -> list[str]:
    messages = []
    if n_patients < 100:
        messages.append(
            f"Only {n_patients} held-out patients: the threshold is uncertain, see the width of its interval. "
            "200 or more are recommended."
        )
    if mode == "size_matched":
        level = memorized_level(sims.n_heldout, sims.n_synthetic, quantile)
        beyond = (1 - level) * (len(np.unique(sims.training_patients)) + 1)
        if beyond < 3:
            messages.append(
                f"With {sims.n_heldout} held-out and {sims.n_synthetic} synthetic images the threshold for memorized "
                f"training images rests on about {max(0, round(beyond))} training patients in the tail of their "
                "distribution; N_mem may be too low. Add held-out patients."
            )
    return messages


@dataclass(frozen=True)
class _TrainingDraws:
    """What resampling the training patients gives, ``(draws,)`` each.

    Attributes:
        taus: thresholds for memorized training images; in the paper's calibration for copies as well.
        memorized: rate of memorized training images.
        patients: rate of patients, who are memorized if their most similar image is.
        control: rate of training images that held-out patients, posing as synthetic, would make memorized.
    """

    taus: Floats
    memorized: Floats
    patients: Floats
    control: Floats

    @classmethod
    def of(
        cls,
        sims: Similarities,
        weights: Iterator[Floats],
        taus_of: Callable[[Floats], Floats],
        share_called: Floats | None,
    ) -> _TrainingDraws:
        """Measure them.

        Args:
            weights: ``(some draws, n_train)``, of some draws after the others.
            taus_of: thresholds under such weights.
            share_called: of ``control_memorized``.
        """
        codes, first = np.unique(sims.training_patients, return_index=True)
        best = np.full(len(codes), -np.inf)
        np.maximum.at(best, np.searchsorted(codes, sims.training_patients), sims.training_to_nearest_synthetic)
        parts = []
        for rows in weights:
            taus = taus_of(rows)
            memorized = _weighted_rate(sims.training_to_nearest_synthetic, taus, rows)
            patients = _weighted_rate(best, taus, rows[:, first])
            control = np.zeros(len(taus)) if share_called is None else rows @ share_called / rows.sum(axis=1)
            parts.append((taus, memorized, patients, control))
        return cls(*(np.concatenate(found) for found in zip(*parts, strict=True)))


def _training_weights(sims: Similarities, draws: int, rng: np.random.Generator) -> Iterator[Floats]:
    """``patient_weights`` of some draws at a time: of a million training images, all of them would take 8 GB."""
    step = max(1, VALUES_AT_ONCE // sims.n_train)
    for start in range(0, draws, step):
        yield patient_weights(sims.training_patients, min(step, draws - start), rng)


def audit_rates(
    sims: Similarities,
    mode: str = "size_matched",
    quantile: float = 0.95,
    confidence: float = 0.95,
    n_bootstrap: int = 1000,
    seed: int = 0,
    own: OwnReferences | None = None,
) -> AuditRates:
    """Thresholds, counts, controls and intervals of one audit.

    Where the synthetic images come nearer to unseen patients than held-out images come to training patients, tau is
    raised until they do not, the threshold for memorized images by as much (on Fisher's scale), and their share above
    it takes the place of the control. Where they do so more seldom, the upper end of the excess allows for it.

    Args:
        sims: similarities between the three cohorts.
        mode: ``"size_matched"`` or ``"paper"`` (see ``statistics.calibration``).
        quantile: level of the thresholds; 0.95 lets 5 % of unseen patients pass as copies.
        confidence: of the intervals.
        n_bootstrap: resamples of patients.
        seed: of the bootstrap and of the splits of the control.
        own: how near the synthetic images come to unseen patients; not looked at in the paper's calibration.

    Raises:
        CalibrationError: too few held-out patients for this quantile.
    """
    own = None if mode == "paper" else own
    tau_control, tau_memorized = thresholds(sims, mode, quantile)
    of_heldout = 0
    if own is not None:
        own, of_heldout = own.without_copies(tau_control)
    tau = tau_control if own is None else max(tau_control, own.threshold(quantile))
    # Where so many training images are no candidate of any held-out image that the quantile falls among them, every
    # candidate would count as memorized: then tau decides.
    sparse = tau_memorized <= NOT_COMPARED

    def raised(found: Floats) -> Floats:
        """By as much as tau is, on Fisher's scale."""
        return found if tau == tau_control else np.tanh(fisher(found) + fisher(tau) - fisher(tau_control))

    tau_memorized = tau if sparse else float(raised(np.array(tau_memorized)))
    called = sims.training_to_nearest_synthetic > tau_memorized
    n_called = int(np.count_nonzero(called))
    n_copies = int(np.count_nonzero(sims.synthetic_to_training > tau))
    codes = np.unique(sims.training_patients)
    patients_hit = np.unique(sims.training_patients[called])

    rng_train, rng_heldout, rng_synthetic, rng_control, rng_own = (
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(5)
    )
    heldout_weights = patient_weights(sims.heldout_patients, n_bootstrap, rng_heldout)
    control_called = control_copies(sims, mode, quantile, rng_control)
    share_called = None if sparse else control_memorized(sims, mode, quantile, rng_control)

    def taus_of(weights: Floats) -> Floats:
        if mode == "paper":
            found = upper_quantile(sims.training_to_nearest_heldout, weights, quantile, plotting="linear")
        else:
            found = threshold_memorized(sims.training_to_heldout, sims.n_heldout, sims.n_synthetic, weights, quantile)
        return np.maximum(found, tau) if sparse else raised(found)

    draws = _TrainingDraws.of(sims, _training_weights(sims, n_bootstrap, rng_train), taus_of, share_called)
    taus_memorized = draws.taus
    taus = taus_memorized if mode == "paper" else threshold_copies(sims.heldout_to_training, heldout_weights, quantile)
    if own is not None:
        taus = np.maximum(taus, own.threshold_draws(quantile, n_bootstrap, rng_own))

    ranked = np.sort(sims.synthetic_to_training)
    counts = sims.n_synthetic - np.searchsorted(ranked, taus, side="right")
    copies_draws = beta_draws(counts.astype(np.float64), sims.n_synthetic, rng_synthetic)
    memorized_draws = draws.memorized
    # A candidate that is near to many training images moves them all at once; see shared_neighbour_variance.
    above = float((sims.training_to_nearest_heldout > tau_memorized).mean())
    by_heldout = shared_neighbour_variance(
        sims.training_to_heldout, sims.heldout_neighbours, tau_memorized, sims.n_heldout
    )
    by_synthetic = shared_neighbour_variance(
        sims.training_to_synthetic, sims.synthetic_neighbours, tau_memorized, sims.n_synthetic
    )
    spread = above * (1 - above) / sims.n_train
    tau_factor = np.sqrt(1 + by_heldout / spread) if spread > 0 else 1.0
    rate_spread = memorized_draws.var()
    rate_factor = np.sqrt(1 + (by_heldout + by_synthetic) / rate_spread) if rate_spread > 0 else 1.0
    tau_memorized_draws = widened(taus_memorized, tau_memorized, tau_factor)
    memorized_draws = widened(memorized_draws, n_called / sims.n_train, rate_factor)
    patients_draws = widened(draws.patients, len(patients_hit) / len(codes), rate_factor)

    control_rate = float(control_called.mean())
    control_draws = _weighted_rate(sims.heldout_to_training, taus, heldout_weights)
    control_shown = heldout_weights @ control_called / heldout_weights.sum(axis=1)
    control_count = int(control_called.sum())
    if own is not None and tau > tau_control:  # what chance makes is then read off the synthetic images
        control_rate, control_count = float(own.shares_above(np.array([tau]))[0]), 1
        control_shown = own.shown_draws(taus, rng_own)
        control_draws = np.maximum(control_draws, control_shown)

    def interval(value: float, draws: Floats) -> Interval:
        return percentile_interval(value, draws, confidence)

    n_patients = len(np.unique(sims.heldout_patients))
    warnings = _size_warnings(sims, n_patients, mode, quantile)
    control_mem = excess_mem = None
    if sparse:
        warnings.append(
            f"With {sims.n_synthetic} synthetic and {sims.n_train} training images too few training images were "
            "compared at all for a threshold of their own: N_mem counts those that a synthetic image is more similar "
            "to than tau, and has no control. Audit more synthetic images."
        )
    elif share_called is None:
        warnings.append(
            f"The control for N_mem needs the {sims.n_heldout} held-out images split at the ratio of synthetic to "
            "held-out images, with at least ten in each part: not possible here, so N_mem has no control."
        )
    else:
        mem_rate = float(share_called.mean())
        control_mem = interval(mem_rate, draws.control)
        excess_mem = interval(n_called / sims.n_train - mem_rate, memorized_draws - mem_rate)
    copies = _at_least_three(
        interval(n_copies / sims.n_synthetic, copies_draws), n_copies, sims.n_synthetic, confidence
    )
    excess = interval(n_copies / sims.n_synthetic - control_rate, copies_draws - control_draws)
    if mode == "size_matched" and n_patients < FEW_HELDOUT:
        few = interval(
            excess.value, _excess_with_few(n_copies, sims.n_synthetic, n_patients, quantile, n_bootstrap, seed)
        )
        excess = Interval(excess.value, min(excess.low, few.low), max(excess.high, few.high))
    # What cannot be excluded: samples far from everybody pass by chance more seldom than held-out images do, so that
    # less is taken off what was counted. No control makes it less than what none of so many images would leave open.
    seldom = _rule_of_three(sims.n_synthetic, confidence)
    if own is not None:
        by_chance = np.minimum(control_draws, own.shown_draws(taus, rng_own))
        seldom = max(seldom, interval(excess.value, copies_draws - by_chance).high)
    excess = Interval(excess.value, excess.low, max(excess.high, seldom))
    return AuditRates(
        tau=interval(tau, tau_memorized_draws if mode == "paper" else taus),
        tau_control=tau_control,
        tau_memorized=interval(tau_memorized, tau_memorized_draws),
        n_copies=n_copies,
        copies=copies,
        n_memorized=n_called,
        memorized=_at_least_three(
            interval(n_called / sims.n_train, memorized_draws), n_called, sims.n_train, confidence
        ),
        n_memorized_patients=len(patients_hit),
        memorized_patients=_at_least_three(
            interval(len(patients_hit) / len(codes), patients_draws), len(patients_hit), len(codes), confidence
        ),
        control_copies=_at_least_three(
            interval(control_rate, control_shown),
            control_count,
            sims.n_heldout,
            confidence,
        ),
        control_memorized=control_mem,
        excess_copies=excess,
        excess_memorized=excess_mem,
        warnings=tuple(warnings),
        of_heldout=of_heldout,
    )

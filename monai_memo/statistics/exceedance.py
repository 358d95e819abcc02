# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How many images exceed what unseen patients show: one threshold, one count, one control, by any score.

Used for copies in part, whose score is no correlation and which have no counterpart on the side of training images.
As for copies as a whole, what the images themselves show among patients whom nobody trained on raises the threshold
(``statistics.own_references``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np

from monai_memo.settings.keywords import with_defaults
from monai_memo.statistics.calibration import threshold_copies
from monai_memo.statistics.intervals import Interval, patient_weights, percentile_interval, proportion_interval
from monai_memo.statistics.own_references import OwnReferences
from monai_memo.statistics.similarities import Floats, Integers


@dataclass(frozen=True)
class Exceedance:
    """Images above a threshold that unseen patients set.

    Attributes:
        tau: the threshold.
        tau_control: that of held-out images alone.
        n: images above tau.
        rate: their share.
        control: the share of held-out images above it; where tau was raised, what chance makes of such images.
        excess: rate minus control; its interval covers new held-out patients and new images.
    """

    tau: Interval
    tau_control: float
    n: int
    rate: Interval
    control: Interval
    excess: Interval


class ExceedanceOptions(TypedDict, total=False):
    """What can be chosen.

    Attributes:
        quantile: level of the threshold; 0.95 by default.
        confidence: of the intervals; 0.95 by default.
        draws: resamples of patients; 1,000 by default.
        seed: of these; 0 by default.
    """

    quantile: float
    confidence: float
    draws: int
    seed: int


DEFAULTS = ExceedanceOptions(quantile=0.95, confidence=0.95, draws=1000, seed=0)


def exceedance(
    scores: Floats,
    heldout: Floats,
    patients: Integers,
    own: OwnReferences | None = None,
    **options: Unpack[ExceedanceOptions],
) -> Exceedance:
    """Count the images whose score lies above a quantile of the held-out images' scores.

    The share of unseen patients that pass such a quantile is itself random, with a beta distribution (Vovk, ACML 2012);
    the interval of the excess rests on it, whatever the distribution of scores.

    Args:
        scores: ``(n,)``.
        heldout: ``(m,)``.
        patients: ``(m,)`` code of the patient of each held-out image.
        own: scores of the same images among patients whom nobody trained on.
        options: see ``ExceedanceOptions``.

    Example:
        >>> import numpy as np
        >>> heldout = np.linspace(0, 1, 99)
        >>> found = exceedance(np.array([0.2, 0.5, 2.0, 3.0]), heldout, np.arange(99))
        >>> found.n, round(found.tau.value, 2), found.excess.low > 0
        (2, 0.96, True)
    """
    chosen = with_defaults(DEFAULTS, options, "exceedance")
    quantile, confidence, draws = chosen["quantile"], chosen["confidence"], chosen["draws"]
    rng = np.random.default_rng([chosen["seed"], 29])
    tau_control = tau = float(threshold_copies(heldout, quantile=quantile)[0])
    taus = threshold_copies(heldout, patient_weights(patients, draws, rng), quantile)
    if own is not None:
        tau = max(tau_control, own.threshold(quantile))
        taus = np.maximum(taus, own.threshold_draws(quantile, draws, rng))
    above = scores > tau
    n, n_patients = int(above.sum()), len(np.unique(patients))
    rate = proportion_interval(n, len(scores), confidence)
    expected = (1 - quantile) * (n_patients + 1)
    passing = rng.beta(expected, max(n_patients + 1 - expected, 1e-3), draws)
    rates = rng.beta(n + 0.5, len(scores) - n + 0.5, draws)
    by_chance = float((heldout > tau).mean())
    if own is not None and tau > tau_control:
        by_chance, passing = float(own.shares_above(np.array([tau]))[0]), np.maximum(passing, own.shares_above(taus))
    control = percentile_interval(by_chance, passing, confidence)
    return Exceedance(
        tau=percentile_interval(tau, taus, confidence),
        tau_control=tau_control,
        n=n,
        rate=rate,
        control=control,
        excess=percentile_interval(rate.value - control.value, rates - passing, confidence),
    )

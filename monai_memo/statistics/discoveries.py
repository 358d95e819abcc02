# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How sure is each single copy? Conformal p-values and a list of copies at a chosen false discovery rate.

The p-value of a synthetic image says how many of the held-out images are at least as similar to a training image. It is
valid for any score as long as held-out and novel synthetic images are exchangeable (Vovk, Gammerman, Shafer 2005). All
p-values share the held-out images; that dependence is positive, and the procedure of Benjamini and Hochberg (JRSS B
1995) keeps its rate under it (Bates, Candes, Lei, Romano, Sesia, Annals of Statistics 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from monai_memo.statistics.own_references import OwnReferences
from monai_memo.statistics.similarities import Floats


@dataclass(frozen=True)
class Discoveries:
    """Copies at a chosen false discovery rate.

    Attributes:
        p_values: ``(n_synthetic,)``.
        listed: ``(n_synthetic,)``, whether the image is on the list.
        rate: false discovery rate that was asked for.
        smallest_p: the smallest p-value that the held-out cohort allows, ``1 / (held-out patients + 1)``.
        least: the fewest images that a list can hold: fewer copies than that, however clear, leave it empty.
        warning: in plain words, where that is more than one and the list is empty; empty text otherwise.
    """

    p_values: Floats
    listed: NDArray[np.bool_]
    rate: float
    smallest_p: float
    least: int
    warning: str


def conformal_p_values(scores: Floats, heldout: Floats, patients: NDArray[np.integer] | None = None) -> Floats:
    """Share of held-out scores, itself included, that reach each score.

    Images of one patient are alike and do not count as so many: each patient counts once, by the share of its images.

    Args:
        scores: ``(n,)``, higher means more like a copy.
        heldout: ``(m,)`` scores of images that copy nothing.
        patients: ``(m,)`` codes of their patients; by default each image is one.

    Example:
        >>> import numpy as np
        >>> conformal_p_values(np.array([0.95, 0.25]), np.array([0.1, 0.2, 0.3, 0.4])).tolist()
        [0.2, 0.6]
    """
    if len(heldout) == 0:
        raise ValueError("p-values need at least one held-out score")
    codes = np.arange(len(heldout)) if patients is None else np.unique(patients, return_inverse=True)[1]
    order = np.argsort(heldout, kind="stable")
    weights = 1.0 / np.bincount(codes)[codes[order]]
    from_here_on = np.append(np.cumsum(weights[::-1])[::-1], 0.0)
    reached = from_here_on[np.searchsorted(heldout[order], scores, side="left")]
    return np.asarray((1.0 + reached) / (2.0 + codes.max()), dtype=np.float64)


def benjamini_hochberg(p_values: Floats, rate: float) -> NDArray[np.bool_]:
    """Which hypotheses are rejected at this false discovery rate.

    Example:
        >>> import numpy as np
        >>> benjamini_hochberg(np.array([0.01, 0.02, 0.04, 0.9]), 0.05).tolist()
        [True, True, False, False]
    """
    if not 0 < rate < 1:
        raise ValueError(f"the false discovery rate must lie between 0 and 1, got {rate!r}")
    if len(p_values) == 0:
        return np.zeros(0, dtype=bool)
    # Conformal p-values are fractions that often meet the limit exactly: rounding must not decide.
    adjusted = false_discovery_control(np.minimum(p_values, 1.0), method="bh")
    return np.asarray(adjusted <= rate + 1e-12, dtype=bool)


def discover(
    scores: Floats,
    heldout: Floats,
    rate: float = 0.05,
    patients: NDArray[np.integer] | None = None,
    p_values: Floats | None = None,
    own: OwnReferences | None = None,
) -> Discoveries:
    """P-values, list and what the size of the held-out cohort allows.

    Args:
        scores: ``(n_synthetic,)`` similarity of each synthetic image to its nearest training image.
        heldout: ``(n_heldout,)`` the same for held-out images.
        patients: ``(n_heldout,)`` codes of their patients; by default each image is one.
        rate: false discovery rate: at most this share of the list is expected to be no copies.
        p_values: ``(n_synthetic,)`` where they are known, since some images have references of their own.
        own: how near the synthetic images come to unseen patients. Where more of them reach a score there than of the
            held-out images among training patients, that share is the p-value.
    """
    p_values = conformal_p_values(scores, heldout, patients) if p_values is None else p_values
    p_values = p_values if own is None else np.maximum(p_values, own.reached(scores))
    n_patients = len(heldout) if patients is None else len(np.unique(patients))
    unit = "images" if n_patients == len(heldout) else "patients"
    smallest = 1.0 / (1.0 + n_patients)
    least = int(np.ceil(smallest * len(scores) / rate - 1e-9))
    listed = benjamini_hochberg(p_values, rate)
    warning = ""
    if least > 1 and not listed.any():  # a list that has images shows that there were enough
        needed = int(np.ceil(len(scores) / rate)) - 1
        warning = (
            f"With {n_patients} held-out {unit} no p-value can be smaller than {smallest:.2g}, so that the list of "
            f"copies at a false discovery rate of {100 * rate:g} % holds {least} of the {len(scores)} synthetic images "
            f"or none, and now none: fewer copies cannot appear on it, however clear they are. {needed} held-out "
            f"{unit} would lift this."
        )
        if least > len(scores):
            warning = (
                f"With {n_patients} held-out {unit} the list of copies at a false discovery rate of {100 * rate:g} % "
                f"is always empty: no p-value can be smaller than {smallest:.2g}. Add held-out {unit} or raise --fdr."
            )
    return Discoveries(p_values, listed, rate, smallest, least, warning)

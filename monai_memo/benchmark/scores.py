# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Detection scores of planted copies against images of unseen patients."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.statistics.intervals import Interval, percentile_interval, proportion_interval

FALSE_POSITIVE_RATES = (0.01, 0.001)


@dataclass(frozen=True)
class KindScore:
    """How well one kind of planted copy is told from unseen patients.

    Attributes:
        kind: name of the kind, or ``"all"``.
        n: planted copies.
        auc: area under the ROC curve of the similarity to the nearest training image.
        tpr: share found at each false positive rate; None where there are too few negatives for that rate.
        retrieval: share whose nearest training image is the original.
    """

    kind: str
    n: int
    auc: Interval
    tpr: dict[str, Interval | None]
    retrieval: Interval

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)


def threshold_at(negatives: NDArray[np.float64], false_positive_rate: float) -> float | None:
    """The similarity that this share of negatives exceeds, or None with fewer than ``1 / rate`` negatives.

    Example:
        >>> import numpy as np
        >>> threshold_at(np.arange(100.0), 0.01), threshold_at(np.arange(100.0), 0.001)
        (98.0, None)
    """
    allowed = int(np.floor(false_positive_rate * len(negatives) + 1e-9))
    if allowed < 1:
        return None
    return float(np.sort(negatives)[len(negatives) - 1 - allowed])


def _found(positives: NDArray[np.float64], negatives: NDArray[np.float64], threshold: float, rate: float) -> float:
    """Copies found at this rate. Of those tied with the threshold a share counts, as on a line between ROC points.

    Scores with few values (hashes) would otherwise be held to a stricter rate than the one stated.
    """
    above, tied = np.count_nonzero(negatives > threshold), np.count_nonzero(negatives == threshold)
    share = min(1.0, (np.floor(rate * len(negatives) + 1e-9) - above) / tied)
    return float(np.count_nonzero(positives > threshold) + share * np.count_nonzero(positives == threshold))


def kind_score(
    kind: str,
    positives: NDArray[np.float64],
    negatives: NDArray[np.float64],
    retrieved: NDArray[np.bool_],
    n_bootstrap: int = 500,
    seed: int = 0,
) -> KindScore:
    """Score planted copies of one kind.

    Args:
        positives: ``(n,)`` similarity of each planted copy to its nearest training image.
        negatives: ``(m,)`` the same for images of unseen patients.
        retrieved: ``(n,)`` whether that nearest training image is the original.
        n_bootstrap: resamples of copies and of negatives for the interval of the AUC.

    Raises:
        ValueError: no positives or no negatives.
    """
    if len(positives) == 0 or len(negatives) == 0:
        raise ValueError(f"{kind}: scores need copies and negatives, got {len(positives)} and {len(negatives)}")
    rng = np.random.default_rng(seed)

    def auc(p: NDArray[np.float64], n: NDArray[np.float64]) -> float:
        ranked = np.sort(n)  # the Mann-Whitney form of the area: quick enough for the bootstrap
        below = np.searchsorted(ranked, p, side="left") + np.searchsorted(ranked, p, side="right")
        return float(below.mean() / (2 * len(n)))

    draws = np.array(
        [auc(rng.choice(positives, len(positives)), rng.choice(negatives, len(negatives))) for _ in range(n_bootstrap)]
    )
    tpr: dict[str, Interval | None] = {}
    for rate in FALSE_POSITIVE_RATES:
        threshold = threshold_at(negatives, rate)
        found = None if threshold is None else _found(positives, negatives, threshold, rate)
        tpr[f"{rate:g}"] = None if found is None else proportion_interval(found, len(positives))
    return KindScore(
        kind=kind,
        n=len(positives),
        auc=percentile_interval(auc(positives, negatives), draws),
        tpr=tpr,
        retrieval=proportion_interval(int(retrieved.sum()), len(retrieved)),
    )


def markdown_table(scores: list[KindScore]) -> str:
    """Scores as a Markdown table, one row per kind."""

    def cell(interval: Interval | None) -> str:
        if interval is None:
            return "too few negatives"
        return f"{interval.value:.3f} ({interval.low:.3f}-{interval.high:.3f})"

    header = [
        "kind",
        "n",
        "AUC",
        *(f"TPR at {100 * rate:g} % FPR" for rate in FALSE_POSITIVE_RATES),
        "original nearest",
    ]
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    for score in scores:
        cells = [cell(score.auc), *(cell(value) for value in score.tpr.values()), cell(score.retrieval)]
        lines.append(" | ".join([score.kind, str(score.n), *cells]))
    return "\n".join(f"| {line} |" for line in lines) + "\n"

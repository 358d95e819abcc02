# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""From numbers to a verdict in words."""

from __future__ import annotations

from collections.abc import Sequence

from monai_memo.audit.parts import Count, Estimate, Sensitivity, Verdict

SENSITIVITY_NEEDED = 0.5
SHARE_OF_CONCERN = 0.05


def percent(rate: float, digits: int = 1) -> str:
    """``0.0312`` as ``3.1 %``."""
    return f"{100 * rate:.{digits}f} %"


def unread_training(n_used: int, n_skipped: int) -> list[str]:
    """What a training cohort with unreadable images means for a verdict that found nothing: no or one sentence."""
    total = n_used + n_skipped
    if n_skipped <= SHARE_OF_CONCERN * total:
        return []
    return [
        f"{n_skipped} of {total} training images ({percent(n_skipped / total)}) could not be read, so that copies of "
        "them cannot be found. Mend these files, or take them off the list if the generator never saw them, and audit "
        "again."
    ]


def verdict_for(
    n_copies: Count,
    control: Estimate,
    excess: Estimate,
    sensitivity: Sensitivity | None,
    confidence: float = 0.95,
    concerns: Sequence[str] = (),
    unread: int = 0,
) -> Verdict:
    """The verdict on a synthetic cohort.

    * ``copies_found``: the whole interval of the excess over the control lies above zero.
    * ``inconclusive``: the detector found fewer than half of the copies planted as a check, the cohorts themselves give
      cause for concern, or a share of copies of 5 % or more cannot be excluded.
    * ``no_excess``: none of these.

    Args:
        concerns: why finding nothing would say little: training images not read, cohorts of different orientation.
        unread: synthetic images that could not be read: the verdict does not cover them, and says so.

    Returns:
        ``level``, ``headline`` and ``detail``, for readers who are no engineers.
    """
    verdict = _verdict(n_copies, control, excess, sensitivity, confidence, concerns)
    if unread:
        was = f"{unread} synthetic image{'s' if unread > 1 else ''} could not be read"
        verdict["detail"] += f" {was}: this verdict does not cover {'them' if unread > 1 else 'it'}. Do not share what "
        verdict["detail"] += "was not audited."
    return verdict


def _verdict(
    n_copies: Count,
    control: Estimate,
    excess: Estimate,
    sensitivity: Sensitivity | None,
    confidence: float,
    concerns: Sequence[str],
) -> Verdict:
    share = f"{n_copies.value} of {n_copies.of} synthetic images ({percent(n_copies.rate.value)})"
    expected = f"About {percent(control.value)} would be expected if nothing had been copied."
    if excess.low > 0:
        return {
            "level": "copies_found",
            "headline": f"Copies found: {share} are closer to a training patient than unseen patients are.",
            "detail": f"{expected} The excess is {percent(excess.value)} of the synthetic images "
            f"({100 * confidence:g} % interval {percent(excess.low)} to {percent(excess.high)}). Do not share this "
            "data set as it is: remove the copies listed in matches.csv, or train the generator again, and audit the "
            "result.",
        }
    bound = max(0.0, excess.high)
    if sensitivity is not None and sensitivity["rate"].value < SENSITIVITY_NEEDED:
        return {
            "level": "inconclusive",
            "headline": "Not conclusive: the detector would miss most copies.",
            "detail": f"Of {sensitivity['planted']} copies planted as a check it found {sensitivity['found']}, so that "
            f"finding {share} says little. Train the detector longer or on larger images, and audit again.",
        }
    if concerns:
        return {
            "level": "inconclusive",
            "headline": "Not conclusive: copies may have been missed because of the files.",
            "detail": f"{share} lie above the threshold. {expected} But: {' '.join(concerns)}",
        }
    if bound > SHARE_OF_CONCERN:
        return {
            "level": "inconclusive",
            "headline": f"Not conclusive: up to {percent(bound)} of the synthetic images could still be copies.",
            "detail": f"{share} lie above the threshold. {expected} The cohorts are too small to tell such a share "
            "from chance. Add held-out patients and synthetic images, and audit again.",
        }
    return {
        "level": "no_excess",
        "headline": f"No more copies than among unseen patients; up to {percent(bound)} cannot be excluded.",
        "detail": f"{share} lie above the threshold. {expected} This speaks about copies that the detector can see; "
        "what it cannot say stands further down.",
    }

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""From numbers to a verdict in words."""

from __future__ import annotations

from collections.abc import Sequence

from monai_memo.audit.parts import AgreementPart, Count, Estimate, ReferencePart, Sensitivity, Verdict

SENSITIVITY_NEEDED = 0.5
SHARE_OF_CONCERN = 0.05
ALIKE = 0.5  # share of the excess over the control that the reference control has to see, or it sees look-alikes


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


def first_thing_to_do(verdict: Verdict, n_in_part: int = 0, redacted: bool = False) -> str:
    """What to do after an audit, in a sentence or two: it stands before the numbers, on the screen and in the report.

    Args:
        n_in_part: copies in part above their threshold.
        redacted: a redacted audit holds no names, and no release can be made from it.
    """
    if verdict["level"] == "inconclusive":
        return "Do not share this data set on the strength of this audit: mend what made it so, and audit again."
    if verdict["level"] == "no_excess":
        return (
            "Look at the most similar pairs and read what this audit cannot say; then fill in a card "
            "(monai-memo card --audit OUT --out card.md) and let the people who answer for the data decide."
        )
    parts = " and those in part" if n_in_part else ""
    how = "audit without --redacted, then run " if redacted else "run "
    return (
        f"Do not share this data set as it is. To take the copies{parts} out, {how}monai-memo release --audit OUT "
        "--out FOLDER, which also checks what is left; or train the generator again, and audit."
    )


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
    return covering(_verdict(n_copies, control, excess, sensitivity, confidence, concerns), unread)


def covering(verdict: Verdict, unread: int) -> Verdict:
    """A verdict that says which synthetic images it does not cover."""
    if unread:
        verdict = {**verdict}
        was = f"{unread} synthetic image{'s' if unread > 1 else ''} could not be read"
        verdict["detail"] += f" {was}: this verdict does not cover {'them' if unread > 1 else 'it'}. Do not share what "
        verdict["detail"] += "was not audited."
    return verdict


def weighed(
    verdict: Verdict,
    excess: Estimate,
    reference: ReferencePart | None,
    confidence: float = 0.95,
    samples: int | None = None,
) -> Verdict:
    """The verdict of the control on held-out images, weighed against the reference control.

    * Both say copies: copies. Where the reference control says fewer, it is told how many are look-alikes.
    * The control says copies, and the reference control is compatible with none: the same samples are as close to
      patients whom the generator never saw, so that nothing is proven, and nothing is safe either. Where the galleries
      are too small for the reference control to say either, the copies stand, and it is told that they are unconfirmed.
    * The reference control says copies, and the control does not: a warning of copies.
    * Neither says copies, but tau had to be raised over many images, and the reference control cannot exclude that some
      are copies: not conclusive. Nor where many are above tau and not called, since their patient is near to many.

    Args:
        verdict: of ``verdict_for``.
        excess: over the control.
        reference: None where it was left out.
        samples: number of synthetic images.
    """
    if reference is None:
        return verdict
    ours, level = reference.excess, 1 - confidence
    numbers = _numbers(reference, confidence)
    # A small estimate means something only where the galleries could have shown more.
    able = reference.detectable < excess.value
    fewer = ours.high < excess.value or (able and ours.value < ALIKE * excess.value)
    if verdict["level"] != "copies_found":
        if reference.p_value > level / 2:
            between, near_many = (
                (number or 0) / samples if samples else 0.0 for number in (reference.between, reference.near_many)
            )
            if verdict["level"] != "no_excess":
                return verdict
            if near_many > SHARE_OF_CONCERN:
                return {
                    "level": "inconclusive",
                    "headline": f"Not conclusive: {percent(near_many)} of the synthetic images are above the threshold "
                    "and near to the same few training patients.",
                    "detail": f"{numbers} They are look-alikes, or soft copies of these patients: both controls leave "
                    "them out. Look at these pairs (as_found in matches.csv is above tau, copy is false), remove them "
                    "or train the generator again, and audit the result.",
                }
            if min(between, ours.high) <= SHARE_OF_CONCERN:
                return verdict
            return {
                "level": "inconclusive",
                "headline": f"Not conclusive: look-alikes. {percent(between)} of the synthetic images come as near to "
                "training patients as samples of this generator come to anybody.",
                "detail": f"{numbers} So copies are not shown, and up to {percent(ours.high)} cannot be excluded. Look "
                "at the most similar pairs, add held-out patients, and audit again.",
            }
        return {
            "level": "copies_found",
            "headline": "Copies found: synthetic images are closer to training patients than to patients whom the "
            "generator never saw.",
            "detail": f"{numbers} The control on held-out images does not show it: it compares with real images, which "
            "can be closer to one another than samples are to anybody. Do not share this data set as it is: look at "
            "the most similar pairs, remove copies or train the generator again, and audit the result.",
        }
    if reference.p_value <= level:
        note = " So a part of the excess over the control are look-alikes, no copies." if fewer else ""
        return {**verdict, "detail": f"{verdict['detail']} {numbers}{note}"}
    if fewer:
        return {
            "level": "inconclusive",
            "headline": "Not conclusive: look-alikes. The same samples are as close to patients whom the generator "
            "never saw.",
            "detail": f"The control on held-out images takes {percent(excess.value)} of the synthetic images for "
            f"copies. But: {numbers} Samples near the mean of many patients resemble everybody. This is no proof that "
            f"nothing was copied: up to {percent(max(0.0, ours.high))} can be. Look at the most similar pairs before "
            "anything is shared.",
        }
    return {
        **verdict,
        "headline": verdict["headline"].replace("Copies found:", "Copies found, unconfirmed by the reference control:"),
        "detail": f"{verdict['detail']} {numbers} That is too little to tell copies from look-alikes: with "
        f"{reference.n_unseen_patients} held-out and {reference.n_training_patients} training patients, at least "
        f"{reference.patients_needed} different patients would have to be copied. Add held-out patients.",
    }


def resting_on(verdict: Verdict, agreement: AgreementPart | None) -> Verdict:
    """A verdict that says what images above the threshold share with training images, unless nothing was found."""
    if agreement is None or verdict["level"] == "no_excess" or not agreement.places + agreement.layout:
        return verdict
    places, layout = agreement.places, agreement.layout
    if verdict["level"] == "inconclusive":  # no proof of copying, but nobody should have to find them
        if not places:
            return verdict
        what = "agrees" if places == 1 else "agree"
        text = (
            f"{places} of those above the threshold {what} with a training image place by place, in the fine detail too"
        )
        return {**verdict, "detail": f"{verdict['detail']} {text}: look at these pairs first."}
    if not layout:
        text = f"All {places} agree with a training image place by place, in the fine detail too: the same images."
    else:
        text = (
            f"{places} agree with a training image place by place, in the fine detail too (the same image), and "
            f"{layout} as a whole only (the same layout, with other detail)."
        )
        if layout > places:
            text += " So the verdict rests mostly on shared layout: look at these pairs."
    return {**verdict, "detail": f"{verdict['detail']} {text}"}


def _numbers(reference: ReferencePart, confidence: float) -> str:
    """What the reference control found, in a sentence or two."""
    unequal = not 0.95 < reference.ratio < 1.05
    sizes = f" (there are {reference.ratio:.2g} training images for each held-out one)" if unequal else ""
    ours = reference.excess
    return (
        "Looked up among training and held-out patients together (a search of its own, so that a few more or fewer "
        f"reach the threshold), {reference.to_training} synthetic images above the threshold are nearest to a training "
        f"patient and {reference.to_unseen} to a held-out patient{sizes}. Beyond "
        f"look-alikes that is {percent(ours.value)} of the synthetic images ({100 * confidence:g} % interval "
        f"{percent(ours.low)} to {percent(ours.high)}, p = {reference.p_value:.2g})."
    )


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
            "data set as it is: remove the images whose column copy is true in matches.csv (monai-memo release --audit "
            "OUT --out FOLDER does, and checks what is left), or train the generator again, and audit the result.",
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
            "headline": "Not conclusive: copies may have been missed, since the cohorts are not as they should be.",
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

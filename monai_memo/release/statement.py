# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What is still possible after a release: an upper bound on the copies left, and whom it would concern most."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_memo.audit.parts import Estimate
from monai_memo.audit.result import AuditResult
from monai_memo.audit.verdict import SENSITIVITY_NEEDED
from monai_memo.data.cohort import SkippedImage
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.release.looks import Look
from monai_memo.release.progressed import Progressed
from monai_memo.release.rules import SECOND, SECOND_NEAR, UNUSABLE, Row
from monai_memo.release.settings import ReleaseSettings
from monai_memo.release.topping import DRAWN_AGAIN, DRAWN_OTHER, DRAWN_SURPLUS, Drawn
from monai_memo.statistics.copies_left import Remainder, copies_left, lowered_thresholds

LEVELS_BELOW = (0.9, 0.8, 0.7, 0.6, 0.5)  # of unseen patients' similarities, to which tau can be lowered
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Left:
    """An upper bound of the copies left.

    Attributes:
        copies: the bound; None where no planted copy was found, so that nothing is known.
        planted, found: copies that were planted, and those above the threshold.
        above: images above the threshold that were removed or would have been: all of them are counted as copies.
        kept_above: images above the threshold that are released all the same (not on the list, called novel by raters,
            or near a patient who is near to many of them): all of them are counted as copies left.
    """

    copies: int | None
    planted: int
    found: int
    above: int
    kept_above: int


@dataclass(frozen=True)
class SecondLook:
    """What the second detector found; no names.

    Attributes:
        images, copies, in_part: looked at, and called.
        control, excess: of copies as a whole; the control went through the same filter.
        planted, found: copies planted as a check, and those it found.
        patients: training patients whom its copies show.
        heldout: held-out images left by the filter.
    """

    images: int
    copies: int
    in_part: int
    control: Estimate
    excess: Estimate
    planted: int
    found: int
    patients: int
    heldout: int
    headline: str


@dataclass(frozen=True)
class Statement:
    """Everything that is said of a release; nothing here names anybody.

    Attributes:
        verdict: the audit's own, before anything was removed.
        audited, released: synthetic images.
        removed: by the rule, for each reason.
        removed_by_second: called by the second detector; drawn images may be among them.
        removed_near: near a patient who was copied, by the second look.
        unusable: could not be read or written.
        spared: released because raters call them novel.
        threshold: that the rule bound came to; None for other rules.
        left: the bound, from copies like those of the positive control.
        left_altered: the same from copies at every kind and strength of the limit of detection; None where it was not
            measured.
        patients_copied: training patients to whom images that were removed as copies are nearest, each to one.
        most_exposed: such images of the one who has most.
        nearest: released images whose nearest training image is of the same patient, at most.
        looks: of the second detector.
        rated: raters' ratings were taken into account.
        asked: images that were asked for where further ones were drawn; fewer can be left.
        drawn: further images of the generator: drawn in all, released, rejected as copies, for other reasons, unusable,
            surplus, and removed after they had entered.
        drawn_unusable: why some of them could not be used, with counts.
        weak_kinds: of the planted copies, kinds of which less than half were found, with the share.
    """

    verdict: str
    audited: int
    released: int
    removed: dict[str, int]
    removed_by_second: int
    removed_near: int
    unusable: int
    spared: int
    threshold: float | None
    left: Left
    left_altered: Left | None
    patients_copied: int
    most_exposed: int
    nearest: int
    looks: tuple[SecondLook, ...]
    rated: bool
    asked: int | None = None
    drawn: dict[str, int] | None = None
    drawn_unusable: str = ""
    weak_kinds: dict[str, float] = field(default_factory=dict)
    confidence: float = CONFIDENCE

    @property
    def overlooked(self) -> int | None:
        """Copies that the filter had left at least, by the first look; None where the bound allows so many.

        They may have been removed since. But then this generator's copies are found less often than the planted ones.
        """
        if not self.looks or self.left.copies is None:
            return None
        least = math.ceil(self.looks[0].excess.low * self.looks[0].images)
        return least if least > self.left.copies else None

    @property
    def doubt(self) -> str:
        """Why the bound does not hold, by what the second detector finds; empty where nothing contradicts it."""
        if self.looks and self.looks[-1].excess.low > 0:
            return "the second look finds more copies than chance does"
        if self.overlooked is not None:
            return (
                f"the first look finds {self.overlooked} copies or more that the filter had left, and the bound allows "
                f"{self.left.copies}. What it called was removed, but copies of this generator are found less often "
                "than planted ones"
            )
        return ""

    @property
    def contradicted(self) -> bool:
        """The bound is not to be quoted."""
        return bool(self.doubt)

    @property
    def unchecked(self) -> bool:
        """The second detector misses most of the planted copies: that it calls little says nothing."""
        last = self.looks[-1] if self.looks else None
        return last is not None and last.found < SENSITIVITY_NEEDED * last.planted

    @property
    def says_nothing(self) -> bool:
        """By the bound every image can be a copy."""
        return self.left.copies is not None and self.left.copies >= self.released

    @property
    def residual(self) -> str:
        """What of copies can be left, in words; the same in RELEASE.md and in the card."""
        if self.left.copies is None:
            return "not known"
        if self.contradicted:
            return f"not known: the bound does not hold, since {self.doubt}"
        return f"at most {self.left.copies} images ({100 * self.confidence:g} % confidence), of the kinds planted"

    def reasons(self) -> dict[str, int]:
        """How many images went for each reason, in the order of the steps; all steps, drawn images included."""
        further = {SECOND: self.removed_by_second, SECOND_NEAR: self.removed_near, UNUSABLE: self.unusable}
        return {**self.removed, **{reason: number for reason, number in further.items() if number}}

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


@dataclass(frozen=True)
class Released:
    """A release that is done.

    Attributes:
        out: folder to give away.
        private: folder that may not be given away.
        record: as in ``release.json``.
        statement: what is said of it.
        skipped: images that could not be released.
    """

    out: Path
    private: Path
    record: dict[str, Any]
    statement: Statement
    skipped: tuple[SkippedImage, ...]


def with_warning(result: AuditResult, text: str) -> AuditResult:
    """A record with one more thing that limits it."""
    names = result.warning_names or [[] for _ in result.warnings]
    return replace(result, warnings=[*result.warnings, text], warning_names=[*names, []])


def lowered(first: Look, rows: Sequence[Row], rejected: int = 0) -> list[Remainder]:
    """Bounds at the audit's threshold and below it, highest first; empty where no planted copy was found.

    Args:
        rejected: copies among further images that were drawn.
    """
    heldout = first.searched.comparison.sims.heldout_to_training
    lower = [float(value) for value in np.quantile(heldout, LEVELS_BELOW) if value < first.tau]
    above = sum(row.copy for row in rows) + rejected
    return lowered_thresholds(
        above, int((first.planted > first.tau).sum()), first.planted.tolist(), [first.tau, *lower], CONFIDENCE
    )


def statement_of(
    settings: ReleaseSettings, audit: AuditFolder, first: Look, rows: Sequence[Row], done: Progressed,
    threshold: float | None, rated: bool,
) -> Statement:  # fmt: skip
    """What can be said.

    Args:
        rows: of the audit.
        threshold: of the rule bound.
        rated: there were ratings.
    """
    kept = set(done.kept)
    drawn = done.drawn
    rejected = 0 if drawn is None else drawn.copies
    above = sum(row.copy for row in rows) + rejected
    # The rule bound removes what is above the lowered threshold, where its bound counts no copies.
    least = first.tau if threshold is None else threshold
    kept_above = sum((row.copy or row.above(least)) and row.name in kept for row in rows)
    found = int((first.planted > first.tau).sum())
    copies = copies_left(above, found, len(first.planted), CONFIDENCE)
    if threshold is not None:
        found = int((first.planted > threshold).sum())
        bounds = lowered(first, rows, rejected)
        copies = next((one.copies for one in bounds if one.threshold == threshold), None)
    left = Left(_at_most(copies, kept_above, len(kept)), len(first.planted), found, above, kept_above)
    patient = {row.name: row.patient for row in rows}
    exposed = Counter(done.choice.patients) + Counter(done.seconds.values())
    near = Counter(patient[name] for name in done.kept if patient[name])
    called = rejected + (0 if drawn is None else drawn.count(DRAWN_OTHER))  # copies in part may be among them
    return Statement(
        verdict=audit.result.verdict["headline"],
        audited=len(rows) - (0 if drawn is None else len(drawn.rows)),
        released=len(done.kept),
        removed=done.choice.reasons,
        removed_by_second=len(done.seconds),
        removed_near=len(done.neighbours),
        unusable=len(done.skipped),
        spared=len(kept & set(done.choice.spared)),
        threshold=threshold,
        left=left,
        left_altered=_altered(audit.result, rows, kept, settings.parts, called),
        patients_copied=len(exposed),
        most_exposed=max(exposed.values(), default=0),
        nearest=max(near.values(), default=0),
        looks=tuple(_second(one) for one in done.looks),
        rated=rated,
        asked=None if drawn is None else settings.top_up_to,
        drawn=None if drawn is None else _drawn(drawn, kept),
        drawn_unusable="" if drawn is None else drawn.reasons(),
        weak_kinds=_weak(first.result),
    )


def _at_most(copies: int | None, kept_above: int, released: int) -> int | None:
    return None if copies is None else min(released, copies + kept_above)


def _altered(result: AuditResult, rows: Sequence[Row], kept: set[str], parts: bool, rejected: int) -> Left | None:
    """From every planted copy of the limit of detection; those count as found as a whole or in part."""
    limit = result.detection_limit
    if limit is None or (result.partial is not None and not parts):
        return None
    planted = limit["copies"] * sum(len(row["found"]) for row in limit["limits"])
    found = sum(round(share * limit["copies"]) for row in limit["limits"] for share in row["found"].values())
    called = [row.name for row in rows if row.copy or row.in_part]
    kept_above = len(kept & {*called, *(row.name for row in rows if row.above(result.tau.value))})
    above = len(called) + rejected
    copies = copies_left(above, found, planted, CONFIDENCE) if planted else None
    return Left(_at_most(copies, kept_above, len(kept)), planted, found, above, kept_above)


def _weak(result: AuditResult) -> dict[str, float]:
    shares = {} if result.sensitivity is None else result.sensitivity["by_kind"]
    return {kind: share for kind, share in shares.items() if share < SENSITIVITY_NEEDED}


def _drawn(drawn: Drawn, kept: set[str]) -> dict[str, int]:
    return {
        "drawn": drawn.drawn, "released": len(kept & set(drawn.images)), "copies": drawn.copies,
        "others": drawn.count(DRAWN_OTHER, DRAWN_AGAIN), "unusable": drawn.unusable,
        "surplus": drawn.count(DRAWN_SURPLUS), "removed": len(set(drawn.images) - kept),
    }  # fmt: skip


def _second(one: Look) -> SecondLook:
    result, sensitivity = one.result, one.result.sensitivity
    return SecondLook(
        images=result.n_synthetic,
        copies=result.n_copies.value,
        in_part=0 if result.partial is None else result.partial["n_copies"].value,
        control=result.control_copies,
        excess=result.excess_copies,
        planted=0 if sensitivity is None else sensitivity["planted"],
        found=0 if sensitivity is None else sensitivity["found"],
        patients=len(set(one.called().values())),
        heldout=result.n_heldout,
        headline=result.verdict["headline"],
    )

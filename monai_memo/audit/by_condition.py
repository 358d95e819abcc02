# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Copies by condition: of each class of a column, how many samples are copies; or an audit of one class alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from monai_memo.audit.parts import ConditionPart, Estimate, GroupPart
from monai_memo.data.cohort import Cohort
from monai_memo.data.columns import cells_of
from monai_memo.errors import CohortError
from monai_memo.statistics.groups import FEW, GroupRate, group_rates
from monai_memo.statistics.intervals import Interval, proportion_interval

if TYPE_CHECKING:
    from monai_memo.audit.comparison import Comparison
    from monai_memo.statistics.rates import AuditRates

LEAST_PATIENTS = 10  # of a group that is told apart in a redacted record: fewer could point at a person
UNEVEN = 0.05


def require_columns(cohorts: Mapping[str, Cohort], condition: str, within: str | None) -> None:
    """Refuse an audit by condition of cohorts that do not say it.

    Raises:
        CohortError: a cohort without the column.
    """
    needed = ("training", "synthetic") if within is None else ("training", "heldout", "synthetic")
    for name in needed:
        if cells_of(cohorts[name], condition) is None:
            columns = sorted({column for image in cohorts[name].images for column in image.columns})
            there = f"it has {', '.join(columns)}" if columns else "it has no columns beside image and patient"
            hint = ". Samples have it in the manifest that a bundle with conditions writes" * (name == "synthetic")
            raise CohortError(
                f"condition: the table of the {name} cohort has no column {condition!r}; {there}{hint}",
                f"--condition: the table of the {name} cohort has no such column{hint}",
            )


def restricted(cohorts: Mapping[str, Cohort], condition: str | None, within: str | None) -> dict[str, Cohort]:
    """The images of one class of each cohort, so that a sample is looked up among those of its own class alone.

    Args:
        cohorts: all three.
        condition: column; None leaves the cohorts as they are.
        within: the class; None leaves them as they are.

    Raises:
        CohortError: a cohort without the column, or without an image of the class.
    """
    if condition is None:
        return dict(cohorts)
    require_columns(cohorts, condition, within)
    if within is None:
        return dict(cohorts)
    found = {}
    for name, cohort in cohorts.items():
        cells = cells_of(cohort, condition) or []
        images = tuple(image for image, cell in zip(cohort.images, cells, strict=True) if cell == within.strip())
        if not images:
            known = ", ".join(sorted({cell or "(not given)" for cell in cells})[:10])
            raise CohortError(
                f"within: no image of the {name} cohort has {condition} {within!r}; they have {known}",
                f"--within: no image of the {name} cohort is of this class",
            )
        left = len(cohort) - len(images)
        lost = ": copies of them are not found" * (name == "training")
        notes = (f"{left} of {len(cohort)} images are of another class and were left out{lost}",) if left else ()
        found[name] = replace(cohort, images=images, notes=(*cohort.notes, *notes))
    return found


def _estimate(interval: Interval) -> Estimate:
    return Estimate(interval.value, interval.low, interval.high)


def _group(rate: GroupRate) -> GroupPart:
    return GroupPart(
        name=rate.name or "(not given)",
        n_synthetic=rate.n_synthetic,
        n_copies=rate.n_copies,
        copies=_estimate(rate.copies),
        together=_estimate(rate.together),
        n_train=rate.n_train,
        n_patients=rate.n_patients,
        n_mem=rate.n_memorized,
        mem=None if rate.memorized is None else _estimate(rate.memorized),
        n_heldout=rate.n_heldout,
        control=None if rate.control is None else _estimate(rate.control),
    )


def describe_conditions(
    cohorts: Mapping[str, Cohort],
    condition: str | None,
    comparison: Comparison,
    rates: AuditRates,
    confidence: float,
) -> ConditionPart | None:
    """Copies by class, at the thresholds of the whole audit; None where nobody asked."""
    if condition is None:
        return None
    synthetic, training = (cells_of(cohorts[name], condition) for name in ("synthetic", "training"))
    assert synthetic is not None and training is not None  # ``restricted`` has looked
    sims, unseen = comparison.sims, cells_of(cohorts["heldout"], condition)
    found = group_rates(
        synthetic,
        sims.synthetic_to_training > rates.tau.value,
        training,
        sims.training_to_nearest_synthetic > rates.tau_memorized.value,
        cohorts["training"].patient_ids,
        None if unseen is None else (unseen, sims.heldout_to_training > rates.tau.value),
        confidence,
    )
    groups = [_group(rate) for rate in found.groups]
    unseen_classes = len(set(training) - set(synthetic))
    return ConditionPart(condition, groups, found.p_value, _notes(groups, unseen_classes))


def _notes(groups: list[GroupPart], not_drawn: int = 0) -> list[str]:
    """What limits the rates by class.

    Args:
        not_drawn: classes of the training without a synthetic image.
    """
    notes = []
    unknown = sum(1 for group in groups if not group.n_train)
    if unknown:
        has = "groups have" if unknown > 1 else "group has"
        notes.append(
            f"{unknown} {has} no training image: either nothing of the kind was trained on, or the class is written in "
            "another way there (case, 1 and 1.0), and its copies cannot be set against its training images."
        )
    if not_drawn:
        have = "classes of the training have" if not_drawn > 1 else "class of the training has"
        notes.append(f"{not_drawn} {have} no synthetic image: of {'them' if not_drawn > 1 else 'it'} nothing is said.")
    if len(groups) > 1:
        notes.append(
            f"{len(groups)} rates stand beside one another: one of them is high by chance more often than a single one "
            "would be. The intervals for all groups together and p take that into account."
        )
    few = sum(1 for group in groups if group.n_synthetic < FEW)
    if few:
        are = "groups have" if few > 1 else "group has"
        notes.append(
            f"{few} {are} fewer than {FEW} synthetic images: their rates say little, and no copy among them says next "
            "to nothing. Draw more samples of these classes."
        )
    alone = sum(1 for group in groups if 0 < group.n_patients <= 2)
    if alone:
        are = "groups have" if alone > 1 else "group has"
        notes.append(
            f"{alone} {are} one or two training patients: whatever is drawn for such a class can hardly be of anybody "
            "else."
        )
    return notes


def uneven_warning(part: ConditionPart | None) -> list[str]:
    """What to read first where the classes differ."""
    if part is None or part.p_value is None or part.p_value >= UNEVEN:
        return []
    return [
        f"Copies are not spread evenly over the classes (p = {part.p_value:.2g}): the rate of all synthetic images "
        "says too little of some of them. See the chapter on conditions."
    ]


def without_names(part: ConditionPart | None, confidence: float) -> ConditionPart | None:
    """For a redacted record: classes are numbered, and those of few patients are told together or not at all.

    What a class is called was typed in by somebody, and a count of a class that one patient has is a count of that
    patient. The smallest classes are put together until ``LEAST_PATIENTS`` patients stand behind the row.
    """
    if part is None:
        return None
    ranked = sorted(part.groups, key=lambda group: group.n_patients)
    hidden = [group for group in ranked if group.n_patients < LEAST_PATIENTS]
    rest = ranked[len(hidden) :]
    while hidden and rest and sum(group.n_patients for group in hidden) < LEAST_PATIENTS:
        hidden.append(rest.pop(0))
    groups = [replace(group, name=f"group {number}") for number, group in enumerate(rest, 1)]
    notes = list(part.notes)
    if hidden:
        notes.append(
            f"{len(hidden)} group{'s' if len(hidden) > 1 else ''} with fewer than {LEAST_PATIENTS} training patients, "
            f"or beside such, {'are' if len(hidden) > 1 else 'is'} "
            + ("told together." if sum(group.n_patients for group in hidden) >= LEAST_PATIENTS else "not told.")
        )
    if hidden and sum(group.n_patients for group in hidden) >= LEAST_PATIENTS:
        groups = [_together(hidden, confidence), *groups]
    return ConditionPart("condition", groups, part.p_value, notes)


def _together(groups: list[GroupPart], confidence: float) -> GroupPart:
    def total(name: str) -> int:
        return sum(int(getattr(group, name)) for group in groups)

    n, copies, n_train, n_heldout = total("n_synthetic"), total("n_copies"), total("n_train"), total("n_heldout")
    above = sum(round(group.control.value * group.n_heldout) for group in groups if group.control is not None)
    rate = _estimate(proportion_interval(copies, n, confidence))
    return GroupPart(
        name=f"{len(groups)} groups of few patients" if len(groups) > 1 else "1 group",
        n_synthetic=n,
        n_copies=copies,
        copies=rate,
        together=rate,
        n_train=n_train,
        n_patients=total("n_patients"),
        n_mem=total("n_mem"),
        mem=_estimate(proportion_interval(total("n_mem"), n_train, confidence)) if n_train else None,
        n_heldout=n_heldout,
        control=_estimate(proportion_interval(above, n_heldout, confidence)) if n_heldout else None,
    )

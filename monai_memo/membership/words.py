# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What a membership test found, in sentences without a name or path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_memo.audit.verdict import percent
from monai_memo.membership.attack import CONDITIONS, LEVEL, PIXELS, Attack
from monai_memo.statistics.intervals import Interval
from monai_memo.statistics.membership import FoundAt, Separation

SAID = {
    "members_told": "The model tells training patients from unseen ones: treat its weights like data of the patients.",
    "cohorts_differ": "The scores differ between the cohorts, but so do the cohorts themselves: this says nothing of "
    "the model's memory.",
    "inconclusive": "No memory is seen, but the cohorts themselves differ, which can hide it: this says nothing of the "
    "model's memory.",
    "not_shown": "These attacks do not tell training patients from unseen ones. Stronger attacks may.",
}


def area(interval: Interval) -> str:
    """``0.71 (0.62 to 0.80)``."""
    return f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def share(interval: Interval) -> str:
    """In percent, with its interval."""
    return f"{percent(interval.value)} ({percent(interval.low)} to {percent(interval.high)})"


def found_sentence(one: FoundAt, heldout: int) -> str:
    """What is found at a false positive rate, or what can be said instead."""
    rate = f"{100 * one.rate:g} %"
    if one.resolved:
        return (
            f"At a false positive rate of {rate} the attack finds {share(one.found)} of the training patients "
            f"({one.accused} of {heldout} held-out patients above the threshold)."
        )
    return (
        f"A false positive rate of {rate} means nothing with {heldout} held-out patients: it takes {one.wanted}. What "
        f"can be said: above the highest of them lie {share(one.found)} of the training patients; of further unseen "
        f"patients {percent(one.reached)} is to be expected there, and up to "
        f"{percent(one.false_positives.high)} cannot be excluded."
    )


def headline(found: Attack) -> str:
    """The result in two sentences, with the score that decided."""
    best = found.model[found.main]
    if not found.shown or found.reversed or best.p_value <= found.p_any:
        return f"{SAID[found.level]} AUC {area(best.auc)}, p = {best.p_value:.2g}."
    name, one = max(found.model.items(), key=lambda item: abs(item[1].auc.value - 0.5))
    return (
        f"{SAID[found.level]} Best score ({name}): AUC {area(one.auc)}, p = {found.p_any:.2g} after paying for the "
        f"choice; the one that was chosen beforehand: AUC {area(best.auc)}, p = {best.p_value:.2g}."
    )


def warnings(found: Attack, cohorts: Mapping[str, Mapping[str, Any]], sizes: tuple[float, float]) -> list[str]:
    """What limits the result.

    Args:
        cohorts: ``inputs.ModelInputs.cohorts``.
        sizes: mean number of images of a training and of a held-out patient.
    """
    said = []
    if found.reversed:
        said.append(
            f"Held-out patients look more like members than training patients do (AUC "
            f"{area(found.model[found.main].auc)}), which memory cannot do: training and held-out cohort were swapped, "
            "the model was trained on the held-out patients, or these are easier for any model. Check --train and "
            "--heldout."
        )
    if PIXELS in found.cohorts_differ:
        said.append(apart_by_pixels(found.pixels))
    if CONDITIONS in found.cohorts_differ and found.conditions is not None:
        said.append(
            "Training and held-out cohort are told apart by the conditions alone that the model is told, without the "
            f"model (AUC {area(found.conditions.auc)}): they are not spread alike over both. An AUC of the model says "
            "nothing of its memory then. Take held-out patients by a random split, or ask with --conditions untold."
        )
    if found.reference is not None and found.reference.auc.low > 0.5:
        said.append(
            f"The reference model by itself takes training patients for members (AUC {area(found.reference.auc)}): it "
            "was trained on some of them, or the cohorts differ. It is no reference."
        )
    if found.reference is not None and found.reference.auc.high < 0.5:
        said.append(
            f"The reference model by itself takes held-out patients for members (AUC {area(found.reference.auc)}): it "
            "was trained on some of them, or the cohorts differ. Differences to it then look like memory."
        )
    if found.reference is None:
        said.append(
            "There is no reference model: images that are easy or hard for any model blur the result. A model of the "
            "same kind trained on other patients makes the attack stronger, as an attacker's would."
        )
    turned = [f"{name}: {area(one.auc)}" for name, one in found.model.items() if one.auc.high < 0.5]
    if turned and not found.reversed:
        told = "they tell the cohorts apart, members having the lower score, and an attacker who knows that turns them "
        chance = "with so many scores chance alone brings that about, and an attacker could turn them "
        said.append(
            f"Of these scores the AUC lies below 0.5: {'; '.join(turned)}. That is no sign of safety: "
            f"{told if found.p_any < LEVEL / 2 else chance}round. The p-value of the best score, {found.p_any:.2g}, "
            "counts both directions."
        )
    unknown = [name for name, one in cohorts.items() if not one["patients_known"]]
    if unknown:
        said.append(
            f"Patients of the {' and '.join(unknown)} cohort are not known: each image counts as one, which makes "
            "intervals too narrow where patients have several."
        )
    if max(sizes) > 1.5 * min(sizes):
        said.append(
            f"A training patient has {sizes[0]:.1f} images on average, a held-out patient {sizes[1]:.1f}: means of "
            "more images vary less, which moves what is found at low false positive rates."
        )
    return said


def apart_by_pixels(found: Separation) -> str:
    """What it means that no model is needed to tell the cohorts apart."""
    return (
        "Training and held-out cohort are told apart by brightness, contrast and coarse layout alone, without the "
        f"model (AUC {area(found.auc)}). They differ for other reasons than the training: other scanners, hospitals, "
        "years or a choice by hand. A difference between them says nothing of the model's memory then. Take held-out "
        "patients by a random split before training."
    )


def asked(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Which models were told the conditions of each image, for the method. What columns are called may name somebody.

    Args:
        models: ``inputs.described`` of each, by what it is called.
    """
    return [
        f"The {name} was told the conditions that it was trained with ({one['conditions']['columns']}), as the tables "
        "have them for each image."
        for name, one in models.items()
        if one["conditions"] and one["conditions"]["told"]
    ]


def untold(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Which models had to do without conditions that they were trained with."""
    return [
        f"The {name} was trained with conditions ({one['conditions']['columns']}) and was not told those of each "
        "image: somebody who knows them has a stronger attack."
        for name, one in models.items()
        if one["conditions"] and not one["conditions"]["told"]
    ]


def unheard(n: int) -> list[str]:
    """What it means that held-out images have conditions which no training image has."""
    if not n:
        return []
    return [
        "Some held-out images have conditions that no training image has. The model was never told such: its errors on "
        "them say little of membership."
    ]

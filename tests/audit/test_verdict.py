# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import pytest

from monai_memo.audit.parts import AgreementPart, ReferencePart
from monai_memo.audit.report import paragraphs
from monai_memo.audit.result import Count, Estimate
from monai_memo.audit.verdict import covering, first_thing_to_do, resting_on, unread_training, verdict_for, weighed


def verdict(excess: Estimate, found: int | None = 45) -> dict[str, str]:
    copies = Count(10, 6, 15, 100, Estimate(0.1, 0.06, 0.15))
    sensitivity = None if found is None else {"planted": 50, "found": found, "rate": Estimate(found / 50, 0, 1)}
    return verdict_for(copies, Estimate(0.05, 0.02, 0.08), excess, sensitivity)


@pytest.mark.parametrize(
    ("excess", "found", "level"),
    [
        (Estimate(0.10, 0.01, 0.2), 45, "copies_found"),
        (Estimate(0.10, 0.01, 0.2), 10, "copies_found"),  # a weak detector that finds some has found some
        (Estimate(0.00, -0.02, 0.02), 45, "no_excess"),
        (Estimate(0.00, -0.02, 0.02), None, "no_excess"),
        (Estimate(0.00, -0.02, 0.02), 24, "inconclusive"),
        (Estimate(0.03, -0.02, 0.08), 45, "inconclusive"),
    ],
)
def test_levels(excess: Estimate, found: int | None, level: str) -> None:
    assert verdict(excess, found)["level"] == level


def test_words_carry_the_numbers_and_never_promise_safety() -> None:
    assert "10 of 100 synthetic images (10.0 %)" in verdict(Estimate(0.1, 0.01, 0.2))["headline"]
    assert "up to 2.0 % cannot be excluded" in verdict(Estimate(0.0, -0.02, 0.02))["headline"]
    for excess in (Estimate(0.1, 0.01, 0.2), Estimate(0.0, -0.02, 0.02), Estimate(0.03, -0.02, 0.08)):
        words = " ".join(verdict(excess).values()).lower()
        assert "safe" not in words and "anonym" not in words


def test_what_to_remove_is_named_by_the_column_that_has_all_copies() -> None:
    # The column listed can be false for every copy, where there are too few held-out patients for the list.
    detail = verdict(Estimate(0.1, 0.01, 0.2))["detail"]
    assert "remove the images whose column copy is true in matches.csv" in detail and "listed" not in detail


def test_nothing_found_among_files_that_were_not_read_is_not_conclusive() -> None:
    assert unread_training(95, 5) == [] and unread_training(100, 0) == []
    (concern,) = unread_training(40, 20)
    assert concern.startswith("20 of 60 training images (33.3 %) could not be read")
    copies, control = Count(0, 0, 1, 100, Estimate(0, 0, 0.01)), Estimate(0, 0, 0.01)
    found = verdict_for(copies, control, Estimate(0.0, -0.02, 0.02), None, concerns=[concern])
    assert found["level"] == "inconclusive" and concern in found["detail"]
    # Copies that were found are copies, whatever else was missed.
    assert verdict_for(copies, control, Estimate(0.1, 0.01, 0.2), None, concerns=[concern])["level"] == "copies_found"


@pytest.mark.parametrize("excess", [Estimate(0.1, 0.01, 0.2), Estimate(0.0, -0.02, 0.02), Estimate(0.03, -0.02, 0.08)])
def test_synthetic_images_that_were_not_read_are_not_covered(excess: Estimate) -> None:
    copies, control = Count(0, 0, 1, 100, Estimate(0, 0, 0.01)), Estimate(0, 0, 0.01)
    assert (
        "3 synthetic images could not be read: this verdict does not cover them"
        in (verdict_for(copies, control, excess, None, unread=3)["detail"])
    )
    assert "could not be read" not in verdict_for(copies, control, excess, None)["detail"]


def reference(value: float, low: float, high: float, p_value: float) -> ReferencePart:
    return ReferencePart("search", 30, 10, 100, 100, 1.0, 0.1, Estimate(value, low, high), p_value, 5, 0.0002, 0.06, 20)


@pytest.mark.parametrize(
    ("control", "ours", "level", "words"),
    [
        # Both say copies.
        (Estimate(0.3, 0.2, 0.4), reference(0.28, 0.2, 0.36, 0.0002), "copies_found", "p = 0.0002"),
        (Estimate(0.5, 0.4, 0.6), reference(0.2, 0.05, 0.35, 0.01), "copies_found", "are look-alikes, no copies"),
        # The control alone: the same samples are as close to unseen patients.
        (Estimate(0.3, 0.2, 0.4), reference(0.01, -0.1, 0.12, 0.4), "inconclusive", "up to 12.0 % can be"),
        (Estimate(0.3, 0.2, 0.4), reference(0.1, -0.3, 0.5, 0.2), "inconclusive", "Samples near the mean"),
        # Too few held-out patients to say either.
        (Estimate(0.3, 0.2, 0.4), reference(0.25, -0.2, 0.6, 0.2), "copies_found", "Add held-out patients"),
        # The reference control alone.
        (Estimate(0.0, -0.02, 0.02), reference(0.08, 0.03, 0.13, 0.001), "copies_found", "does not show it"),
        (Estimate(0.0, -0.02, 0.02), reference(0.02, -0.03, 0.07, 0.04), "no_excess", "unseen patients"),
        (Estimate(0.03, -0.02, 0.08), reference(0.02, -0.03, 0.07, 0.3), "inconclusive", "too small"),
    ],
)
def test_the_reference_control_is_weighed(control: Estimate, ours: ReferencePart, level: str, words: str) -> None:
    before = verdict(control)
    found = weighed(before, control, ours)
    assert found["level"] == level
    assert words in " ".join(found.values())
    assert "safe" not in " ".join(found.values()).lower()


def test_look_alikes_are_not_called_copies_and_nothing_is_called_harmless() -> None:
    before = verdict(Estimate(0.3, 0.2, 0.4))
    found = weighed(before, Estimate(0.3, 0.2, 0.4), reference(0.01, -0.1, 0.12, 0.4))
    assert found["headline"].startswith("Not conclusive: look-alikes")
    assert "before anything is shared" in found["detail"] and "no proof that nothing was copied" in found["detail"]
    unconfirmed = weighed(before, Estimate(0.3, 0.2, 0.4), reference(0.25, -0.2, 0.6, 0.2))
    assert unconfirmed["headline"].startswith("Copies found, unconfirmed by the reference control: 10 of 100")
    assert weighed(before, Estimate(0.3, 0.2, 0.4), None) == before
    assert "3 synthetic images could not be read" in covering(found, 3)["detail"]
    assert "could not be read" not in found["detail"]


def test_soft_copies_of_few_patients_that_are_not_called_are_not_read_as_no_excess() -> None:
    none = verdict(Estimate(0.0, -0.02, 0.02))
    few, many = (replace(reference(0.0, -0.02, 0.03, 0.5), near_many=number) for number in (5, 6))
    assert weighed(none, Estimate(0.0, -0.02, 0.02), few, samples=100) == none
    found = weighed(none, Estimate(0.0, -0.02, 0.02), many, samples=100)
    assert found["level"] == "inconclusive"
    assert "6.0 % of the synthetic images are above the threshold and near to the same few" in found["headline"]


def test_a_verdict_of_copies_says_whether_images_or_layouts_were_copied() -> None:
    copies, none = verdict(Estimate(0.3, 0.2, 0.4)), verdict(Estimate(0.0, -0.02, 0.02))
    assert "All 10 agree with a training image place by place" in resting_on(copies, AgreementPart(10, 0))["detail"]
    mixed = resting_on(copies, AgreementPart(7, 3))["detail"]
    assert "7 agree with a training image place by place" in mixed and "3 as a whole only" in mixed
    assert "rests mostly on shared layout" not in mixed
    assert "rests mostly on shared layout" in resting_on(copies, AgreementPart(3, 7))["detail"]
    assert resting_on(none, AgreementPart(1, 1)) == none and resting_on(copies, None) == copies


def test_images_that_agree_place_by_place_are_told_where_too_few_patients_decide_nothing() -> None:
    """12 of 40 samples were training images with noise; 20 held-out patients left it not conclusive, and silent."""
    unclear = verdict(Estimate(0.2, -0.3, 0.4))
    assert unclear["level"] == "inconclusive"
    found = resting_on(unclear, AgreementPart(12, 3))
    assert found["level"] == "inconclusive" and found["headline"] == unclear["headline"]
    assert "12 of those above the threshold agree with a training image place by place" in found["detail"]
    assert resting_on(unclear, AgreementPart(0, 3)) == unclear


def test_look_alikes_are_not_claimed_where_too_few_patients_could_have_shown_copies() -> None:
    copies = verdict(Estimate(0.455, 0.178, 0.744))
    blind = ReferencePart("search", 4, 3, 30, 22, 1.4, 0.3, Estimate(-0.008, -0.5, 0.41), 0.22, 5, 0.1, 0.64, 0)
    unable = ReferencePart(**{**vars(blind), "excess": Estimate(-0.008, -0.506, 0.5)})
    found = weighed(copies, Estimate(0.455, 0.178, 0.744), unable)
    assert found["level"] == "copies_found" and "Add held-out patients" in found["detail"]
    seeing = ReferencePart(**{**vars(blind), "detectable": 0.2})
    assert weighed(copies, Estimate(0.455, 0.178, 0.744), seeing)["level"] == "inconclusive"


def test_what_to_do_first_depends_on_the_verdict_and_promises_nothing() -> None:
    copies, none, unsure = (
        verdict(one) for one in (Estimate(0.1, 0.01, 0.2), Estimate(0.0, -0.02, 0.02), Estimate(0.03, -0.02, 0.08))
    )
    told = first_thing_to_do(copies)
    assert told.startswith("Do not share") and "monai-memo release --audit OUT --out FOLDER" in told
    assert "copies and those in part out" in first_thing_to_do(copies, 3) and "in part" not in told
    assert "audit without --redacted" in first_thing_to_do(copies, redacted=True)
    assert first_thing_to_do(unsure).startswith("Do not share") and "release" not in first_thing_to_do(unsure)
    assert "monai-memo card" in first_thing_to_do(none) and "safe" not in first_thing_to_do(none)


def test_the_report_sets_each_control_apart_and_drops_no_word() -> None:
    found = weighed(verdict(Estimate(0.3, 0.2, 0.4)), Estimate(0.3, 0.2, 0.4), reference(0.28, 0.2, 0.36, 0.0002))
    detail = covering(resting_on(found, AgreementPart(7, 3)), 3)["detail"]
    parts = paragraphs(detail)
    assert " ".join(parts) == detail
    assert [part.split(" ")[0] for part in parts] == ["About", "Looked", "7", "3"]
    assert paragraphs("One sentence. Another.") == ["One sentence. Another."]

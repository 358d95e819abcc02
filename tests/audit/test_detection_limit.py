# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monai_memo.audit.detection_limit import detection_limit, limits_of_detection
from monai_memo.audit.report import render_report
from monai_memo.audit.result import AuditResult
from monai_memo.data.cohort import Cohort
from monai_memo.data.ladder import BEYOND, LADDER, UNITS, Planted, altered, kinds_of, levels_of_a_limit
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image


def test_the_first_strength_that_fails_is_the_limit() -> None:
    strengths = {5: 10, 10: 9, 20: 8, 30: 10}  # copies found of ten
    above = {Planted("rotation", float(s)): np.arange(10) < n for s, n in strengths.items()}
    above[Planted("flip", 0.0)] = np.zeros(10, dtype=bool)
    rotation, flip = limits_of_detection(above)
    assert (rotation["found_up_to"], rotation["missed_from"]) == (10, 20)
    assert rotation["found"] == {"5": 1.0, "10": 0.9, "20": 0.8, "30": 1.0}
    assert (flip["found_up_to"], flip["missed_from"]) == (None, 0)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    for number in range(6):
        save_image(tmp_path / f"{number}.png", chest_phantom(number, (64, 64)))
    (tmp_path / "6.png").write_bytes(b"torn")
    return Cohort.from_source(str(tmp_path), "training")


def test_copies_are_planted_in_larger_images_and_looked_up_at_the_detectors_size(cohort: Cohort) -> None:
    preprocessing, seen = Preprocessing(2, (32, 32)), []

    def called(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return np.full(len(images), len(seen) > 1)  # the first kind fails

    found = detection_limit(called, cohort, preprocessing, 4, seed=0)
    assert found is not None and found["copies"] == 4
    assert all(images.shape == (4, 1, 32, 32) for images in seen)
    assert [row["kind"] for row in found["limits"]] == list(kinds_of(2))
    assert found["limits"][0]["missed_from"] == 0 and found["limits"][1]["missed_from"] is None
    originals = np.stack([preprocessing(image.path) for image in cohort.images[:6]])
    flipped = seen[0][..., ::-1]
    assert np.abs(flipped[:, None] - originals[None]).mean(axis=(2, 3, 4)).min(axis=1).max() < 0.01
    again, other = (
        detection_limit(lambda images: images.mean(axis=(1, 2, 3)) > 0.5, cohort, preprocessing, 4, seed=0)
        for _ in range(2)
    )
    assert again == other
    assert detection_limit(called, cohort, preprocessing, 0, seed=0) is None


@pytest.mark.parametrize("together", [1, 100_000, 10**9])
def test_copies_of_many_strengths_are_looked_up_together(cohort: Cohort, together: int) -> None:
    """So that ranks can share them; the limits stay those of looking them up strength by strength."""
    calls = []

    def called(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        return images.std(axis=(1, 2, 3)) > 0.25

    preprocessing = Preprocessing(2, (32, 32))
    one_by_one = detection_limit(called, cohort, preprocessing, 4, seed=0)
    strengths = len(calls)
    calls.clear()
    assert detection_limit(called, cohort, preprocessing, 4, 0, together) == one_by_one
    assert sum(calls) == 4 * strengths
    assert max(calls) == {1: 4, 100_000: 28, 10**9: 4 * strengths}[together]


def test_copies_are_joined_with_unseen_patients_not_with_other_training_images(
    cohort: Cohort, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A region of a second training image would be found for its own sake."""
    folder, seen = tmp_path_factory.mktemp("heldout"), []
    for number in range(5):
        white = np.ones((1, 64, 64), dtype=np.float32)
        white[0, 0, number] = 0.0  # an image of one grey value is no image
        save_image(folder / f"{number}.png", white)
    white_images = Cohort.from_source(str(folder), "heldout")

    def called(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return np.ones(len(images), dtype=bool)

    detection_limit(called, cohort, Preprocessing(2, (32, 32)), 4, 0, 0, white_images)
    halves = seen[[level.kind for level in levels_of_a_limit(2)].index("half_replaced")]
    for image in halves:
        sides = (*np.split(image[0], 2, 0), *np.split(image[0], 2, 1))
        assert min(np.ptp(side[1:]) for side in sides) < 0.1  # one half is the white image, and which one is drawn


@pytest.mark.parametrize("dims", [2, 3])
def test_an_audit_tries_strengths_beyond_the_ladder_of_the_benchmark(dims: int) -> None:
    levels = levels_of_a_limit(dims)
    for kind, strengths in BEYOND.items():
        tried = [level.strength for level in levels if level.kind == kind]
        assert tried == [*LADDER[kind], *strengths] == sorted(tried)
    images = np.random.default_rng(0).random((2, 1, *[16] * dims)).astype(np.float32)
    for level in levels:
        if level.strength in BEYOND.get(level.kind, ()):
            found = altered(images, level, 0)
            assert np.isfinite(found).all() and np.abs(found - images).mean() > 0.02, level


def test_every_kind_has_a_unit() -> None:
    assert set(kinds_of(3)) - set(UNITS) == {"combination"}


def test_report_and_record_hold_the_limits(record: AuditResult) -> None:
    limits = [
        {"kind": "rotation", "found_up_to": 10.0, "missed_from": 20.0, "found": {"10": 1.0, "20": 0.3}},
        {"kind": "combination", "found_up_to": None, "missed_from": 0.0, "found": {"0": 0.5}},
        {"kind": "shift", "found_up_to": 0.1, "missed_from": None, "found": {"0.05": 1.0, "0.1": 1.0}},
    ]
    result = replace(record, detection_limit={"copies": 10, "limits": limits})
    result.validate()
    page = render_report(result, None, {"rates": b"", "distributions": b""})
    assert "Copies are missed among 2 of 3 kinds of change" in page
    assert page.index("<td>combination") > page.index("<td>rotation")  # what is missed most comes first
    assert "Found at every strength tried" in page and "shift (up to 0.1 of the length)" in page
    assert "10: <b>100 %</b>, 20: <b>30 %</b>" in page and "<td>always</td>" in page and "degrees" in page
    assert AuditResult.from_json(result.to_json()).detection_limit == result.detection_limit
    assert AuditResult.from_json(record.to_json()).detection_limit is None
    assert "Limit of detection" not in render_report(record, None, {"rates": b"", "distributions": b""})


def test_a_copy_of_which_nothing_is_left_counts_as_missed(tmp_path: Path) -> None:
    for number in range(8):  # one bright spot: an erased box can hold it whole
        image = np.zeros((1, 64, 64), dtype=np.float32)
        image[0, 28 + number : 32 + number, 30:34] = 1.0
        save_image(tmp_path / f"{number}.png", image)

    def called(images: np.ndarray) -> np.ndarray:
        return np.ptp(images, axis=(1, 2, 3)) > 0

    cohort = Cohort.from_source(str(tmp_path), "training")
    limits = [detection_limit(called, cohort, Preprocessing(2, (32, 32)), 8, seed) for seed in range(4)]
    found = [row["found"]["0.25"] for limit in limits if limit for row in limit["limits"] if row["kind"] == "erasing"]
    assert len(found) == 4 and min(found) < 1

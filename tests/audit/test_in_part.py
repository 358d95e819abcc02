# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Copies in part: counted apart, listed and shown in place, with a null of their own."""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monai_memo import Audit
from monai_memo.audit.comparison import Comparison
from monai_memo.audit.configuration import AuditConfiguration
from monai_memo.audit.controls import plant_copies
from monai_memo.audit.in_part import with_parts
from monai_memo.audit.partial_evidence import brought_to_training, corners_of, outlined, partial_evidence
from monai_memo.audit.parts import Count, Estimate, PartialMatch, PartialPart, Verdict
from monai_memo.audit.report import render_report
from monai_memo.audit.result import AuditResult
from monai_memo.audit.verified_comparison import compare_verified
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.errors import ConfigurationError
from tests.audit.small import settings

SHAPE = (64, 64)
QUIET: Verdict = {"level": "no_excess", "headline": "No more copies.", "detail": "All is well."}


def phantom(number: int) -> np.ndarray:
    """With detail of its own, as images have."""
    rng = np.random.default_rng(number)
    noise = np.asarray(Image.fromarray(rng.random((32, 32)).astype(np.float32)).resize(SHAPE, Image.Resampling.BICUBIC))
    return np.clip(0.7 * chest_phantom(number, SHAPE)[0] + 0.3 * noise, 0, 1)


def write(folder: Path, images: list[np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray((255 * image).round().astype(np.uint8)).save(folder / f"{folder.name}{number:02d}.png")


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight of 12 synthetic images hold the upper right quarter of a training image at their lower left."""
    root = tmp_path_factory.mktemp("cohorts")
    synthetic = [phantom(200 + number) for number in range(12)]
    for number in range(8):
        synthetic[number][32:, :32] = phantom(number)[:32, 32:]
    write(root / "train", [phantom(number) for number in range(24)])
    write(root / "heldout", [phantom(100 + number) for number in range(24)])
    write(root / "synthetic", synthetic)
    torch.manual_seed(0)
    recipe = Recipe.named("default", 2, SHAPE, epochs=1)
    Detector(recipe.build_network(), recipe, Preprocessing(2, SHAPE), 0, {"epochs": 1}).save(root / "detector.pt")
    return root


def only_the_last_is_a_copy(*arguments: Any) -> Comparison:
    """What the search for whole images finds: of these phantoms it would find the quarters as well."""
    found = compare_verified(*arguments)
    similarity = np.full(found.sims.n_synthetic, 0.1)
    similarity[-1] = 1.0
    return replace(found, sims=replace(found.sims, synthetic_to_training=similarity))


@pytest.fixture(scope="module")
def audited(cohorts: Path) -> tuple[AuditResult, Path]:
    out = cohorts / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monai_memo.audit.searching.compare_verified", only_the_last_is_a_copy)
        return Audit(**settings(cohorts, out, cohorts / "detector.pt", verification=True, gallery=3)).run(), out


def test_images_with_a_quarter_of_a_training_image_are_counted_apart(audited: tuple[AuditResult, Path]) -> None:
    result, _ = audited
    assert result.partial is not None
    planted = {f"synthetic{number:02d}.png" for number in range(8)}
    in_part = {match.synthetic for match in result.partial_matches if match.in_part}
    assert planted <= in_part and len(in_part) <= 9
    assert result.partial["n_copies"].value == len(in_part)
    assert result.partial["n_copies"].of == len(result.partial_matches) < 12  # copies as a whole are not asked
    assert result.partial["control"].value <= 0.06
    for match in result.partial_matches:
        if match.synthetic in planted:
            assert match.training == match.synthetic.replace("synthetic", "train")
            np.testing.assert_allclose(match.region, [[0.5, 1.0], [0.0, 0.5]], atol=0.13)


def test_no_image_is_counted_as_a_whole_and_in_part(audited: tuple[AuditResult, Path]) -> None:
    result, _ = audited
    copies = {match.synthetic for match in result.matches if match.copy}
    assert not copies & {match.synthetic for match in result.partial_matches}
    assert len(copies) + len(result.partial_matches) == 12


def test_the_verdict_says_that_there_are_copies_in_part(audited: tuple[AuditResult, Path]) -> None:
    result, _ = audited
    assert result.verdict["level"] == "copies_found"
    assert "contain part of a training image" in result.verdict["headline"] + result.verdict["detail"]


def test_the_table_and_the_report_show_them_in_place(audited: tuple[AuditResult, Path]) -> None:
    result, out = audited
    with open(out / "partial.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["synthetic"] for row in rows] == [match.synthetic for match in result.partial_matches]
    assert rows[0]["in_part"] == "true" and float(rows[0]["score"]) > float(rows[0]["tau"])
    page = (out / "report.html").read_text()
    assert "<h2>Copies in part</h2>" in page
    assert page.count("synthetic image, the common region outlined") == min(3, result.partial["n_copies"].value)
    assert "regions of a quarter of an image" in page


def test_the_limit_of_detection_counts_what_is_found_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first image is found as a whole, the second in part, the third not at all."""
    seen: dict[str, Callable[[np.ndarray], np.ndarray]] = {}

    def keep(called: Callable[[np.ndarray], np.ndarray], *_: object) -> None:
        seen["called"] = called

    monkeypatch.setattr("monai_memo.audit.controls.detection_limit", keep)
    known = SimpleNamespace(
        settings=SimpleNamespace(planted=0, limit_copies=3, seed=0, confidence=0.95), timed=lambda *_: nullcontext()
    )
    inputs = SimpleNamespace(
        training=SimpleNamespace(pixels=np.zeros((3, 1, 4, 4)), cohort=None),
        prepared={"heldout": SimpleNamespace(cohort=None)},
    )
    searched = SimpleNamespace(
        detector=SimpleNamespace(preprocessing=None), matched=SimpleNamespace(soften=lambda images: images),
        similarity_of=lambda images: images[:, 0, 0, 0],
    )  # fmt: skip
    calibrated = SimpleNamespace(rates=SimpleNamespace(tau=SimpleNamespace(value=0.5)))
    in_part = SimpleNamespace(contain=lambda images: images[:, 0, 0, 1] > 0.5)
    images = np.zeros((3, 1, 4, 4))
    images[0, 0, 0, 0] = images[1, 0, 0, 1] = 1.0
    plant_copies(known, inputs, searched, calibrated, in_part)  # type: ignore[arg-type]
    assert seen["called"](images).tolist() == [True, True, False]
    plant_copies(known, inputs, searched, calibrated)  # type: ignore[arg-type]
    assert seen["called"](images).tolist() == [True, False, False]


def test_a_redacted_record_numbers_the_originals_of_parts(audited: tuple[AuditResult, Path]) -> None:
    result = audited[0].without_patients()
    text = repr(result.partial_matches)
    assert ".png" not in text and "training " in text
    page = render_report(result, None, {"rates": b"", "distributions": b""})
    assert ".png" not in page and "Pictures are left out" in page


def test_parts_can_be_switched_off(cohorts: Path, tmp_path: Path) -> None:
    arguments = settings(cohorts, tmp_path / "out", cohorts / "detector.pt", verification=True, parts=False)
    result = Audit(**arguments).run()
    assert result.partial is None and result.partial_matches == []
    assert not (tmp_path / "out" / "partial.csv").exists()
    assert "<h2>Copies in part</h2>" not in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("parts", "n_train", "looks"),
    [(None, 10_000, True), (None, 10_001, False), (True, 10_001, True), (False, 10, False)],
)
def test_parts_are_looked_for_where_that_takes_no_age(parts: bool | None, n_train: int, looks: bool) -> None:
    asked = AuditConfiguration(train="a", heldout="b", synthetic="c", out="d", parts=parts)
    assert asked.looks_for_parts("default", n_train) is looks
    assert not asked.looks_for_parts("paper", 10)


@pytest.mark.parametrize("other", [{"verification": False}, {"calibration": "paper"}])
def test_parts_without_verification_are_refused(other: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="parts"):
        AuditConfiguration(train="a", heldout="b", synthetic="c", out="d", parts=True, **other)


def test_images_near_to_everybody_in_part_are_not_called(cohorts: Path, tmp_path: Path) -> None:
    """Synthetic images with quarters of held-out patients: the threshold rises, and the report says so."""
    synthetic = [phantom(200 + number) for number in range(12)]
    for number in range(8):
        synthetic[number][32:, :32] = phantom(100 + number)[:32, 32:]
    for name in ("train", "heldout"):
        (tmp_path / name).symlink_to(cohorts / name)
    write(tmp_path / "synthetic", synthetic)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monai_memo.audit.searching.compare_verified", only_the_last_is_a_copy)
        arguments = settings(tmp_path, tmp_path / "out", cohorts / "detector.pt", verification=True)
        result = Audit(**arguments).run()
    assert result.partial is not None
    assert result.partial["tau"].value > result.partial["tau_control"]
    assert result.partial["n_copies"].value <= 1
    assert sum("have a region above a score of" in words for words in result.warnings) == 1


def part(n: int, low: float) -> PartialPart:
    rate = Estimate(n / 100, 0.0, 0.3)
    return {
        "n_copies": Count(n, 0, 30, 100, rate), "control": Estimate(0.05, 0.02, 0.09),
        "excess": Estimate(n / 100 - 0.05, low, 0.3), "tau": Estimate(3.0, 2.8, 3.2), "listed": 0, "sentence": "How.",
    }  # fmt: skip


def test_parts_beyond_chance_make_a_quiet_verdict_one_of_copies() -> None:
    verdict = with_parts(QUIET, part(20, 0.08))
    assert verdict["level"] == "copies_found"
    assert verdict["headline"] == (
        "Copies in part found: 20 of 100 synthetic images (20.0 %) contain part of a training image."
    )
    assert "No more copies. All is well." in verdict["detail"]


def test_parts_within_chance_leave_the_verdict_and_are_told() -> None:
    verdict = with_parts(QUIET, part(6, -0.02))
    assert (verdict["level"], verdict["headline"]) == (QUIET["level"], QUIET["headline"])
    assert "6 of 100" in verdict["detail"] and "5.0 % would be expected by chance" in verdict["detail"]


def test_without_parts_the_verdict_is_what_it_was() -> None:
    assert with_parts(QUIET, None) == QUIET


def match(region: list[list[float]], transform: list[list[float]]) -> PartialMatch:
    return PartialMatch("s.png", "t.png", "t", 5.0, 3.0, True, 0.01, False, region, transform)


def test_the_outline_in_the_training_image_is_where_the_region_comes_from() -> None:
    training, synthetic = np.zeros((1, 64, 64), np.float32), np.zeros((1, 64, 64), np.float32)
    pattern = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    training[0, 20:52, 8:40] = pattern
    synthetic[0, :32, 32:] = pattern
    # 20 pixels down and 24 to the left, in units of half the length, last axis first.
    shown = partial_evidence(match([[0, 0.5], [0.5, 1]], [[1, 0, -24 / 32], [0, 1, 20 / 32]]), synthetic, training)
    assert shown.corners.tolist() == [[20, 8], [20, 40], [52, 8], [52, 40]]
    np.testing.assert_allclose(shown.brought[:32, 32:], pattern, atol=1e-5)
    ((first, second, region, brought),) = outlined(shown)
    assert first[2] == "32.0,0.0 64.0,0.0 64.0,32.0 32.0,32.0"
    assert second[2] == "8.0,20.0 40.0,20.0 40.0,52.0 8.0,52.0"
    np.testing.assert_allclose(region[0], pattern, atol=1e-5)
    np.testing.assert_allclose(brought[0], pattern, atol=1e-5)


def test_a_mirrored_region_comes_from_the_other_side() -> None:
    there = brought_to_training(corners_of(np.array([[0, 32], [0, 16]])), [[-1, 0, 0], [0, 1, 0]], SHAPE)
    assert there[:, 1].tolist() == [64, 48, 64, 48]


def test_volumes_are_shown_in_three_planes_through_the_region() -> None:
    volume = np.random.default_rng(0).random((1, 16, 20, 24)).astype(np.float32)
    transform = np.eye(3, 4).tolist()
    rows = outlined(partial_evidence(match([[0, 0.5], [0.5, 1], [0, 0.5]], transform), volume, volume))
    assert [row[0][0].shape for row in rows] == [(24, 20), (24, 16), (20, 16)]  # upright: the last axis runs up
    assert [(plane.name, plane.place) for row in rows if (plane := row[0][1])] == [
        ("sagittal", 4), ("coronal", 15), ("axial", 6),
    ]  # fmt: skip
    np.testing.assert_array_equal(rows[0][0][0], np.rot90(volume[0, 4]))
    np.testing.assert_array_equal(rows[0][2][0], np.rot90(volume[0, 4, 10:, :12]))
    assert rows[0][0][2] == "10.0,24.0 10.0,12.0 20.0,12.0 20.0,24.0"  # the lower right quarter


def test_records_without_parts_can_be_read(record: AuditResult) -> None:
    again = AuditResult.from_json(record.to_json())
    assert again.partial is None
    with_part = replace(record, partial=part(3, -0.1))
    with_part.validate()
    assert AuditResult.from_json(with_part.to_json()).partial == with_part.partial

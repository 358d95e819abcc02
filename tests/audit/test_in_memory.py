# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Audits of images in memory and of models, against audits of the same images from files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monai_memo import Audit, audit_images
from monai_memo.audit.repeats import repeated_samples
from monai_memo.data.cohort import Cohort
from monai_memo.data.reading import read_image
from monai_memo.errors import CohortOverlapError, ConfigurationError
from tests.audit.small import picture, settings, untrained, write_cohorts

QUICK: dict[str, Any] = {
    "n_bootstrap": 100, "planted": 0, "limit_copies": 0, "verification": False, "gallery": 1, "progress": False,
    "workers": 1,
}  # fmt: skip


def stack(first: int, count: int) -> np.ndarray:
    return np.stack([np.asarray(picture(first + number)) for number in range(count)])


TRAIN, HELDOUT, SYNTHETIC = stack(0, 12), stack(100, 24), stack(200, 8)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(untrained(tmp_path_factory.mktemp("detector") / "detector.pt"))


def test_arrays_give_the_numbers_of_the_same_images_from_files(detector: str, tmp_path: Path) -> None:
    files = write_cohorts(tmp_path / "files")
    wanted = Audit(**settings(files, tmp_path / "of_files", Path(detector))).run()
    train = torch.from_numpy(TRAIN[:, None]).float().requires_grad_() / 127.5 - 1
    pictures = [Image.fromarray(item) for item in HELDOUT]
    found = audit_images(train, pictures, SYNTHETIC[..., None], tmp_path / "out", detector=detector, **QUICK)
    assert found.tau.value == pytest.approx(wanted.tau.value, abs=1e-3)
    assert (found.n_copies.value, found.n_mem.value) == (wanted.n_copies.value, wanted.n_mem.value)
    np.testing.assert_allclose(
        [match.similarity for match in sorted(found.matches, key=lambda match: match.synthetic)],
        [match.similarity for match in sorted(wanted.matches, key=lambda match: match.synthetic)],
        atol=2e-3,
    )
    notes = {name: cohort.notes for name, cohort in found.cohorts.items()}
    assert notes["training"] == [
        "taken for 12 images of 32 x 32 pixels in grey, from one array (N, C, H, W), values in [-1, 1] (float32)"
    ]
    assert "24 images" in notes["heldout"][0] and "from a sequence of (H, W), values 0 to 255" in notes["heldout"][0]
    assert "from one array (N, H, W, C)" in notes["synthetic"][0]
    assert "values in [-1, 1] (float32)" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    kept = read_image(tmp_path / "out.images" / "heldout" / "000003.png").array
    np.testing.assert_array_equal(kept[0], HELDOUT[3])


def test_patients_of_arrays_are_told_and_who_is_in_two_cohorts_is_seen(detector: str, tmp_path: Path) -> None:
    who = [f"p{number // 2}" for number in range(12)]
    options = {"detector": detector, **QUICK}
    found = audit_images(TRAIN, HELDOUT, SYNTHETIC, tmp_path / "out", who, list(range(900, 924)), **options)
    assert found.cohorts["training"].n_patients == 6 and found.cohorts["heldout"].n_patients == 24
    with pytest.raises(ConfigurationError, match="the training images: 3 patient ids for 12 images"):
        audit_images(TRAIN, HELDOUT, SYNTHETIC, tmp_path / "few", who[:3], **options)
    with pytest.raises(CohortOverlapError):
        audit_images(TRAIN, HELDOUT, SYNTHETIC, tmp_path / "twice", who, ["p1", *map(str, range(23))], **options)


def test_a_model_is_asked_for_samples_by_seeds_and_nothing_is_kept_without_a_folder(
    detector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    asked: list[int] = []

    def draw(seeds: Sequence[int]) -> torch.Tensor:
        asked.extend(seeds)
        return torch.from_numpy(TRAIN[[seed % 12 for seed in seeds]][:, None]) / 255

    found = audit_images(TRAIN, HELDOUT, draw, detector=detector, n_samples=20, seed=5, **QUICK)
    assert asked == list(range(5, 25)) and found.n_synthetic == found.n_copies.value == 20
    assert not list(tmp_path.iterdir())


def test_a_redacted_audit_leaves_no_pixels_beside_its_result(detector: str, tmp_path: Path) -> None:
    audit_images(TRAIN, HELDOUT, SYNTHETIC, tmp_path / "out", detector=detector, redacted=True, **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_cohort_may_be_a_folder_and_its_patients_are_not_named_twice(detector: str, tmp_path: Path) -> None:
    files = write_cohorts(tmp_path / "files")
    found = audit_images(files / "train", HELDOUT, SYNTHETIC, tmp_path / "out", detector=detector, **QUICK)
    assert found.n_train == 12 and not found.cohorts["training"].notes
    with pytest.raises(ConfigurationError, match="train_patients: train is the path"):
        audit_images(files / "train", HELDOUT, SYNTHETIC, tmp_path / "out", ["a"] * 12, detector=detector, **QUICK)


def test_what_cannot_be_audited_is_named_with_its_cohort_and_shape(detector: str, tmp_path: Path) -> None:
    wrong: list[tuple[Any, str]] = [
        (np.zeros((8, 128)).tolist()[:3], r"the synthetic images: got the shape \(3, 128\)"),
        (np.full((8, 1, 32, 32), np.nan), r"the synthetic images: 8 of 8 hold NaN.*shape \(1, 32, 32\)"),
        ([SYNTHETIC[0], SYNTHETIC[1][:16, :16]], r"the synthetic images: have 2 shapes.*\(1, 16, 16\)"),
        (None, "the synthetic images: got NoneType"),
    ]
    for images, words in wrong:
        with pytest.raises(ConfigurationError, match=words):
            audit_images(TRAIN, HELDOUT, images, tmp_path / "out", detector=detector, **QUICK)
    with pytest.raises(ConfigurationError, match=r"images in memory are audited by monai_memo\.audit_images"):
        Audit(train=TRAIN, heldout=HELDOUT, synthetic=SYNTHETIC, out=str(tmp_path / "out"))
    with pytest.raises(ConfigurationError, match="n_samples must be a whole number from 1"):
        audit_images(TRAIN, HELDOUT, SYNTHETIC, tmp_path / "out", n_samples=0)
    with pytest.raises(ConfigurationError, match="dims must be 2 or 3, got 4"):
        audit_images(TRAIN, HELDOUT, SYNTHETIC, tmp_path / "out", dims=4)
    assert not (tmp_path / "out").exists()


def test_a_cohort_of_images_keeps_values_patients_and_files(tmp_path: Path) -> None:
    floats = np.linspace(0, 1, 3 * 20 * 20, dtype=np.float32).reshape(3, 20, 20)
    cohort = Cohort.from_images(list(floats), "training", tmp_path, ["a", "a", "b"])
    assert cohort.patient_ids == ["a", "a", "b"] and cohort.notes[-1].startswith("taken for 3 images of 20 x 20 pixels")
    for image, wanted in zip(cohort.images, floats, strict=True):
        np.testing.assert_array_equal(read_image(image).array[0], wanted)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    Cohort.from_images(list(floats), "training", tmp_path, ["a", "a", "b"])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before, "nothing is written twice"
    fewer = Cohort.from_images(floats[:1], "training", tmp_path)
    assert len(fewer) == 1 and not fewer.patients_known
    volumes = Cohort.from_images(np.random.default_rng(0).random((2, 6, 7, 8)), "heldout", tmp_path / "volumes")
    assert read_image(volumes.images[1]).array.shape == (1, 6, 7, 8)
    colour = Cohort.from_images(np.full((1, 9, 9, 3), (0.2, 0.4, 0.6)), "synthetic", tmp_path / "colour")
    np.testing.assert_array_equal(read_image(colour.images[0]).array[:, 0, 0], [51, 102, 153])
    with open(tmp_path / "images.csv", newline="") as stream:
        assert [row["image"] for row in csv.DictReader(stream)] == ["000000.npy"]
    with pytest.raises(ConfigurationError, match=r"volumes of \(4, 9, 9\) have an axis shorter than 5"):
        Cohort.from_images(np.random.default_rng(0).random((2, 4, 9, 9)), "training", tmp_path, dims=3)


def test_a_model_that_gives_one_image_for_all_seeds_is_not_called_safe(detector: str) -> None:
    """None of 40 equal samples is none of one."""
    one = picture(300)
    found = audit_images(TRAIN, HELDOUT, lambda seeds: [one for _ in seeds], detector=detector, n_samples=40, **QUICK)
    assert found.verdict["level"] == "inconclusive"
    (said,) = [text for text in found.warnings if "repeat another one" in text]
    assert said.startswith("39 of 40 synthetic images repeat another one to the last pixel: there is only 1 different")
    assert said in found.verdict["detail"]


def test_few_repeated_files_are_told_and_decide_nothing() -> None:
    images = np.arange(40.0)[:, None, None, None] * np.ones((1, 8, 8))
    assert repeated_samples(images) == ([], [])
    images[1] = images[0]
    (said,), concerns = repeated_samples(images)
    assert "1 of 40" in said and "there are 39 different ones" in said and not concerns
    images[2] = images[3] = images[0]
    assert repeated_samples(images)[1]


class Foreign:
    """Somebody's model, which knows nothing of what is asked of generators here."""

    def sample(self, seeds: Sequence[int]) -> list[torch.Tensor]:
        return [
            torch.from_numpy(np.asarray(picture(200 + seed)) / 127.5 - 1).float()[None].requires_grad_()
            for seed in seeds
        ]


def test_objects_may_give_lists_of_tensors_with_gradients(detector: str) -> None:
    of_object = audit_images(TRAIN, HELDOUT, Foreign(), detector=detector, n_samples=8, **QUICK)  # type: ignore[arg-type]
    of_array = audit_images(TRAIN, HELDOUT, SYNTHETIC, detector=detector, **QUICK)
    similarity = [[match.similarity for match in found.matches] for found in (of_object, of_array)]
    np.testing.assert_allclose(np.sort(similarity[0]), np.sort(similarity[1]), atol=2e-3)


def test_patients_given_as_tensors_are_the_patients_of_the_same_numbers(detector: str) -> None:
    with pytest.raises(CohortOverlapError, match="12 patients in both"):
        audit_images(
            TRAIN, HELDOUT, SYNTHETIC, train_patients=np.arange(12), heldout_patients=torch.arange(24),  # type: ignore[arg-type]
            detector=detector, **QUICK,
        )  # fmt: skip

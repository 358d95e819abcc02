# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from monai_memo.benchmark.unseen import Judge, main, one_a_patient, table, wanted_levels
from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image


def cohort(folder: Path, first: int, count: int, per_patient: int = 1) -> Path:
    folder.mkdir()
    with open(folder / "list.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["image", "patient_id"])
        for number in range(first, first + count):
            save_image(folder / f"{number}.png", chest_phantom(number, (32, 32)))
            rows.writerow([f"{number}.png", f"p{number // per_patient}"])
    return folder / "list.csv"


def test_images_above_the_held_out_quantile_count_once() -> None:
    """Each image's similarity stands in its first pixel, its score in part in the second."""
    known = SimpleNamespace(
        search=lambda images: SimpleNamespace(similarity=images[:, 0, 0, :1].astype(float)),
    )
    parts = SimpleNamespace(search=lambda images: SimpleNamespace(score=images[:, 0, 0, 1].astype(float)))
    rng = np.random.default_rng(0)
    heldout = np.repeat(rng.random((40, 1, 8, 1), dtype=np.float32), 8, axis=3)
    heldout[:, 0, 0, :2] = np.linspace(0, 1, 40)[:, None]
    images = np.repeat(rng.random((40, 1, 8, 1), dtype=np.float32), 8, axis=3)
    images[:, 0, 0, :2] = 0.1
    images[0, 0, 0, :2] = [2, 2]
    images[1, 0, 0, :2] = [0, 2]
    whole, by_control, part, words = Judge(known, parts, heldout)(images)  # type: ignore[arg-type]
    assert (whole == by_control).all()
    assert np.flatnonzero(whole).tolist() == [0] and np.flatnonzero(part).tolist() == [1]
    assert words == ""


class Among:
    """A search that finds what stands in the given pixel of each image."""

    def __init__(self, pixel: int) -> None:
        self.pixel = pixel
        self.gallery = SimpleNamespace(patients=np.arange(40))

    def __len__(self) -> int:
        return 40

    def search(self, images: np.ndarray) -> SimpleNamespace:
        found = images[:, 0, 0, self.pixel].astype(float)
        nearest = np.arange(len(images))[:, None] % 40
        return SimpleNamespace(
            similarity=found[:, None], candidates=nearest, score=found, by_places=lambda: found - 1
        )  # fmt: skip


def test_images_that_are_as_near_to_held_out_patients_are_not_called() -> None:
    """Neither as a whole (pixels 0 among training, 2 among held-out patients) nor in part (1 and 3)."""
    rng = np.random.default_rng(1)
    heldout, images = (np.repeat(rng.random((60, 1, 8, 1), dtype=np.float32), 8, axis=3) for _ in range(2))
    heldout[:, 0, 0, :4] = np.linspace(0, 0.5, 60)[:, None]
    images[:, 0, 0, 0] = images[:, 0, 0, 2] = np.linspace(0.4, 0.9, 60)  # as near to patients of either kind
    images[:, 0, 0, 1] = images[:, 0, 0, 3] = np.linspace(0.9, 0.4, 60)
    images[0, 0, 0, 0] = images[1, 0, 0, 1] = 0.99
    judge = Judge(Among(0), Among(1), heldout, strangers=(Among(2), Among(3)))  # type: ignore[arg-type]
    whole, by_control, part, _ = judge(images)
    assert by_control.sum() > 40
    assert 1 <= whole.sum() <= 4 and whole[0]
    assert 1 <= part.sum() <= 4 and part[1]
    _, _, by_control_in_part, _ = Judge(Among(0), Among(1), heldout)(images)  # type: ignore[arg-type]
    assert by_control_in_part.sum() > part.sum()


def test_one_image_is_taken_of_each_patient(tmp_path: Path) -> None:
    images = Cohort.from_source(str(cohort(tmp_path / "c", 0, 12, per_patient=3)), "unseen")
    assert len(one_a_patient(images, 10, Preprocessing(2, (32, 32)), 0)) == 4


def test_the_strongest_of_each_kind_is_taken_unless_all_are_asked_for() -> None:
    assert [level.strength for level in wanted_levels(2, ["rotation"], False)] == [45]
    assert [level.strength for level in wanted_levels(2, ["rotation"], True)] == [5, 10, 20, 30, 45]


def test_a_table_and_a_record_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = cohort(tmp_path / "train", 0, 24)
    heldout, unseen = cohort(tmp_path / "heldout", 100, 24), cohort(tmp_path / "unseen", 200, 6)
    other = cohort(tmp_path / "elsewhere", 300, 4)
    arguments = ["--train", str(train), "--heldout", str(heldout), "--unseen", str(unseen), "--size", "32", "32"]
    main([*arguments, "--other", str(other.parent), "--out", str(tmp_path / "out"), "--kinds", "flip", "--images", "6"])
    record = json.loads((tmp_path / "out" / "unseen.json").read_text())
    assert [row["name"] for row in record["rows"]] == ["elsewhere", "as they are", "flip"]
    assert [row["images"] for row in record["rows"]] == [4, 6, 6]
    page = (tmp_path / "out" / "unseen.md").read_text()
    assert page == table(record["rows"]) and "| flip | 6 |" in page
    assert "flip" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("heldout", "arguments", "words"),
    [(18, [], "at least 19 are needed"), (20, ["--kinds", "nosuch"], "kinds must be among"), (0, [], "does not exist")],
)
def test_what_cannot_be_measured_ends_with_a_message(
    heldout: int, arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {name: str(cohort(tmp_path / name, first, 20)) for name, first in (("train", 0), ("unseen", 200))}
    places["heldout"] = str(cohort(tmp_path / "heldout", 100, heldout) if heldout else tmp_path / "nowhere.csv")
    given = [text for name, path in places.items() for text in (f"--{name}", path)]
    with pytest.raises(SystemExit) as ended:
        main([*given, "--out", str(tmp_path / "out"), "--size", "32", *arguments])
    assert ended.value.code == 2 and words in capsys.readouterr().err

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from monai_memo.data.cohort import Cohort
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image, write_cohort
from monai_memo.generators.cohorts import split_cohorts
from monai_memo.generators.split_tables import NextStep, write_split


@pytest.fixture()
def images(tmp_path: Path) -> Path:
    for i in range(20):
        save_image(tmp_path / "images" / f"p{i // 2:02d}_{i % 2}.png", chest_phantom(i, (16, 16)))
    return tmp_path / "images"


def test_the_split_is_read_back_as_it_was(images: Path, tmp_path: Path) -> None:
    cohorts = split_cohorts(images, patient_pattern=r"(p\d+)_", heldout_fraction=0.3, seed=4)
    write_split(cohorts, [tmp_path / "out", tmp_path / "weights", tmp_path / "out"])
    for folder in ("out", "weights"):
        training, heldout = (Cohort.from_source(tmp_path / folder / f"{name}.csv", name) for name in
                             ("training", "heldout"))  # fmt: skip
        assert training.patient_ids == cohorts.training.patient_ids
        assert heldout.patient_ids == cohorts.heldout.patient_ids
        assert not set(training.patient_ids) & set(heldout.patient_ids)
        assert [image.path for image in heldout.images] == [image.path.resolve() for image in cohorts.heldout.images]


def test_a_table_that_was_read_is_not_written_over(images: Path, tmp_path: Path) -> None:
    whole = write_cohort(Cohort.from_source(images, "training"), tmp_path / "training.csv")
    before = whole.read_bytes()
    write_split(split_cohorts(whole, heldout_fraction=0.5), [tmp_path])
    assert whole.read_bytes() == before and (tmp_path / "heldout.csv").is_file()


def test_the_next_step_names_the_tables_or_says_that_they_are_missing(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = NextStep(tmp_path / "my weights", tmp_path / "manifest.csv")
    step.run()
    told = capsys.readouterr().out
    assert "is not known here" in told and "--train TRAINING --heldout HELDOUT" in told
    write_split(split_cohorts(images), [tmp_path / "my weights"])
    step.run()
    told = capsys.readouterr().out
    assert f"--train '{tmp_path / 'my weights' / 'training.csv'}'" in told and "not known" not in told

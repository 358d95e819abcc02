# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import logging
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from monai_memo.__main__ import settings_of
from monai_memo.audit.configuration import AuditConfiguration
from monai_memo.data.cohort import Cohort
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image, write_cohort
from monai_memo.errors import ConfigurationError
from monai_memo.generators.cohorts import split_cohorts
from monai_memo.generators.split_tables import NextStep, write_split


@pytest.fixture()
def images(tmp_path: Path) -> Path:
    for i in range(20):
        save_image(tmp_path / "images" / f"p{i // 2:02d}_{i % 2}.png", chest_phantom(i, (16, 16)))
    return tmp_path / "images"


def asked(command: str) -> AuditConfiguration:
    """What the command line makes of a command that was pasted."""
    program, *words = shlex.split(command)
    found = settings_of(words)
    assert program == "monai-memo" and not isinstance(found, str)
    settings = found[1]
    assert isinstance(settings, AuditConfiguration)
    return settings


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


def test_tables_work_from_anywhere(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_split(split_cohorts("images", patient_pattern=r"(p\d+)_"), ["out"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    moved = shutil.move(tmp_path / "out", tmp_path / "moved")
    assert all(image.path.is_file() for image in Cohort.from_source(Path(moved) / "training.csv", "training").images)


def test_a_table_that_was_read_is_never_taken_for_the_split_of_itself(images: Path, tmp_path: Path) -> None:
    whole = write_cohort(Cohort.from_source(images, "training"), tmp_path / "training.csv")
    before = whole.read_bytes()
    with pytest.raises(ConfigurationError, match=r"all of its images for the training ones, which are 10"):
        write_split(split_cohorts(whole, heldout_fraction=0.5), [tmp_path / "fine", tmp_path])
    assert whole.read_bytes() == before and not (tmp_path / "heldout.csv").exists()
    assert not (tmp_path / "fine").exists(), "nothing is written before everything was looked at"


def test_tables_that_are_the_split_stay_as_they_are(images: Path, tmp_path: Path) -> None:
    write_split(split_cohorts(images, patient_pattern=r"(p\d+)_"), [tmp_path])
    before = [(tmp_path / f"{name}.csv").stat() for name in ("training", "heldout")]
    again = split_cohorts(tmp_path / "training.csv", tmp_path / "heldout.csv")
    write_split(again, [tmp_path])
    write_split(split_cohorts(images, patient_pattern=r"(p\d+)_"), [tmp_path])
    assert [(tmp_path / f"{name}.csv").stat().st_mtime_ns for name in ("training", "heldout")] == [
        one.st_mtime_ns for one in before
    ]
    with pytest.raises(ConfigurationError, match="Name another folder with --output_dir"):
        write_split(split_cohorts(tmp_path / "training.csv", tmp_path / "heldout.csv", n_patients=2), [tmp_path])


def test_what_is_in_the_way_is_kept_and_named(images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mine = tmp_path / "out" / "training.csv"
    mine.parent.mkdir()
    mine.write_text("notes of mine\n")
    with caplog.at_level(logging.WARNING):
        write_split(split_cohorts(images, seed=1), [tmp_path / "out"])
    (kept,) = (tmp_path / "out" / "earlier").rglob("training.csv")
    assert kept.read_text() == "notes of mine\n" and str(kept) in caplog.text
    assert len(Cohort.from_source(mine, "training")) == 16
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        write_split(split_cohorts(images, seed=2), [tmp_path / "out"])
    assert "was of another split" in caplog.text and "an autoencoder, say" in caplog.text
    assert len(list((tmp_path / "out" / "earlier").rglob("*.csv"))) == 3


def test_series_that_share_a_folder_are_not_written_as_one(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cohorts = split_cohorts(images)
    first, second, *_ = cohorts.training.images
    shared = replace(cohorts.training, images=(first, replace(second, path=first.path)))
    write_split(replace(cohorts, training=shared), [tmp_path / "out"])
    assert "several DICOM series lie in one folder" in caplog.text and not (tmp_path / "out").exists()

    told = tuple(
        replace(image, path=first.path, columns={"SeriesInstanceUID": uid})
        for image, uid in ((first, "1.2"), (second, "1.3"))
    )
    write_split(replace(cohorts, training=replace(cohorts.training, images=told)), [tmp_path / "out"])
    with open(tmp_path / "out" / "training.csv", newline="") as stream:
        assert [row["SeriesInstanceUID"] for row in csv.DictReader(stream)] == ["1.2", "1.3"]


def test_the_next_step_can_be_pasted_or_says_what_is_missing(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    step = NextStep("my weights/model.pt", "it's/manifest.csv")
    step.run()
    told = capsys.readouterr().out
    assert "is not known here" in told and "--train TRAINING --heldout HELDOUT" in told
    write_split(split_cohorts(images), [tmp_path / "my weights"])
    step.run()
    told = capsys.readouterr().out
    assert "not known" not in told
    settings = asked(told.splitlines()[-1])
    assert settings.train == str(tmp_path / "my weights" / "training.csv")
    assert settings.heldout == str(tmp_path / "my weights" / "heldout.csv")
    assert settings.synthetic == str(tmp_path / "it's" / "manifest.csv")
    assert settings.out == str(tmp_path / "it's_audit")


def test_tables_are_those_of_the_weights_that_were_sampled(images: Path, tmp_path: Path) -> None:
    write_split(split_cohorts(images), [tmp_path / "mine"])
    kept = NextStep(tmp_path / "mine" / "diffusion" / "model_under_limit.pt", tmp_path / "manifest.csv")
    assert kept.tables == (tmp_path / "mine" / "training.csv", tmp_path / "mine" / "heldout.csv")
    foreign = NextStep(tmp_path / "mine" / "model.pt", tmp_path / "manifest.csv", other_bundle=tmp_path / "theirs")
    assert foreign.tables is None, "another generator was trained on other patients"
    write_split(split_cohorts(images, seed=3), [tmp_path / "theirs" / "models"])
    assert foreign.tables == tuple(tmp_path / "theirs" / "models" / f"{name}.csv" for name in ("training", "heldout"))

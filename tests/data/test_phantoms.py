# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from monai_memo.data.demo_cohorts import write_demo_cohorts
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import PHANTOMS
from monai_memo.demo import run_demo
from monai_memo.errors import ConfigurationError


@pytest.mark.parametrize(("name", "size"), [("chest", (64, 64)), ("knee", (16, 16, 16)), ("coronary", (16, 16, 16))])
def test_patients_are_alike_yet_different(name: str, size: tuple[int, ...]) -> None:
    make = PHANTOMS[name]
    images = np.stack([make(patient, size) for patient in range(12)])
    assert images.shape == (12, 1, *size) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1
    pairs = np.corrcoef(images.reshape(12, -1))[np.triu_indices(12, 1)]
    assert 0.5 < np.median(pairs) < 0.9 and pairs.max() < 0.97
    np.testing.assert_array_equal(make(3, size), images[3])
    visit = np.corrcoef(make(3, size, visit=1).ravel(), images[3].ravel())[0, 1]
    assert np.median(pairs) < visit < 0.999


def test_demo_cohorts_hold_the_planted_share(tmp_path: Path) -> None:
    write_demo_cohorts(tmp_path, "chest", 20, 6, 10, 0.3, seed=2, size=32)
    with open(tmp_path / "truth.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 10 == len(list((tmp_path / "synthetic").iterdir()))
    assert len(list((tmp_path / "training").iterdir())) == 20 and len(list((tmp_path / "heldout").iterdir())) == 6
    copied = [row for row in rows if row["copied_from"]]
    assert len(copied) == 3 and all((tmp_path / "training" / row["copied_from"]).exists() for row in copied)
    same = [row for row in copied if row["kind"] in ("blur", "gamma", "contrast", "noise")]
    load = Preprocessing(2, (32, 32))
    for row in same:
        pair = load(tmp_path / "synthetic" / row["synthetic"]), load(tmp_path / "training" / row["copied_from"])
        assert np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1] > 0.9


def test_demo_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="modality must be one of chest, knee, coronary, got 'brain'"):
        write_demo_cohorts(tmp_path, "brain")
    with pytest.raises(ConfigurationError, match="as many training images"):
        write_demo_cohorts(tmp_path, "chest", n_train=5, n_synthetic=20, copy_share=0.5)


def test_phantoms_do_not_mix_with_other_images(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "patient_00000.png").write_bytes(b"mine")
    with pytest.raises(ConfigurationError, match="training is there already, and not from these very phantoms"):
        write_demo_cohorts(tmp_path, "chest", 2, 2, 1, 0, size=16)
    assert [path.read_bytes() for path in tmp_path.rglob("*.*")] == [b"mine"]
    write_demo_cohorts(tmp_path / "new", "chest", 3, 2, 1, 0, size=16)
    write_demo_cohorts(tmp_path / "new", "chest", 3, 2, 1, 0, size=16)  # the same again
    with pytest.raises(ConfigurationError, match="name another folder"):
        write_demo_cohorts(tmp_path / "new", "chest", 2, 2, 1, 0, size=16)  # patient_00002 would be left
    assert len(list((tmp_path / "new" / "training").iterdir())) == 3


def test_a_demo_goes_to_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_memo.audit.audit.Audit.run", lambda audit: audit.out)
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    (cohort / "patient_1.png").write_bytes(b"mine")
    sizes = {"n_train": 3, "n_heldout": 2, "n_synthetic": 2}
    with pytest.raises(ConfigurationError, match="holds something already that no demo wrote"):
        run_demo(out=str(cohort), **sizes)
    assert [path.name for path in cohort.iterdir()] == ["patient_1.png"]
    (tmp_path / "new").mkdir()
    for _ in range(2):  # an empty folder, and the one of the same demo
        assert run_demo(out=str(tmp_path / "new"), **sizes)[0] == tmp_path / "new" / "audit"

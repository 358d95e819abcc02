# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs of a study as twins of one another, with generators whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_memo.errors import ConfigurationError
from monai_memo.sealing import write_sealed
from monai_memo.study.crossed import CrossedStudy, main
from monai_memo.study.study import GeneratorStudy
from tests.study.conftest import write_grid


def of_memorizers(grid: dict[str, Any], tmp_path: Path, seeds: list[int]) -> tuple[GeneratorStudy, list[str]]:
    """A finished study whose samples are exchanged for training images of their seed, with a little noise."""
    grid["seeds"] = seeds
    path, out = write_grid(grid, tmp_path), tmp_path / "study"
    study = GeneratorStudy(config=path, out=out, progress=False)
    study.run()
    data, rng = study.opened(), np.random.default_rng(0)
    for run, folder, result in study.finished(data):
        pixels = np.asarray(data.prepared(data.training_cohort(run.n_patients, run.seed)).pixels, dtype=np.float32)
        rows = rng.integers(len(pixels), size=20)
        copies = np.clip(pixels[rows] + rng.normal(0, 0.02, pixels[rows].shape), 0, 1).astype(np.float16)
        store = folder / "samples.npy"
        write_sealed(store, lambda temporary, copies=copies: np.save(temporary, copies), result["fingerprint"])
    return study, ["--study", str(out), "--config", str(path)]


def test_copies_are_called_among_their_own_patients_and_not_among_those_of_the_next_seed(
    grid: dict[str, Any],
    tmp_path: Path,
    detector_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study, command = of_memorizers(grid, tmp_path, [0, 1])
    command += ["--out", str(tmp_path / "out"), "--samples", "20", "--paper_detector", str(detector_file)]
    main(command)
    record = json.loads((tmp_path / "out" / "crossed.json").read_text())
    (row,) = record["summary"]
    assert row["generator"] == "plain, 12 patients" and row["trainings"] == 2
    assert row["called"]["own"][0] > 0.9
    assert row["called"]["twin"][0] < 0.2
    assert row["methods"]["paper's recipe"] == row["methods"]["embedding alone"]  # the same file
    assert "keypoints (SIFT)" in capsys.readouterr().out

    monkeypatch.setattr("monai_memo.study.crossed.look_up", lambda *_: pytest.fail("each unit is done once"))
    main(command)
    crossed = CrossedStudy(study, tmp_path / "out", paper=detector_file)
    data = study.opened()
    first, second = (run for run, _, _ in study.finished(data))
    there = {name for seed in (0, 1) for name in data.training_cohort(12, seed).patient_ids}
    assert len(there) < 24, "both seeds drew some patients"
    twin = crossed._half(first, second).prepared.cohort
    assert not set(twin.patient_ids) & set(data.training_cohort(12, 0).patient_ids)
    assert len(twin) == len(there) - 12


def test_a_study_of_one_seed_has_no_twins(grid: dict[str, Any], tmp_path: Path) -> None:
    study, _ = of_memorizers(grid, tmp_path, [0])
    with pytest.raises(ConfigurationError, match="no two finished runs differ in their seed alone"):
        CrossedStudy(study, tmp_path / "out").run()

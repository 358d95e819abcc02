# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs of a study as twins of one another, with generators whose truth is known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_memo.errors import ConfigurationError
from monai_memo.sealing import write_sealed, write_sealed_json
from monai_memo.study.configuration import Run
from monai_memo.study.crossed import CrossedStudy, main
from monai_memo.study.mitigation import arm_of
from monai_memo.study.study import GeneratorStudy
from tests.study.conftest import write_grid


@pytest.fixture
def grid(grid: dict[str, Any], cohorts: Path, tmp_path: Path) -> dict[str, Any]:
    """Cohorts whose patients are known."""
    for key, name in (("dataset", "training"), ("heldout", "heldout")):
        rows = [f"{path},{path.stem}" for path in sorted((cohorts / name).glob("*.png"))]
        table = tmp_path / f"{name}.csv"
        table.write_text("\n".join(["image,patient_id", *rows]), encoding="utf-8")
        grid[key] = str(table)
    return grid


def of_memorizers(grid: dict[str, Any], tmp_path: Path, seeds: list[int]) -> tuple[GeneratorStudy, list[str]]:
    """A study whose runs count as finished, with training images of their seed, under a little noise, as samples."""
    grid["seeds"] = seeds
    path, out = write_grid(grid, tmp_path), tmp_path / "study"
    study = GeneratorStudy(config=path, out=out, progress=False)
    data, rng = study.opened(), np.random.default_rng(0)
    for run in (planned.run for planned in study.configuration.plan()):
        pixels = np.asarray(data.prepared(data.training_cohort(run.n_patients, run.seed)).pixels, dtype=np.float32)
        rows = rng.integers(len(pixels), size=20)
        copies = np.clip(pixels[rows] + rng.normal(0, 0.02, pixels[rows].shape), 0, 1).astype(np.float16)
        folder, identity = study._folder(run, data), study._run_identity(run, data)
        write_sealed(folder / "samples.npy", lambda temporary, copies=copies: np.save(temporary, copies), identity)
        write_sealed_json(folder / "result.json", {"fingerprint": identity})
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

    (tmp_path / "out" / "crossed.md").write_text("somebody's words", encoding="utf-8")
    monkeypatch.setattr("monai_memo.study.crossed.look_up", lambda *_: pytest.fail("each unit is done once"))
    main(command)
    (earlier,) = (tmp_path / "out" / "earlier").glob("*/crossed.md")
    assert earlier.read_text(encoding="utf-8") == "somebody's words"
    crossed = CrossedStudy(study, tmp_path / "out", paper=detector_file)
    data = study.opened()
    first, second = (run for run, _, _ in study.finished(data))
    there = {name for seed in (0, 1) for name in data.training_cohort(12, seed).patient_ids}
    assert len(there) < 24, "both seeds drew some patients"
    twin = crossed._half(first, second).prepared.cohort
    assert not set(twin.patient_ids) & set(data.training_cohort(12, 0).patient_ids)
    assert len(twin) == len(there) - 12


def test_runs_without_a_twin_or_whose_samples_are_damaged_are_left_out_by_name(
    grid: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid["factors"] = {"n_patients": [12, 16]}
    study, _ = of_memorizers(grid, tmp_path, [0, 1])
    data = study.opened()
    runs = {run.name: folder for run, folder, _ in study.finished(data)}
    (runs["vae-12p-none-small-4-seed0"] / "samples.npy").write_bytes(b"no array")
    (runs["vae-16p-none-small-4-seed0"] / "result.json").unlink()
    crossed = CrossedStudy(study, tmp_path / "out", samples=10, baselines=False)
    crossed.run()
    told = {words.partition(":")[0]: words for words in crossed.left_out}
    assert set(told) == {*runs} - {"vae-12p-none-small-4-seed1"}
    assert "samples.npy is missing or damaged: remove" in told["vae-12p-none-small-4-seed0"]
    assert told["vae-16p-none-small-4-seed0"].endswith("not finished")
    assert "no finished run differs" in told["vae-16p-none-small-4-seed1"]
    assert "3 left out:" in (tmp_path / "out" / "crossed.md").read_text(encoding="utf-8")


def test_runs_that_are_told_different_things_are_arms_of_their_own() -> None:
    base = {"generator": "plain", "augmentation": "none", "network": "medium", "steps": 10}
    runs = [
        Run("plain", 50, "none", "medium", 10, 0, told, scale)
        for told, scale in (("none", 1.0), ("class", 1.0), ("class", 3.0), ("unique", 1.0))
    ]
    arms = [arm_of(run, base) for run in runs]
    assert arms == ["plain", "conditioning class", "conditioning class, guidance 3", "conditioning unique"]
    assert arm_of(runs[1], {**base, "conditioning": "class"}) == "plain"


def test_a_pool_that_every_seed_draws_whole_has_no_twins(grid: dict[str, Any], tmp_path: Path) -> None:
    """Nothing is left of the other seed's patients, or too little to find anything in."""
    grid["base"]["n_patients"] = 24
    study, _ = of_memorizers(grid, tmp_path, [0, 1])
    with pytest.raises(ConfigurationError, match="are strangers to it, fewer than half"):
        CrossedStudy(study, tmp_path / "out").run()


def test_a_study_of_one_seed_or_of_other_images_ends_in_a_message_and_stays_as_it_is(
    grid: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, command = of_memorizers(grid, tmp_path, [0])
    listed = study.out / "shared" / "training.csv"
    before = listed.read_text(encoding="utf-8")
    few = tmp_path / "few.csv"
    few.write_text("\n".join(Path(grid["dataset"]).read_text(encoding="utf-8").splitlines()[:-1]), encoding="utf-8")
    unnamed = tmp_path / "unnamed.yaml"
    write_grid({**grid, "detector": None}, tmp_path).rename(unnamed)
    write_grid(grid, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    longer = write_grid({**grid, "base": {**grid["base"], "steps": 8}}, other)
    for further, words in (
        ([], "no two finished runs differ in their seed alone"),
        (["--dataset", str(few)], "--dataset .*few.csv has other images than the study in"),
        (["--study", str(tmp_path / "nowhere")], "holds no study"),
        (
            ["--config", str(longer)],
            "none of the 1 planned runs is finished. 1 finished runs there were made with other",
        ),
        (["--config", str(unnamed)], "name the --detector"),
        (["--out", ""], "--out is '', which names no folder"),
        (["--config", str(tmp_path / "none.yaml")], "cannot read the study"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--out", str(tmp_path / "out"), *further])
        assert ended.value.code == 2
        assert re.search(words, capsys.readouterr().err)
    assert listed.read_text(encoding="utf-8") == before
    assert not (tmp_path / "nowhere").exists()


def test_cohorts_that_name_no_patients_are_refused(grid: dict[str, Any], cohorts: Path, tmp_path: Path) -> None:
    study, _ = of_memorizers({**grid, "dataset": str(cohorts / "training")}, tmp_path, [0])
    with pytest.raises(ConfigurationError, match="training names no patients"):
        CrossedStudy(study, tmp_path / "out")

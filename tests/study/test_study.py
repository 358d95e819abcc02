# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import monai
import numpy as np
import pytest

from monai_memo.__main__ import FINISHED, SKIPPED, main
from monai_memo.errors import CohortOverlapError, ConfigurationError
from monai_memo.generators.weights import read_record
from monai_memo.study import pixel_training, study
from monai_memo.study.study import GeneratorStudy
from tests.study.conftest import LATENT_DIFFUSION, write_grid


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    yield
    monai.utils.set_determinism(None)


def start(grid: dict[str, Any], folder: Path, **further: Any) -> list[dict[str, Any]]:
    settings = {"device": "cpu", "workers": 1, "progress": False, **further}
    return GeneratorStudy(config=str(write_grid(grid, folder)), out=str(folder / "study"), **settings).run()


def audits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that are trained from now on."""
    seen: list[str] = []
    original = study.GeneratorStudy._train

    def counted(self: GeneratorStudy, run: Any, data: Any) -> Any:
        seen.append(run.name)
        return original(self, run, data)

    monkeypatch.setattr(study.GeneratorStudy, "_train", counted)
    return seen


@pytest.mark.slow
def test_three_generators_end_to_end(
    grid: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every generator is trained, sampled and audited; one run that cannot work is listed and ends nothing."""
    grid["factors"] = {"generator": ["ldm", "vae", "gan"], "steps": [2, 4], "n_patients": [12, 500]}
    arguments = ["--config", str(write_grid(grid, tmp_path)), "--out", str(tmp_path / "study"), "--noprogress"]
    command = ["study", *arguments, "--device", "cpu", "--workers", "1"]
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == SKIPPED
    shown = capsys.readouterr().out
    assert "n_patients must lie between 1 and the 30 training patients" in shown
    with open(tmp_path / "study" / "study.csv", encoding="utf-8") as stream:
        rows = {(row["generator"], row["steps"], row["n_patients"]): row for row in csv.DictReader(stream)}
    assert {key: row["status"] for key, row in rows.items()} == {
        ("vae", "2", "12"): "finished", ("vae", "4", "12"): "finished", ("ldm", "4", "12"): "finished",
        ("gan", "4", "12"): "finished", ("vae", "4", "500"): "failed",
    }  # fmt: skip
    for row in rows.values():
        if row["status"] == "finished":
            assert int(row["n_training_images"]) == 12 and int(row["n_heldout_images"]) == 30
            assert int(row["n_synthetic"]) + int(row["n_unusable"]) == 20
            for audit in ("size_matched", "size_matched_embeddings", "paper"):
                low, value, high = (float(row[f"{audit}_excess_copies{end}"]) for end in ("_low", "", "_high"))
                assert -1 <= low <= value <= high <= 1
                assert float(row[f"{audit}_copies"]) == int(row[f"{audit}_n_copies"]) / int(row["n_synthetic"])
            assert float(row["fid"]) > 0 and float(row["ms_ssim"]) <= 1 and int(row["parameters"]) > 100
    assert {path.name for path in (tmp_path / "study" / "figures").iterdir()} == {
        "generator.png", "steps.png", "n_patients.png", "calibration.png", "sampling.png"
    }  # fmt: skip
    folders = sorted((tmp_path / "study" / "runs").iterdir())
    assert sum((folder / "pairs.png").is_file() and (folder / "samples.png").is_file() for folder in folders) == 4

    # Again: only what failed is tried, and with its cause mended nothing is listed any more.
    seen = audits(monkeypatch)
    kept = {path: path.read_bytes() for path in (tmp_path / "study" / "runs").glob("*/result.json")}
    start(grid, tmp_path)
    assert seen == [], "the failing run fails before it is trained"
    grid["factors"]["n_patients"] = [12, 20]
    with pytest.raises(SystemExit) as end:
        write_grid(grid, tmp_path)
        main(command)
    assert end.value.code == FINISHED and seen == ["vae-20p-none-small-4-seed0"]
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_interrupted_study_goes_on(grid: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill in the middle of a training: finished runs stay, the training goes on and ends with the same samples."""
    grid |= {"factors": {"steps": [2, 6]}, "seeds": [0]}
    (tmp_path / "whole").mkdir()
    whole = start(grid, tmp_path / "whole")
    steps_done: list[int] = []
    original = pixel_training.StopAtNaN.__call__

    def killed(self: Any, engine: Any) -> None:
        steps_done.append(engine.state.iteration)
        if engine.state.iteration == 5:
            raise KeyboardInterrupt
        original(self, engine)

    with monkeypatch.context() as patch:
        patch.setattr(pixel_training.StopAtNaN, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            start(grid, tmp_path)
    assert steps_done == [1, 2, 3, 4, 5], "the longer training goes on where the shorter one stopped"
    reported = start(grid, tmp_path, report_only=True)
    assert [record["status"] for record in reported] == ["finished", "finished", "not run"]
    assert "Not run:\n\n- vae-12p-none-small-6-seed0" in (tmp_path / "study" / "study.md").read_text()
    seen = audits(monkeypatch)
    resumed = start(grid, tmp_path)
    assert seen == ["vae-12p-none-small-6-seed0"]
    for first, second in zip(whole, resumed, strict=True):
        one, other = (np.load(Path(record["folder"]) / "samples.npy") for record in (first, second))
        assert np.array_equal(one, other)
        assert first["result"]["rates"] == second["result"]["rates"]
    assert not np.array_equal(one, np.load(Path(resumed[0]["folder"]) / "samples.npy")), "further steps change it"


def test_a_shorter_level_added_later_is_trained_from_the_start(grid: dict[str, Any], tmp_path: Path) -> None:
    long = start(grid, tmp_path)[0]
    grid["factors"] = {"steps": [2, 4]}
    records = start(grid, tmp_path)
    assert [record["status"] for record in records] == ["finished", "finished"]
    assert records[1]["folder"] == long["folder"]
    (tmp_path / "fresh").mkdir()
    fresh = start(grid, tmp_path / "fresh")[0]
    assert records[0]["result"]["rates"] == fresh["result"]["rates"]


def test_a_private_training_of_more_steps_does_not_go_on_with_one_of_fewer(
    grid: dict[str, Any], tmp_path: Path
) -> None:
    """Noise is chosen for all steps: the longer one has another."""
    pytest.importorskip("opacus")
    grid["generators"]["ldm"]["settings"] = {**LATENT_DIFFUSION, "privacy_epsilon": 8.0, "privacy_delta": 1e-3}
    grid["base"] |= {"generator": "ldm"}
    grid["factors"] = {"steps": [2, 4]}
    records = start(grid, tmp_path)
    assert [record["status"] for record in records] == ["finished", "finished"]
    short, long = (
        read_record(next((tmp_path / "study" / "trainings").rglob(f"model_{steps}.pt")))["privacy"] for steps in (2, 4)
    )
    assert short["steps"] == 2 and long["steps"] == 4 and short["noise_multiplier"] < long["noise_multiplier"]
    assert short["epsilon"] <= 8 and long["epsilon"] <= 8


def test_what_is_shared_is_checked_before_anything_is_trained(
    grid: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = audits(monkeypatch)
    with pytest.raises(CohortOverlapError):
        start({**grid, "heldout": grid["dataset"]}, tmp_path)
    with pytest.raises(ConfigurationError, match="heldout_patients must lie between 1 and the 40"):
        start({**grid, "heldout_patients": 50}, tmp_path)
    grid["base"]["generator"] = "ldm"
    grid["generators"]["ldm"]["settings"] = {"layers": 3}
    with pytest.raises(ConfigurationError, match=r"unknown key generators\.ldm\.settings\.layers"):
        start(grid, tmp_path)
    assert seen == []


def test_failures_of_every_kind_are_listed(grid: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "autoencoder.pt").write_bytes(b"no weights")
    grid["autoencoder"] = str(tmp_path / "autoencoder.pt")
    grid["generators"]["vae"]["base"] = {"n_patients": 500}
    settings = {**grid["generators"]["vae"]["settings"], "learning_rate": 0.9, "kl_weight": 1e6}
    grid["generators"]["hot"] = {"kind": "variational_autoencoder", "settings": settings, "base": {"steps": 20}}
    grid["factors"] = {"generator": ["vae", "ldm", "hot"]}
    records = start(grid, tmp_path)
    assert "n_patients must lie between 1 and the 30" in records[0]["error"]
    assert "autoencoder.pt" in records[1]["error"]
    assert "the loss is nan" in records[2]["error"]
    details = json.loads((Path(records[0]["folder"]) / "failed.json").read_text())
    assert details["kind"] == "ConfigurationError" and "Traceback" in details["traceback"]
    assert not list((tmp_path / "study").glob("figures/*"))

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Differential privacy of a generator bundle, run as a user runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image
from monai_memo.errors import ConfigurationError
from monai_memo.files import csv_text
from monai_memo.generators.weights import read_record
from monai_memo.training.private import PrivateTraining
from tests.bundles.test_generators import cause, restore, run, values  # noqa: F401

pytest.importorskip("opacus")
BUNDLE = "chest_xray_ldm"
PRIVATE: dict[str, Any] = {"first_stage": "none", "privacy_epsilon": 8.0, "privacy_delta": 1e-3, "privacy_clip": 0.5}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of each patient, of two classes."""
    folder = tmp_path_factory.mktemp("chests")
    rows = []
    for i in range(24):
        save_image(folder / f"p{i:02d}.png", chest_phantom(i, (32, 32)))
        rows.append((f"p{i:02d}.png", str(i // 2), "ab"[i // 2 % 2]))
    (folder / "data.csv").write_text(csv_text(("image", "patient_id", "label"), rows))
    return folder / "data.csv"


def train(table: Path, out: Path, **changes: Any) -> Any:
    return run(BUNDLE, "train_diffusion", "train", **values(BUNDLE, table, out, **{**PRIVATE, **changes}))


def refused(table: Path, out: Path, **changes: Any) -> str:
    with pytest.raises(Exception) as caught:
        train(table, out, **changes)
    error = cause(caught)
    assert isinstance(error, ConfigurationError)
    return str(error)


def test_the_budget_stands_beside_the_weights_with_all_that_it_does_not_cover(
    table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    flow = train(table, tmp_path, conditions="label", stop_patience=5, ambient_above=0.5, dropout=0.1, amp=True)
    record = read_record(tmp_path / "model.pt")["privacy"]
    assert 7.9 < record["epsilon"] <= 8 and record["delta"] == 1e-3 and record["clipping"] == 0.5
    assert record["steps"] == record["planned_steps"] == 4 and record["images"] == 12
    assert record["patient"]["images"] == 2 and not record["public_seed"]
    told = " ".join(record["not_covered"])
    for part in ("conditions", "when to stop", "settings", "repel"):
        assert part in told
    assert "first stage" not in told  # there is none
    kept = read_record(tmp_path / "diffusion" / "model_lowest_loss.pt")["privacy"]
    assert kept["epsilon"] == record["epsilon"]  # whenever it stopped
    common = values(BUNDLE, table, tmp_path / "samples", **{**PRIVATE, "model_dir": tmp_path, "n_samples": 2})
    run(BUNDLE, "inference", None, **common)
    assert "mixed precision is off" in caplog.text
    assert record["statement"] in caplog.text and "does not cover these samples" not in caplog.text
    run(BUNDLE, "inference", None, **{**common, "output_dir": str(tmp_path / "repelled")}, repel=0.5)
    assert "repel compares samples with training images" in caplog.text
    noise = flow.parser.get_parsed_content("privacy").training.noise_multiplier
    assert noise == record["noise_multiplier"] > 0


def test_weights_of_a_training_without_say_nothing_of_privacy(table: Path, tmp_path: Path) -> None:
    train(table, tmp_path, privacy_epsilon=None)
    assert "privacy" not in read_record(tmp_path / "model.pt")


def test_two_trainings_with_the_same_seed_have_other_noise(table: Path, tmp_path: Path) -> None:
    def weights(name: str, **changes: Any) -> torch.Tensor:
        settings = {"latent_variants": 1, "augmentation": False, **changes}
        train(table, tmp_path / name, **settings)
        state = read_record(tmp_path / name / "model.pt")["state_dict"]
        return torch.cat([value.flatten() for value in state.values()])

    first, second = weights("first"), weights("second")
    assert not torch.equal(first, second), "the seed of the config does not tell the noise"
    plain = weights("plain", privacy_epsilon=None)
    assert torch.equal(plain, weights("plain again", privacy_epsilon=None))
    assert not torch.equal(plain, first)


def test_a_killed_training_goes_on_with_the_budget_that_is_left(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, taken = PrivateTraining.step, []

    def killed(self: PrivateTraining, *arguments: Any) -> float:
        taken.append(self.taken)
        if len(taken) == 4:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(PrivateTraining, "step", killed)
    with pytest.raises(BaseException):  # noqa: B017
        train(table, tmp_path, scheduler="rflow")
    assert "had another privacy budget" in refused(table, tmp_path, scheduler="rflow", diffusion_epochs=3)
    train(table, tmp_path, scheduler="rflow")
    assert taken == [0, 1, 2, 3, 2, 3]  # the checkpoint was of the first epoch, which has two steps
    assert read_record(tmp_path / "model.pt")["privacy"]["steps"] == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop_above": 0.1}, "stop_above decides by training images without noise"),
        ({"keep_under": 0.1}, "keep_under decides by training images without noise"),
        ({"detector_file": "detector.pt"}, "leave detector_file out"),
        ({"privacy_delta": 0.5}, "privacy_delta must be less than 1 / 12"),
        ({"privacy_epsilon": -1.0}, "privacy_epsilon must be a number between 0"),
    ],
)
def test_what_would_break_the_guarantee_is_refused(
    changes: dict[str, Any], message: str, table: Path, tmp_path: Path
) -> None:
    assert message in refused(table, tmp_path, **changes)
    assert not (tmp_path / "model.pt").exists()


def test_several_processes_are_refused(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_memo.generators.private.idist.get_world_size", lambda: 2)
    assert "privacy_epsilon trains in one process" in refused(table, tmp_path)

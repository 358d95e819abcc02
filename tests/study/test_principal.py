# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The diffusion model of principal components: what each switch does to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.phantoms import chest_phantom
from monai_memo.errors import ConfigurationError
from monai_memo.generators.cohorts import GeneratorCohorts
from monai_memo.generators.dissimilarity import DissimilarityGuidance
from monai_memo.generators.repellency import distances
from monai_memo.sealing import load_torch
from monai_memo.study.configuration import StudyConfiguration
from monai_memo.study.principal import PrincipalAutoencoder, PrincipalTraining
from tests.study.conftest import write_grid

PIXELS = np.stack([chest_phantom(number, (16, 16)) for number in range(60)])
SOMEBODY = (CohortImage(Path("0.png"), "0.png", "0"),)
NOBODY = GeneratorCohorts(*(Cohort(name, SOMEBODY, "none", True) for name in ("training", "heldout")))
AUTOENCODER = PrincipalAutoencoder(PIXELS, 12).eval()


def training(folder: Path, steps: int = 40, augmentation: str = "none", **settings: Any) -> PrincipalTraining:
    asked = {"components": 12, "hidden": 16, "steps_per_epoch": 20, "num_inference_steps": 10, **settings}
    return PrincipalTraining(AUTOENCODER, PIXELS[:10], PIXELS[30:], NOBODY, augmentation, steps, 3, folder, asked)


def latents(images: np.ndarray) -> torch.Tensor:
    return AUTOENCODER.encode(torch.from_numpy(images.astype(np.float32)))[0]


def test_components_bring_images_back_but_for_what_they_leave_out() -> None:
    whole = PrincipalAutoencoder(PIXELS, 59)
    images = torch.from_numpy(PIXELS[:5])
    assert torch.allclose(whole.reconstruct(images), images, atol=1e-3)
    assert latents(PIXELS).flatten(1).std(dim=0).numpy() == pytest.approx(np.ones(12), abs=0.01)


def test_the_same_training_gives_the_same_images_and_is_not_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = training(tmp_path).generator().sample([1, 2, 3])
    assert first.shape == (3, 1, 16, 16)
    assert np.array_equal(first, training(tmp_path / "again").generator().sample([1, 2, 3]))
    assert not np.allclose(first, training(tmp_path / "decay", weight_decay=0.5).generator().sample([1, 2, 3]))
    monkeypatch.setattr(PrincipalTraining, "_train", lambda *_: pytest.fail("trained twice"))
    assert np.array_equal(first, training(tmp_path).generator().sample([1, 2, 3]))


def test_shields_push_the_memorizer_away_from_its_training_images(tmp_path: Path) -> None:
    plain = training(tmp_path).generator(memorizer=True).sample(range(12))
    pushed = training(tmp_path, repel=0.3).generator(memorizer=True).sample(range(12))
    known = latents(PIXELS[:10])
    near, far = (distances(latents(images), known).min(dim=1).values for images in (plain, pushed))
    assert near.median() < 0.5 and far.median() > 1.5 * near.median()


def test_guidance_is_on_where_it_is_asked_for(tmp_path: Path) -> None:
    model: Any = training(tmp_path, dissimilarity=50.0).generator()
    assert isinstance(model.diffusion.correction, DissimilarityGuidance)
    assert model.diffusion.correction.scale == 50 and len(model.diffusion.correction.references) == 10
    assert np.isfinite(model.sample([1, 2])).all()


@pytest.mark.parametrize("change", [{"ambient_above": 0.3}, {"dropout": 0.3}, {"augmentation": "flips"}])
def test_switches_of_training_change_the_network(change: dict[str, Any], tmp_path: Path) -> None:
    plain = training(tmp_path / "plain").generator().sample([4, 5])
    changed = training(tmp_path / "changed", **change).generator().sample([4, 5])
    assert not np.allclose(plain, changed, atol=1e-3)


def test_a_privacy_budget_is_kept_and_stands_beside_the_weights(tmp_path: Path, caplog: Any) -> None:
    pytest.importorskip("opacus")
    caplog.set_level("INFO")
    asked: dict[str, Any] = {"privacy_epsilon": 8.0, "privacy_delta": 1e-3, "batch_size": 4}
    first = training(tmp_path / "a", **asked).generator().sample([1, 2])
    record = load_torch(tmp_path / "a" / "principal_40.pt")["privacy"]
    assert 7.9 < record["epsilon"] <= 8 and record["images"] == 10 and record["steps"] == 40
    assert "the principal components, which are of all patients of the study" in record["not_covered"]
    assert any(entry.getMessage() == record["statement"] for entry in caplog.records)
    assert np.array_equal(first, training(tmp_path / "again", **asked).generator().sample([1, 2]))
    for change in ({"privacy_epsilon": 2.0}, {"privacy_delta": 1e-2}, {"privacy_clip": 0.1}, {"augmentation": "flips"}):
        assert not np.array_equal(first, training(tmp_path / "a", **{**asked, **change}).generator().sample([1, 2]))


def test_a_small_privacy_budget_leaves_samples_further_from_the_training_images(tmp_path: Path) -> None:
    pytest.importorskip("opacus")
    known = latents(PIXELS[:10])

    def nearest(epsilon: float) -> float:
        asked = {"privacy_epsilon": epsilon, "privacy_delta": 1e-2, "privacy_clip": 0.5}
        settings = {"steps": 400, "learning_rate": 0.01, "hidden": 64, "batch_size": 10}
        model = training(tmp_path / f"{epsilon:g}", **settings, **asked).generator()
        return float(distances(latents(model.sample(range(12))), known).min(dim=1).values.median())

    assert nearest(0.5) > 1.2 * nearest(1000.0)


def test_the_lowest_held_out_loss_is_kept_and_training_stops_after_it(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO")
    settings = {"learning_rate": 0.01, "hidden": 64}
    stopped = training(tmp_path / "a", steps=2000, stop_patience=2, **settings)
    stopped.generator()
    message = next(record.getMessage() for record in caplog.records if "stopped after" in record.getMessage())
    steps = int(message.split()[2])
    assert steps < 2000 and steps % 20 == 0
    kept = stopped.generator().sample([1])
    halted = training(tmp_path / "b", steps=steps - 40, **settings).generator().sample([1])
    assert np.allclose(kept, halted, atol=1e-5)


def test_a_study_knows_its_settings(grid: dict[str, Any], tmp_path: Path) -> None:
    grid["generators"]["pca"] = {"kind": "principal_diffusion", "settings": {"steps_per_epoch": 2, "repell": 0.1}}
    grid["base"] |= {"generator": "pca"}
    with pytest.raises(ConfigurationError, match=r"generators\.pca\.settings\.repell: did you mean repel"):
        StudyConfiguration.read(write_grid(grid, tmp_path))
    grid["generators"]["pca"]["settings"] = {"steps_per_epoch": 2, "repel": 0.1, "dissimilarity": 5.0}
    with pytest.raises(ConfigurationError, match="repel and dissimilarity exclude one another"):
        StudyConfiguration.read(write_grid(grid, tmp_path))

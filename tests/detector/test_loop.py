# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""One loop trains all detectors: for Python, the bundle and fine-tuning, interrupted or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import monai
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.engines import SupervisedTrainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.prepared import prepare
from monai_memo.data.writing import save_image
from monai_memo.detector.detector import Detector
from monai_memo.detector.fine_tuning import fine_tune
from monai_memo.detector.loop import TrainingPlan, contrastive_trainer
from monai_memo.detector.recipe import Recipe
from monai_memo.detector.training import train_detector
from monai_memo.errors import TrainingError
from monai_memo.training.batches import PixelDataset

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "bundles" / "memorization_detection" / "configs"
PIXELS = np.stack([chest_phantom(i, (16, 16)) for i in range(24)])
SETTINGS = Preprocessing(2, (16, 16))
PARTNERS = {2: PIXELS[2, :, :, ::-1].copy(), 5: PIXELS[6]}


@pytest.fixture(autouse=True)
def leave_no_trace() -> Iterator[None]:
    """The bundle seeds the process and asks for deterministic algorithms; other tests must not notice."""
    yield
    monai.utils.set_determinism(None)
    torch.use_deterministic_algorithms(False)


def interrupted(train: Callable[[], object], monkeypatch: pytest.MonkeyPatch, epoch: int = 1) -> None:
    """Train, but stop after this epoch, as if the process had been ended after its checkpoint."""
    original = SupervisedTrainer.run

    def run(self: SupervisedTrainer) -> None:
        self.add_event_handler(Events.EPOCH_COMPLETED(once=epoch), lambda engine: engine.terminate())
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(SupervisedTrainer, "run", run)
        train()


def small(epochs: int = 3) -> Recipe:
    return Recipe.named("default", 2, (16, 16), epochs=epochs, batch_size=8)


@pytest.mark.parametrize(("dims", "recipe"), [(2, "default"), (3, "paper")])
def test_library_bundle_and_interrupted_bundle_train_the_same_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dims: int, recipe: str
) -> None:
    shape, train = (16,) * dims, tmp_path / "train"
    for number in range(24 if dims == 2 else 12):
        phantom = chest_phantom(number, (16, 16)) if dims == 2 else knee_phantom(number, (16, 16, 16))
        save_image(train / (f"{number:03d}.png" if dims == 2 else f"{number:03d}.nii.gz"), phantom)

    def bundle(name: str) -> Detector:
        out = tmp_path / name
        values: dict[str, Any] = {
            "bundle_root": str(CONFIGS.parent), "train_dir": str(train), "output_dir": str(out), "epochs": 3, "seed": 7,
            "detector_file": str(out / "detector.pt"), "spatial_dims": dims, "size": 16, "recipe": recipe,
            "device": "cpu", "workers": 1, "progress": False, "validation_fraction": 0.35,
        }  # fmt: skip
        files = [str(CONFIGS / f"{part}.json") for part in ("train",)]
        flow = ConfigWorkflow(config_file=files, workflow_type="train", logging_file=False, **values)
        flow.initialize()
        flow.run()
        return Detector.load(out / "detector.pt")

    preprocessing = Preprocessing(dims, shape)
    prepared = prepare(Cohort.from_source(train, "training"), preprocessing, tmp_path / "pixels", progress=False)
    named = Recipe.named(recipe, dims, shape, epochs=3, n_images=len(prepared.pixels))
    library = train_detector(
        prepared.pixels, named, preprocessing, tmp_path / "library", seed=7, progress=False, validation_fraction=0.35,
        patient_ids=prepared.cohort.patient_ids,
    )  # fmt: skip
    interrupted(lambda: bundle("stopped"), monkeypatch)
    stopped = Detector.load(tmp_path / "stopped" / "detector.pt")
    assert stopped.training_summary["epochs"] == 1 and stopped.sha256 != library.sha256
    torch.manual_seed(99)
    assert bundle("whole").sha256 == bundle("stopped").sha256 == library.sha256
    # Once more, when everything is done: nothing is trained, the same file is written.
    (tmp_path / "whole" / "detector.pt").unlink()
    again = bundle("whole")
    assert again.sha256 == library.sha256 and again.training_summary == library.training_summary
    assert again.training_summary["validation_images"] == (8 if dims == 2 else 4)


def test_an_interrupted_fine_tuning_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = train_detector(PIXELS, small(1), SETTINGS, tmp_path / "ready", progress=False)

    def tune(folder: Path | None) -> Detector:
        return fine_tune(ready, PIXELS, PARTNERS, PIXELS[:2], epochs=3, seed=4, folder=folder)

    interrupted(lambda: tune(tmp_path / "stopped"), monkeypatch, 2)
    assert (tmp_path / "stopped" / "checkpoint_epoch=2.pt").exists()
    assert not (tmp_path / "stopped" / "checkpoint_epoch=3.pt").exists()
    torch.manual_seed(99)
    assert tune(tmp_path / "stopped").sha256 == tune(tmp_path / "whole").sha256 == tune(None).sha256 != ready.sha256


def test_fine_tuning_stops_at_a_loss_that_is_no_number_like_every_training(tmp_path: Path) -> None:
    ready = train_detector(PIXELS, small(1), SETTINGS, tmp_path / "ready", progress=False)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+ \(epoch \d\)"):
        fine_tune(ready, PIXELS, PARTNERS, epochs=3, learning_rate=1e30)


def test_images_that_are_their_own_partners_are_fine_tuned_as_trained(tmp_path: Path) -> None:
    """Without partners the two are one training: same loop, same seeds, same order."""
    recipe = replace(small(2), warmup=0.0, final_rate=0.0, learning_rate=1e-3)
    start = train_detector(PIXELS, small(1), SETTINGS, tmp_path / "start", progress=False)
    more = train_detector(
        PIXELS, recipe, SETTINGS, tmp_path / "more", seed=3, progress=False, validation_fraction=0, start_from=start
    )
    tuned = fine_tune(start, PIXELS, {0: PIXELS[0]}, epochs=2, learning_rate=1e-3, seed=3)
    for name, tensor in more.network.state_dict().items():
        assert torch.equal(tensor, tuned.network.state_dict()[name]), name


def test_a_trainer_without_a_folder_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = TrainingPlan(small(1))
    trainer = contrastive_trainer(plan.place(plan.recipe.build_network()), PixelDataset(PIXELS, range(24)), plan)
    trainer.run()
    assert trainer.state.iteration == 3 and not list(tmp_path.iterdir())
    assert trainer.summary() == {"epochs": 1, "images": 24, "validation_images": 0, "validation_loss": None}


def test_every_step_is_logged_under_the_same_name_by_all(tmp_path: Path) -> None:
    train_detector(PIXELS, small(2), SETTINGS, tmp_path, progress=False, validation_fraction=0.25)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert len(events.Scalars("train_loss")) == 2 * 2 and "validation_loss" in events.Tags()["scalars"]


def test_the_room_has_one_loop() -> None:
    """A second trainer in code or in the bundle would be a second definition of training."""
    with_trainer = [
        path.name
        for path in (ROOT / "monai_memo" / "detector").glob("*.py")
        if "SupervisedTrainer" in path.read_text(encoding="utf-8") or ".backward()" in path.read_text(encoding="utf-8")
    ]
    assert with_trainer == ["loop.py"]
    for name in ("train", "multi_gpu_train"):
        text = (CONFIGS / f"{name}.json").read_text(encoding="utf-8")
        assert "SupervisedTrainer" not in text and "CheckpointSaver" not in text and "set_determinism" not in text
    trainer = json.loads((CONFIGS / "train.json").read_text(encoding="utf-8"))["train"]["trainer"]
    assert trainer["_target_"] == "monai_memo.detector.loop.ContrastiveTrainer"

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.detector.recipe import Recipe, cosine_schedule
from monai_memo.detector.training import split_validation, train_detector
from monai_memo.errors import ConfigurationError, DetectorError, TrainingError
from monai_memo.views import Views

SETTINGS = Preprocessing(2, (16, 16))
PIXELS = np.stack([chest_phantom(i, (16, 16)) for i in range(48)])

SCRIPT = """
import sys
import numpy as np
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom
from monai_memo.detector.recipe import Recipe
from monai_memo.detector.training import train_detector
pixels = np.stack([chest_phantom(i, (16, 16)) for i in range(48)])
recipe = Recipe.named("default", 2, (16, 16), epochs=400, batch_size=8)
train_detector(pixels, recipe, Preprocessing(2, (16, 16)), sys.argv[1], seed=5, progress=False)
"""


def small(epochs: int = 3, name: str = "default") -> Recipe:
    return Recipe.named(name, 2, (16, 16), epochs=epochs, batch_size=8)


def test_training_lowers_the_loss_and_logs_it(tmp_path: Path) -> None:
    recipe = replace(small(25), views=Views.paper())
    detector = train_detector(PIXELS, recipe, SETTINGS, tmp_path, seed=0, progress=False)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = events.Tags()["scalars"]
    losses = [event.value for event in events.Scalars(next(tag for tag in tags if "Loss" in tag or "loss" in tag))]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert "validation_loss" in tags
    assert detector.training_summary["validation_images"] == 5 and detector.training_summary["images"] == 43
    assert detector.training_summary["validation_loss"] > 0


def test_a_trained_detector_is_the_start_of_another(tmp_path: Path) -> None:
    ready = train_detector(PIXELS[:24], small(10), SETTINGS, tmp_path / "ready", seed=0, progress=False)
    slow = replace(small(1), learning_rate=1e-7)
    first = train_detector(PIXELS[24:], slow, SETTINGS, tmp_path / "a", seed=1, progress=False, start_from=ready)
    assert first.training_summary["started_from"] == ready.sha256
    for before, after in zip(ready.network.parameters(), first.network.parameters(), strict=True):
        assert torch.allclose(before, after, atol=1e-5)
    # A training from other weights is another training: its checkpoints are not taken.
    fresh = train_detector(PIXELS[24:], slow, SETTINGS, tmp_path / "a", seed=1, progress=False)
    assert "started_from" not in fresh.training_summary and fresh.sha256 != first.sha256
    with pytest.raises(DetectorError, match="another network"):
        train_detector(PIXELS, small(1, "paper"), SETTINGS, tmp_path / "b", progress=False, start_from=ready)
    with pytest.raises(DetectorError, match="prepares images otherwise"):
        train_detector(
            PIXELS, small(1), replace(SETTINGS, size=(32, 32)), tmp_path / "c", progress=False, start_from=ready
        )


def test_mixed_precision_trains_nearly_the_same_detector(tmp_path: Path) -> None:
    full = train_detector(PIXELS, small(2), SETTINGS, tmp_path / "full", seed=0, progress=False)
    half = train_detector(PIXELS, small(2), SETTINGS, tmp_path / "half", seed=0, progress=False, amp=True)
    again = train_detector(PIXELS, small(2), SETTINGS, tmp_path / "again", seed=0, progress=False, amp=True)
    assert half.training_summary["mixed_precision"] and "mixed_precision" not in full.training_summary
    assert half.sha256 == again.sha256 != full.sha256
    assert all(weights.dtype == torch.float32 for weights in half.network.parameters())
    alike = (full.embed(PIXELS, progress=False) * half.embed(PIXELS, progress=False)).sum(axis=1)
    assert np.median(alike) > 0.9
    # A training in another precision is another training: its checkpoints are not taken.
    assert train_detector(PIXELS, small(2), SETTINGS, tmp_path / "half", progress=False).sha256 == full.sha256


def test_same_seed_same_weights_other_seed_other_weights(tmp_path: Path) -> None:
    first = train_detector(PIXELS, small(), SETTINGS, tmp_path / "a", seed=1, progress=False)
    torch.manual_seed(77)
    second = train_detector(PIXELS, small(), SETTINGS, tmp_path / "b", seed=1, progress=False)
    assert first.sha256 == second.sha256
    assert train_detector(PIXELS, small(), SETTINGS, tmp_path / "c", seed=2, progress=False).sha256 != first.sha256


def test_killed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "killed")])
    deadline = time.time() + 120
    while len(list((tmp_path / "killed").glob("checkpoint*.pt"))) < 2 and time.time() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    numbers = [int(path.stem.rpartition("=")[2]) for path in (tmp_path / "killed").glob("checkpoint*.pt")]
    assert numbers and max(numbers) < 400
    # The recipe is part of a checkpoint's identity, so the long training cannot be cut short here: compare the epochs
    # that follow in both.
    recipe = Recipe.named("default", 2, (16, 16), epochs=400, batch_size=8)
    states = {}
    for name in ("killed", "whole"):
        states[name] = _train_until(tmp_path / name, recipe, max(numbers) + 3)
    for key, tensor in states["whole"].items():
        assert torch.equal(tensor, states["killed"][key]), key


def test_resumed_training_draws_the_same_dropout(tmp_path: Path) -> None:
    recipe = Recipe.named("paper", 3, (16, 16, 16), epochs=6, batch_size=4)
    volumes, settings = np.stack([knee_phantom(i, (16, 16, 16)) for i in range(10)]), Preprocessing(3, (16, 16, 16))
    _train_until(tmp_path / "stopped", recipe, 2, volumes, settings)
    torch.manual_seed(123)
    resumed = _train_until(tmp_path / "stopped", recipe, 4, volumes, settings)
    whole = _train_until(tmp_path / "whole", recipe, 4, volumes, settings)
    for key, tensor in whole.items():
        assert torch.equal(tensor, resumed[key]), key


def _train_until(
    folder: Path,
    recipe: Recipe,
    epoch: int,
    pixels: np.ndarray = PIXELS,
    settings: Preprocessing = SETTINGS,
) -> dict[str, torch.Tensor]:
    """Train up to this epoch of a longer recipe and return the weights of its checkpoint."""
    from ignite.engine import Events
    from monai.engines import SupervisedTrainer

    original = SupervisedTrainer.run

    def run(self: SupervisedTrainer) -> None:
        self.add_event_handler(Events.EPOCH_COMPLETED(once=epoch), lambda engine: engine.terminate())
        original(self)

    patch = pytest.MonkeyPatch()
    patch.setattr(SupervisedTrainer, "run", run)
    try:
        train_detector(pixels, recipe, settings, folder, seed=5, progress=False, validation_fraction=0.1)
    finally:
        patch.undo()
    found: dict[str, torch.Tensor] = torch.load(folder / f"checkpoint_epoch={epoch}.pt", weights_only=True)["network"]
    return found


def test_a_checkpoint_of_another_run_is_not_used(tmp_path: Path) -> None:
    train_detector(PIXELS, small(), SETTINGS, tmp_path / "run", seed=1, progress=False)
    again = train_detector(PIXELS[:40], small(), SETTINGS, tmp_path / "run", seed=1, progress=False)
    fresh = train_detector(PIXELS[:40], small(), SETTINGS, tmp_path / "fresh", seed=1, progress=False)
    assert again.sha256 == fresh.sha256
    other = train_detector(
        PIXELS[:40], small(), SETTINGS, tmp_path / "run", seed=1, progress=False, validation_fraction=0.3
    )
    assert other.training_summary["images"] == 28 and other.sha256 != fresh.sha256


@pytest.mark.parametrize("name", ["run.json", "checkpoint_epoch=3.pt", "tensorboard"])
def test_files_of_other_origin_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    train_detector(PIXELS[:8], small(1), SETTINGS, tmp_path, seed=1, progress=False)
    train_detector(PIXELS[:8], small(1), SETTINGS, tmp_path, seed=2, progress=False)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    foreign = tmp_path / "foreign" / name
    foreign.parent.mkdir()
    foreign.write_text("{}")
    with pytest.raises(TrainingError, match=r"not of a training of this library\. They are left"):
        train_detector(PIXELS[:8], small(1), SETTINGS, foreign.parent, progress=False)
    assert foreign.read_text() == "{}"


def test_a_cut_checkpoint_is_skipped(tmp_path: Path) -> None:
    whole = train_detector(PIXELS[:16], small(), SETTINGS, tmp_path, progress=False)
    newest = tmp_path / "checkpoint_epoch=3.pt"
    newest.write_bytes(newest.read_bytes()[:2000])
    assert train_detector(PIXELS[:16], small(), SETTINGS, tmp_path, progress=False).sha256 == whole.sha256


@pytest.mark.parametrize("name", ["default", "paper"])
def test_both_recipes_train_in_2d_and_3d(tmp_path: Path, name: str) -> None:
    flat = train_detector(PIXELS[:16], small(1, name), SETTINGS, tmp_path / "2d", progress=False)
    assert flat.recipe.name == name
    volumes = np.stack([knee_phantom(i, (16, 16, 16)) for i in range(10)])
    recipe = Recipe.named(name, 3, (16, 16, 16), epochs=1, batch_size=4)
    deep = train_detector(volumes, recipe, Preprocessing(3, (16, 16, 16)), tmp_path / "3d", progress=False)
    assert deep.embed(volumes, progress=False).shape == (10, 128 if name == "default" else 32)


def test_nan_loss_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    pixels = PIXELS.copy()
    recipe = replace(small(3), learning_rate=1e30, warmup=0.0)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+ \(epoch \d\)"):
        train_detector(pixels, recipe, SETTINGS, tmp_path, progress=False)
    for path in tmp_path.glob("checkpoint*.pt"):
        assert "network" in torch.load(path, weights_only=True)


def test_small_cohorts_are_trained_for_more_epochs() -> None:
    def epochs(name: str, dims: int, n_images: int) -> int:
        return Recipe.named(name, dims, (32,) * dims, n_images=n_images).epochs

    assert epochs("default", 3, 72) == 625  # 4 steps of 16 volumes an epoch, 2,500 steps
    assert epochs("default", 2, 5000) == epochs("default", 2, 800) == 120
    assert epochs("paper", 3, 72) == 200
    assert Recipe.named("default", 3, (32, 32, 32), n_images=72, epochs=7).epochs == 7


def test_too_few_images_and_bad_recipes_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="7 training images are too few"):
        train_detector(PIXELS[:7], small(), SETTINGS, tmp_path, progress=False)
    with pytest.raises(ConfigurationError, match="recipe must be one of default, paper, got 'best'"):
        Recipe.named("best", 2, (16, 16))
    with pytest.raises(ConfigurationError, match="epochs must be a whole number of at least 1, got 0"):
        Recipe.named("default", 2, (16, 16), epochs=0)


def test_paper_recipe_has_the_published_numbers() -> None:
    flat, deep = Recipe.named("paper", 2, (64, 64)), Recipe.named("paper", 3, (32, 32, 32))
    assert (flat.epochs, flat.batch_size, deep.batch_size, flat.learning_rate, flat.temperature) == (
        200,
        64,
        10,
        1e-4,
        0.07,
    )
    assert (flat.views.rotation, flat.views.p_rotation, flat.views.p_flip, flat.views.p_noise) == (5.0, 0.5, 0.5, 0.0)
    network = flat.build_network()
    optimizer = flat.build_optimizer(network)
    assert type(optimizer) is torch.optim.Adam
    schedule = cosine_schedule(optimizer, 100, flat.warmup, flat.final_rate)
    rates = [schedule.lr_lambdas[0](step) for step in range(101)]
    assert rates[0] == 1.0 and rates[100] == pytest.approx(0.5) and rates[50] == pytest.approx(0.75)
    assert Recipe.from_dict(flat.to_dict()) == flat


def test_validation_is_split_by_patient() -> None:
    ids = [f"p{i // 4}" for i in range(80)]
    kept, held = split_validation(ids, 0.2, seed=0)
    assert not {ids[i] for i in kept} & {ids[i] for i in held} and len(held) == 16
    assert split_validation(["a", "b", "c"], 0.1, seed=0) == ([0, 1, 2], [])

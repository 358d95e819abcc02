# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The handlers on an engine whose generator turns, epoch by epoch, from new phantoms to training images."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_memo.data.cohort import Cohort
from monai_memo.data.phantoms import chest_phantom
from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError
from monai_memo.handlers.copy_rate_limit import BestUnderCopyRate, StopAtCopyRate
from monai_memo.handlers.copy_rate_monitor import CopyRateMonitor
from monai_memo.metrics.copy_rate import CopyRate
from monai_memo.metrics.reference import copy_rate_from_cohorts
from monai_memo.metrics.verified import VerifiedCopyRate
from tests.audit.small import untrained

N = 24


class Memorizer:
    """Copies a quarter more of its samples with every second epoch."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.epoch = images, 0

    def __call__(self, seeds: Sequence[int]) -> np.ndarray:
        copied = len(seeds) * (self.epoch // 2) // 4
        fresh = [chest_phantom(5_000_000 + seed, (32, 32)) for seed in list(seeds)[copied:]]
        return np.stack([*self.images[:copied], *fresh])


Parts = tuple[Detector, CopyRate | VerifiedCopyRate, np.ndarray]


@pytest.fixture(scope="module", params=["embeddings", "verified"])
def parts(
    request: pytest.FixtureRequest, demo_folder: Path, detector_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Parts:
    detector = Detector.load(detector_file)
    cohorts = [Cohort.from_source(demo_folder / name, name) for name in ("training", "heldout")]
    folder = tmp_path_factory.mktemp("embeddings")
    make: Any = copy_rate_from_cohorts if request.param == "embeddings" else VerifiedCopyRate
    metric = make(detector, *cohorts, folder, workers=1, progress=False, n_bootstrap=50)
    return detector, metric, np.stack([detector.preprocessing(image.path) for image in cohorts[0].images])


def build(parts: Parts, folder: Path, **arguments: Any) -> tuple[Engine, Any]:
    detector, metric, images = parts
    draw = Memorizer(images)
    engine = Engine(lambda *_: {"loss": torch.tensor(1.0)})
    engine.add_event_handler(Events.EPOCH_STARTED, lambda e: setattr(draw, "epoch", e.state.epoch))
    settings: dict[str, Any] = {"every": 2, "n_samples": N, **arguments}
    monitor = CopyRateMonitor(draw, detector, metric, folder / "copy_rate.csv", folder / "tensorboard", **settings)
    monitor.attach(engine)
    return engine, monitor


def run(engine: Engine, epochs: int) -> None:
    engine.run([0, 1, 2], max_epochs=epochs)


def test_reports_to_engine_csv_and_tensorboard(parts: Any, tmp_path: Path) -> None:
    engine, monitor = build(parts, tmp_path)
    seen = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: seen.append(e.state.metrics.get("copy_rate_n_copies")))
    run(engine, 6)
    assert [row["epoch"] for row in monitor.history] == [2, 4, 6]
    assert [row["step"] for row in monitor.history] == [6, 12, 18]
    assert {row["verified"] for row in monitor.history} == {isinstance(monitor.metric, VerifiedCopyRate)}
    copies = [row["n_copies"] for row in monitor.history]
    assert copies[0] >= N // 4 and copies[2] >= 3 * N // 4 and copies == sorted(copies)
    assert seen == [None, copies[0], copies[0], copies[1], copies[1], copies[2]]
    with open(tmp_path / "copy_rate.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["n_copies"]) for row in rows] == copies
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    names = {tag.removeprefix("copy_rate/") for tag in events.Tags()["scalars"]}
    assert {"n_copies", "n_mem", "excess_copies", "excess_copies_low", "nearest_similarity", "seconds"} <= names
    assert [(e.step, e.value) for e in events.Scalars("copy_rate/n_copies")] == list(
        zip((6, 12, 18), copies, strict=True)
    )


def test_stops_when_copies_are_beyond_doubt_and_stays_stopped(parts: Any, tmp_path: Path) -> None:
    engine, monitor = build(parts, tmp_path)
    stop = StopAtCopyRate(monitor, limit=0.25)
    stop.attach(engine)
    completed = []
    engine.add_event_handler(Events.COMPLETED, lambda e: completed.append(e.state.epoch))
    run(engine, 8)
    assert stop.stopped_at == engine.state.epoch == 4
    assert completed == [4], "what is written at the end is written"
    passed = [row["excess_copies_low"] > 0.25 for row in monitor.history]
    assert passed == [False, True]
    again, second = build(parts, tmp_path / "again")
    restored = StopAtCopyRate(second, limit=0.25)
    restored.load_state_dict(stop.state_dict())
    restored.attach(again)
    run(again, 8)
    assert again.state.epoch == 1 and not second.history


def test_keeps_the_best_model_under_the_limit(parts: Any, tmp_path: Path) -> None:
    scores = {2: 3.0, 4: 2.0, 6: 1.0, 8: 0.5}
    evaluator = Engine(lambda *_: None)
    engine, monitor = build(parts, tmp_path)
    engine.add_event_handler(
        Events.EPOCH_COMPLETED, lambda e: evaluator.state.metrics.update(val_loss=scores.get(e.state.epoch, 0.0))
    )
    saved: list[int] = []
    best = BestUnderCopyRate(monitor, lambda e: saved.append(e.state.epoch), limit=0.6, evaluator=evaluator)
    best.quantity = "excess_copies"
    best.attach(engine)
    run(engine, 8)
    under = [int(row["epoch"]) for row in monitor.history if row["excess_copies"] <= 0.6]
    assert saved == under == [2, 4], "later ones have a lower loss, and too many copies"
    assert (best.best_epoch, best.best_score) == (4, 2.0)
    worse = BestUnderCopyRate(monitor, lambda e: saved.append(-1), limit=0.6, evaluator=evaluator)
    worse.load_state_dict(best.state_dict())
    worse.monitor.history[-1] = {"epoch": 8, worse.quantity: 0.0}
    evaluator.state.metrics["val_loss"] = 2.5
    worse(engine)
    assert -1 not in saved, "the restored score counts"


def test_history_survives_a_checkpoint(parts: Any, tmp_path: Path) -> None:
    engine, monitor = build(parts, tmp_path / "first")
    run(engine, 4)
    torch.save({"monitor": monitor.state_dict()}, tmp_path / "state.pt")
    resumed, restored = build(parts, tmp_path / "second")
    Checkpoint.load_objects({"monitor": restored}, torch.load(tmp_path / "state.pt", weights_only=True))
    assert restored.history == monitor.history
    resumed.load_state_dict({"epoch_length": 3, "max_epochs": 6, "iteration": 12})
    run(resumed, 6)
    assert [row["epoch"] for row in restored.history] == [2, 4, 6]


def test_samples_that_cannot_be_used_do_not_end_the_training(parts: Any, tmp_path: Path) -> None:
    engine, monitor = build(parts, tmp_path)
    monitor.draw = lambda seeds: np.full((len(seeds), 1, 32, 32), np.nan)
    run(engine, 2)
    assert engine.state.epoch == 2 and not monitor.history
    half = build(parts, tmp_path / "half")
    draw = half[1].draw
    half[1].draw = lambda seeds: np.concatenate([draw(seeds[:20]), np.zeros((len(seeds) - 20, 1, 32, 32))])
    run(half[0], 2)
    assert half[1].history[0]["n_unusable"] == 4 and half[1].history[0]["n_synthetic"] == 20


def test_a_verified_monitor_does_nothing_before_it_is_due(
    demo_folder: Path, detector_file: Path, tmp_path: Path
) -> None:
    detector = Detector.load(detector_file)
    cohorts = [Cohort.from_source(demo_folder / name, name) for name in ("training", "heldout")]
    metric = VerifiedCopyRate(detector, *cohorts, tmp_path / "kept", workers=1, progress=False, n_bootstrap=50)
    images = np.stack([detector.preprocessing(image.path) for image in cohorts[0].images[:4]])
    engine, monitor = build((detector, metric, images), tmp_path, n_samples=4)
    run(engine, 1)
    assert not (tmp_path / "kept").exists() and not monitor.history
    run(engine, 2)
    assert list((tmp_path / "kept").glob("heldout-*.npz")) and monitor.history[0]["n_synthetic"] == 4
    with pytest.raises(ConfigurationError, match="the metric was made with another detector"):
        build((Detector.load(untrained(tmp_path / "other.pt")), metric, images), tmp_path)


def test_wrong_arguments_are_named(parts: Any, tmp_path: Path) -> None:
    for name, value in (("n_samples", 0), ("n_samples", "six"), ("every", 1.5), ("seed", None), ("batch_size", [])):
        with pytest.raises(ConfigurationError, match=f"{name} must be a whole number from .*, got"):
            build(parts, tmp_path, **{name: value})
    monitor = build(parts, tmp_path, n_samples="6", every="2")[1]
    assert (monitor.n_samples, monitor.every) == (6, 2)
    for value in (5, "much", None):
        for make in (StopAtCopyRate, lambda monitor, limit: BestUnderCopyRate(monitor, print, limit)):
            with pytest.raises(ConfigurationError, match=r"limit must be a number from -1 to 1, got"):
                make(monitor, limit=value)
    assert StopAtCopyRate(monitor, limit="0.25").limit == 0.25  # type: ignore[arg-type]
    engine, monitor = build(parts, tmp_path / "quantity")
    StopAtCopyRate(monitor, quantity="copy_rate").attach(engine)
    with pytest.raises(ConfigurationError, match=r"quantity must be one of epoch, .*excess_copies_low.*'copy_rate'"):
        run(engine, 2)


def test_a_call_that_is_not_due_asks_for_nothing_and_one_that_is_returns_its_record(parts: Any, tmp_path: Path) -> None:
    detector, metric, images = parts
    asked: list[int] = []

    def draw(seeds: Sequence[int]) -> torch.Tensor:
        asked.append(len(seeds))
        return (torch.from_numpy(images[: len(seeds)]) * 2 - 1).requires_grad_()

    monitor = CopyRateMonitor(None, detector, metric, every=5, n_samples=N)
    assert [monitor(step, draw) for step in (0, 1, 4, 6)] == [None] * 4 and not asked
    record = monitor(10, draw)
    assert record is not None and asked == [N] and monitor.history == [record]
    assert (record["step"], record["n_copies"], record["n_synthetic"]) == (10, N, N)
    assert not list(tmp_path.iterdir()), "no table was asked for"
    with pytest.raises(ConfigurationError, match="there is nothing to draw from"):
        monitor(15)
    with pytest.raises(ConfigurationError, match=r"gave the shape \(24, 128\) for 24 seeds"):
        monitor(15, lambda seeds: np.zeros((len(seeds), 128)))


class Loop:
    """What Lightning's trainer tells a callback."""

    current_epoch, global_step, should_stop = 3, 12, False


class Module(torch.nn.Module):
    """What a callback asks of Lightning's module."""

    def __init__(self, images: np.ndarray) -> None:
        super().__init__()
        self.images, self.logged, self.modes = images, dict[str, float](), list[bool]()

    def sample(self, seeds: Sequence[int], conditions: Any = None) -> np.ndarray:
        self.modes.append(self.training)
        return self.images[: len(seeds)]

    def log_dict(self, numbers: dict[str, float]) -> None:
        self.logged |= numbers


def test_a_lightning_callback_audits_the_module_and_stops_at_copies(parts: Any, tmp_path: Path) -> None:
    pytest.importorskip("pytorch_lightning")
    detector, metric, images = parts
    monitor = CopyRateMonitor(None, detector, metric, tmp_path / "copy_rate.csv", every=4, n_samples=N)
    callback, trainer, module = monitor.as_lightning_callback(stop_above=0.5), Loop(), Module(images)
    for trainer.current_epoch in (0, 1, 2):
        callback.on_train_epoch_end(trainer, module)
    assert not module.modes and not trainer.should_stop
    trainer.current_epoch = 3
    callback.on_train_epoch_end(trainer, module)
    assert module.modes == [False] and module.training, "it draws in evaluation mode and goes on training"
    assert module.logged["copy_rate_n_copies"] == N and trainer.should_stop
    assert (monitor.history[0]["epoch"], monitor.history[0]["step"]) == (4, 12)
    other = CopyRateMonitor(None, detector, metric, every=4, n_samples=N)
    other.as_lightning_callback().load_state_dict(callback.state_dict())
    assert other.history == monitor.history
    with pytest.raises(ConfigurationError, match="stop_above must be a number from -1 to 1"):
        monitor.as_lightning_callback(stop_above=2)


def test_a_model_that_does_not_use_its_seeds_is_told(
    parts: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    detector, metric, images = parts
    monitor = CopyRateMonitor(None, detector, metric, tmp_path / "one.csv", every=1, n_samples=N)
    assert monitor(1, lambda seeds: np.repeat(images[:1], len(seeds), axis=0)) is not None
    told = f"{N - 1} of {N} samples are another one over again, or nearly"
    assert told in caplog.text and "let every seed draw its own noise" in caplog.text

    caplog.clear()
    rng = np.random.default_rng(0)
    nearly = np.clip(images[:1] + rng.normal(0, 0.005, (N, *images.shape[1:])), 0, 1).astype(np.float32)
    assert monitor(2, lambda seeds: nearly[: len(seeds)]) is not None
    assert told in caplog.text

    caplog.clear()
    assert monitor(3, lambda seeds: np.stack([chest_phantom(10**6 + seed, (32, 32)) for seed in seeds])) is not None
    assert "over again" not in caplog.text

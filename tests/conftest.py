# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Phantom cohorts and small detectors shared by the tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from monai_memo.data.demo_cohorts import write_demo_cohorts
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.detector.training import train_detector


@pytest.fixture(autouse=True)
def levels_of_loggers() -> Iterator[None]:
    """What a test, or a library called by it, sets for one logger does not change what the next test can read."""
    loggers = {name: logging.getLogger(name) for name in list(logging.root.manager.loggerDict)}
    before = {name: (logger.level, logger.disabled) for name, logger in loggers.items()}
    yield
    for name, (level, disabled) in before.items():
        loggers[name].setLevel(level)
        loggers[name].disabled = disabled  # import-linter's configuration silences all that it does not know


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 training, 40 held-out and 30 synthetic chest phantoms of 32x32 pixels, 12 of them planted copies."""
    folder = tmp_path_factory.mktemp("demo2d")
    return write_demo_cohorts(folder, "chest", 60, 40, 30, 0.4, seed=1, size=32)


@pytest.fixture(scope="session")
def demo_folder_3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training, 20 held-out and 10 synthetic knee phantoms of 16 voxels per axis, 5 of them planted copies."""
    folder = tmp_path_factory.mktemp("demo3d")
    return write_demo_cohorts(folder, "knee", 24, 20, 10, 0.5, seed=1, size=16)


@pytest.fixture(scope="session")
def detector_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector for 32x32 chest phantoms, trained for a few epochs."""
    folder = tmp_path_factory.mktemp("detector2d")
    pixels = np.stack([chest_phantom(1_000_000 + i, (32, 32)) for i in range(60)])
    recipe = Recipe.named("default", 2, (32, 32), epochs=80, batch_size=16)
    detector = train_detector(pixels, recipe, Preprocessing(2, (32, 32)), folder / "training", seed=0, progress=False)
    return detector.save(folder / "detector.pt")


@pytest.fixture(scope="session")
def detector_file_3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector for knee phantoms of 16 voxels per axis."""
    folder = tmp_path_factory.mktemp("detector3d")
    pixels = np.stack([knee_phantom(i, (16, 16, 16)) for i in range(24)])
    recipe = Recipe.named("default", 3, (16, 16, 16), epochs=4)
    detector = train_detector(pixels, recipe, Preprocessing(3, (16, 16, 16)), folder / "training", progress=False)
    return Detector.save(detector, folder / "detector.pt")

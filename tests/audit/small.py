# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Audits that take a second: few small images, and a detector that was never trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe

SIZE = (32, 32)


def untrained(path: Path, channels: int = 1, **further: Any) -> Path:
    """A detector file that took no training, with text where a foreign one can have some."""
    torch.manual_seed(0)
    recipe = Recipe.named("default", 2, SIZE, channels, epochs=1)
    seen = Preprocessing(2, SIZE, channels)
    detector = Detector(recipe.build_network(), recipe, seen, 0, {"epochs": 1, **further})
    return detector.save(path)


def picture(number: int) -> Image.Image:
    return Image.fromarray((chest_phantom(number, SIZE)[0] * 255).astype(np.uint8))


def write_cohorts(root: Path, train: int = 12, heldout: int = 24, synthetic: int = 8) -> Path:
    """The folders ``train``, ``heldout`` and ``synthetic``."""
    for name, first, count in (("train", 0, train), ("heldout", 100, heldout), ("synthetic", 200, synthetic)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            picture(first + number).save(root / name / f"{name}{number:02d}.png")
    return root


def settings(root: Path, out: Path, detector: Path, **further: Any) -> dict[str, Any]:
    """Arguments of an audit of these cohorts."""
    cohorts = {name: str(root / name) for name in ("train", "heldout", "synthetic")}
    quick = {"n_bootstrap": 100, "planted": 0, "limit_copies": 0, "verification": False, "gallery": 1}
    return {**cohorts, "out": str(out), "detector": str(detector), **quick, "progress": False, "workers": 1, **further}

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A small audit with verbatim copies, and a second detector that was never trained."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_memo.audit.audit import Audit
from monai_memo.data.loading import Preprocessing
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.release.looks import OTHER_VIEWS
from tests.audit.small import SIZE, settings, untrained, write_cohorts

COPIES = 5


def second(path: Path) -> Path:
    """Another network that was never trained."""
    torch.manual_seed(7)
    recipe = replace(Recipe.named("default", 2, SIZE, epochs=1), views=OTHER_VIEWS)
    return Detector(recipe.build_network(), recipe, Preprocessing(2, SIZE), 7, {"epochs": 1}).save(path)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cohorts, two detectors and an audit by embeddings: 5 of 25 synthetic images are training images."""
    root = tmp_path_factory.mktemp("clinic")
    write_cohorts(root, 30, 60, 20)
    for number in range(COPIES):
        shutil.copy(root / "train" / f"train{number:02d}.png", root / "synthetic" / f"copy{number}.png")
    detector = untrained(root / "detector.pt")
    second(root / "second.pt")
    Audit(**settings(root, root / "audit", detector, planted=20, allow_overlap=True)).run()
    return root


def options(root: Path, out: Path, **further: Any) -> dict[str, Any]:
    """Arguments of a release of this audit that takes seconds."""
    given = {"audit": str(root / "audit"), "out": str(out), "second_detector": str(root / "second.pt"), "planted": 60}
    return {**given, "progress": False, "workers": 1, **further}

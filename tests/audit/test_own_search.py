# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A search of the user's own decides in a whole audit, and in the copy rate during a training."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from monai_memo.audit.audit import Audit
from monai_memo.data.cohort import Cohort
from monai_memo.data.workers import load
from monai_memo.detector.detector import Detector
from monai_memo.metrics.verified import VerifiedCopyRate
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.gallery import Gallery
from monai_memo.search.protocols import Encoder
from monai_memo.search.runner import Runner


class AllOfThem:
    def fit(self, gallery: Gallery, runner: Runner) -> None:
        self.indices = torch.arange(len(gallery), device=runner.device)

    def __call__(self, queries: torch.Tensor, runner: Runner) -> torch.Tensor:
        return self.indices.repeat(len(queries), 1)

    def identity(self) -> list[str]:
        return ["all"]


class PixelReranker:
    """Cosine of the angle between images as they lie."""

    refined = 2

    def fit(self, gallery: Gallery, runner: Runner) -> None:
        self.gallery = gallery

    def identity(self) -> list[str]:
        return ["cosine"]

    def __call__(self, queries: torch.Tensor, candidates: torch.Tensor, kept: Any, runner: Runner) -> Any:
        candidates = torch.nn.functional.pad(candidates, (0, self.refined), value=-1)
        n, k = candidates.shape
        images = self.gallery.images(candidates.clamp(min=0).flatten(), runner).reshape(n, k, -1)
        alike = torch.cosine_similarity(images, queries.mean(1).reshape(n, 1, -1), dim=2)
        best = torch.where(candidates < 0, -1.0, alike).topk(self.refined)
        return SimpleNamespace(
            candidates=candidates.gather(1, best.indices),
            similarity=best.values,
            transforms=torch.eye(2, 3).repeat(n, self.refined, 1, 1),
            profiles=best.values[..., None],
        )


def make(network: Encoder, batch_size: int) -> CopySearch:
    return CopySearch([AllOfThem()], PixelReranker(), whole_images=False)


@pytest.fixture
def sources(demo_folder: Path) -> dict[str, str]:
    names = {"train": "training", "heldout": "heldout", "synthetic": "synthetic"}
    return {name: str(demo_folder / folder) for name, folder in names.items()}


def test_an_audit_rests_on_the_search_that_it_is_given(
    sources: dict[str, str], detector_file: Path, tmp_path: Path
) -> None:
    options = {"detector": str(detector_file), "planted": 4, "limit_copies": 2, "parts": False, "n_bootstrap": 200}
    result = Audit(
        search=make, out=str(tmp_path / "audit"), progress=False, **sources, **options
    ).run()  # fmt: skip
    assert result.verification is not None and result.verification["refined"] == PixelReranker.refined
    assert "AllOfThem, PixelReranker" in result.verification["sentence"]
    assert "keypoints" not in result.verification["sentence"]
    with (tmp_path / "audit" / "matches.csv").open(encoding="utf-8") as stream:
        similarity = np.array([float(row["similarity"]) for row in csv.DictReader(stream)])
    detector = Detector.load(detector_file)
    training, synthetic = (
        np.stack([load(detector.preprocessing, image).array for image in Cohort.from_source(folder, name).images])
        for folder, name in ((sources["train"], "training"), (sources["synthetic"], "synthetic"))
    )
    flat = [part.reshape(len(part), -1).astype(np.float64) for part in (training, synthetic)]
    first, second = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in flat)
    np.testing.assert_allclose(np.sort(similarity), np.sort((second @ first.T).max(axis=1)), atol=2e-3)


def test_the_rate_during_a_training_takes_it_too(sources: dict[str, str], detector_file: Path, tmp_path: Path) -> None:
    detector, calls = Detector.load(detector_file), []

    def counted(network: Encoder, batch_size: int) -> CopySearch:
        calls.append(batch_size)
        return make(network, batch_size)

    training = Cohort.from_source(sources["train"], "training")
    rate = VerifiedCopyRate(
        detector, training, Cohort.from_source(sources["heldout"], "heldout"), tmp_path, search=counted, batch_size=8
    )
    rate.add([np.asarray(load(detector.preprocessing, image).array, dtype=np.float32) for image in training.images[:6]])
    assert rate.summary()["copies"] == 1 and calls == [8]

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom
from monai_memo.detector.detector import Detector
from monai_memo.detector.fine_tuning import PartnerDataset, fine_tune
from monai_memo.detector.recipe import Recipe
from monai_memo.errors import DetectorError, TrainingError

PIXELS = np.stack([chest_phantom(i, (16, 16)) for i in range(16)])


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    recipe = Recipe.named("default", 2, (16, 16), batch_size=16)
    return Detector(recipe.build_network(), recipe, Preprocessing(2, (16, 16)), 0, {"epochs": 0})


def similarity(detector: Detector, first: np.ndarray, second: np.ndarray) -> float:
    """Relative to that of unrelated images, since training moves them all."""
    embeddings = detector.embed(np.stack([first, second, *PIXELS[8:]]), progress=False)
    return float(embeddings[0] @ embeddings[1] - (embeddings[0] @ embeddings[2:].T).mean())


def test_a_confirmed_copy_comes_closer_to_its_original(detector: Detector) -> None:
    """The copy is an image that no view would make of the original: only its confirmation can bring them together."""
    copy = chest_phantom(99, (16, 16))
    taught = fine_tune(detector, PIXELS, {2: copy}, epochs=12, learning_rate=1e-3)
    apart = fine_tune(detector, PIXELS, {}, copy[None], epochs=12, learning_rate=1e-3)
    assert similarity(taught, PIXELS[2], copy) > similarity(apart, PIXELS[2], copy) + 0.3


def test_the_same_seed_gives_the_same_detector_and_the_given_one_stays(detector: Detector) -> None:
    before, partners = detector.sha256, {2: PIXELS[2, :, :, ::-1].copy()}
    first, again = (fine_tune(detector, PIXELS, partners, PIXELS[:2], epochs=1, seed=4) for _ in range(2))
    assert first.sha256 == again.sha256 != before == detector.sha256
    told = first.training_summary["fine_tuned"]
    assert (told["from"], told["confirmed_copies"], told["confirmed_novel"]) == (before, 1, 2)
    assert fine_tune(detector, PIXELS, partners, epochs=1, seed=5).sha256 != first.sha256


def test_partners_stand_beside_their_images() -> None:
    data = PartnerDataset(PIXELS, {2: PIXELS[5]}, PIXELS[:2])
    assert len(data) == 18 and torch.equal(data[2]["partner"], data[5]["image"])
    assert torch.equal(data[3]["partner"], data[3]["image"]) and torch.equal(data[17]["image"], data[1]["image"])


def test_refusals(detector: Detector) -> None:
    with pytest.raises(TrainingError, match="too few"):
        fine_tune(detector, PIXELS[:4], {0: PIXELS[0]})
    with pytest.raises(TrainingError, match="nothing to learn from"):
        fine_tune(detector, PIXELS, {})
    with pytest.raises(DetectorError, match="the detector takes images of"):
        fine_tune(detector, PIXELS, {0: PIXELS[0, :, :8]})

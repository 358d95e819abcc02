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
from monai_memo.detector.pairs import ViewPairs
from monai_memo.detector.recipe import Recipe
from monai_memo.errors import DetectorError, TrainingError

PIXELS = np.stack([chest_phantom(i, (16, 16)) for i in range(16)])


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    recipe = Recipe.named("default", 2, (16, 16), batch_size=16)
    return Detector(recipe.build_network(), recipe, Preprocessing(2, (16, 16)), 0, {"epochs": 0})


def test_the_second_view_of_an_image_is_one_of_its_confirmed_copy(detector: Detector) -> None:
    views = detector.recipe.views
    images = torch.from_numpy(PIXELS[:4].astype(np.float32))
    partners = images.clone()
    partners[2] = images[3].flip(-1) * 0.5
    plain, labels = ViewPairs(views, 3)({"image": images})
    same, same_labels = ViewPairs(views, 3)({"image": images, "partner": images})
    assert torch.equal(plain, same) and torch.equal(labels, same_labels)
    taught, _ = ViewPairs(views, 3)({"image": images, "partner": partners})
    changed = (taught != plain).flatten(1).any(dim=1)
    # A view can borrow a patch from the next image of the batch: the row after the partner's may change with it.
    assert changed[:6].tolist() == [False] * 6 and changed[6]


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

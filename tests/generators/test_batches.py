# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from monai_memo.errors import ConfigurationError
from monai_memo.generators.batches import ImageBatch, augmentation_views


def augmented(level: bool | str) -> torch.Tensor:
    torch.manual_seed(0)
    images = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)).expand(40, 1, 8, 8)
    return ImageBatch(augmentation_views(level))({"image": images})[0] - images


def test_levels_of_augmentation() -> None:
    assert torch.equal(augmented("none"), torch.zeros(40, 1, 8, 8)) and torch.equal(augmented(False), augmented("none"))
    assert torch.equal(augmented(True), augmented("flips and rotations"))
    distinct = {level: {tuple(image.flatten().round(decimals=3).tolist()) for image in augmented(level)}
                for level in ("flips", "flips and rotations")}  # fmt: skip
    assert len(distinct["flips"]) == 2, "the image and its mirror image"
    assert len(distinct["flips and rotations"]) > 10
    with pytest.raises(ConfigurationError, match="augmentation must be one of none, flips, flips and rotations"):
        augmentation_views("mirrors")

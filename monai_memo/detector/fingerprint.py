# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Which training of a detector a checkpoint belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monai_memo.data.loading import Preprocessing
from monai_memo.detector.recipe import Recipe
from monai_memo.training.checkpoints import fingerprint_of


def fingerprint(
    pixels: NDArray[np.floating],
    recipe: Recipe,
    preprocessing: Preprocessing,
    seed: int,
    partition: Sequence[Sequence[int]] | None = None,
    origin: str | None = None,
    amp: bool = False,
) -> str:
    """What makes a training this one: images, recipe, preprocessing, seed, and which images are for validation,
    the detector whose weights were the first ones, and the precision."""
    settings = [recipe.to_dict(), preprocessing.to_dict(), seed, pixels.shape]
    if partition is not None:
        settings.append([[int(i) for i in part] for part in partition])
    if origin is not None:
        settings.append(origin)
    if amp:
        settings.append("mixed precision")
    return fingerprint_of(settings, [pixels])

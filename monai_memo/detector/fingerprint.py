# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Which training of a detector a checkpoint belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import ignite.distributed as idist
import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.data.loading import Preprocessing
from monai_memo.detector.loop import TrainingPlan
from monai_memo.sealing import fingerprint as fingerprint_of


def fingerprint(
    pixels: NDArray[np.floating],
    preprocessing: Preprocessing,
    plan: TrainingPlan,
    partition: Sequence[Sequence[int]] | None = None,
    origin: str | None = None,
) -> str:
    """What makes a training this one: images, recipe and the network it describes, preprocessing, seed, which images
    are for validation, the detector whose weights were the first ones, precision, kind of device and number of ranks.
    """
    with torch.random.fork_rng(devices=[]):  # weights that are drawn after this must not depend on it
        network = plan.recipe.build_network()
    settings = {
        "recipe": plan.recipe.to_dict(),
        "network": network,
        "preprocessing": preprocessing.to_dict(),
        "seed": plan.seed,
        "partition": None if partition is None else [[int(i) for i in part] for part in partition],
        "origin": origin,
        "mixed precision": plan.amp,
        "device": torch.device(plan.device),
        "ranks": idist.get_world_size(),
    }
    return fingerprint_of("training of a detector", settings, [pixels])

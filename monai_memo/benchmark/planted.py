# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The planted copies of the benchmark: the ladder of an audit, and copies that went through a generator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monai_memo.data.alterations import Images
from monai_memo.data.ladder import COMBINATION, Planted, altered, as_handed_in, chosen_levels, kinds_of
from monai_memo.data.loading import Preprocessing
from monai_memo.errors import ConfigurationError
from monai_memo.sampling import Reconstructor

GENERATED: dict[str, tuple[float, ...]] = {"round_trip": (0,), "denoising": (0.1, 0.2, 0.3, 0.5)}
APART = (Planted(COMBINATION, 0.0), Planted("denoising", 0.5))  # reported, but not part of the mean


def ladder(spatial_dims: int, generated: bool, kinds: Sequence[str] | None = None) -> list[Planted]:
    """All kinds and strengths for images of this dimension.

    Args:
        generated: include the kinds that need a generator.
        kinds: only these.

    Raises:
        ConfigurationError: an unknown kind, or one that does not exist in this dimension.
    """
    return chosen_levels({**kinds_of(spatial_dims), **(GENERATED if generated else {})}, kinds)


def plant_at_source(
    sources: NDArray[np.floating],
    planted: Planted,
    preprocessing: Preprocessing,
    seed: int,
    generator: Reconstructor | None = None,
) -> Images:
    """Copies as the detector gets them.

    Args:
        sources: ``(n, channels, *source)`` in [0, 1], larger than or as large as the detector's images.
        preprocessing: the detector's.
        seed: of all draws.
        generator: for the kinds that need one (a ``LatentDiffusion``, say); it works on images of the detector's size.

    Returns:
        ``(n, channels, *preprocessing.size)`` float32 in [0, 1].
    """
    images = np.asarray(sources, dtype=np.float32)
    if planted.kind not in GENERATED:
        return as_handed_in(altered(images, planted, seed), preprocessing)
    if generator is None:
        raise ConfigurationError(f"{planted.kind} needs a generator")
    small = as_handed_in(images, preprocessing)
    if planted.kind == "round_trip":
        return as_handed_in(generator.round_trip(small), preprocessing)
    return as_handed_in(generator.denoise_from(small, planted.strength, seed), preprocessing)

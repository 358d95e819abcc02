# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The limit of detection of one audit: from which strength of an alteration on would it miss a copy?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.parts import DetectionLimit, KindLimit
from monai_memo.data.cohort import Cohort
from monai_memo.data.ladder import Planted, altered, as_handed_in, chosen_levels, kinds_of
from monai_memo.data.loading import Preprocessing
from monai_memo.errors import UnusableImageError

DETECTED = 0.9  # share of copies above tau from which a strength counts as within the limit of detection
SOURCE_FACTOR = {2: 2.0, 3: 1.5}  # how much larger the images are in which copies are planted


def limits_of_detection(above: Mapping[Planted, NDArray[np.bool_]]) -> list[KindLimit]:
    """For each kind the strongest strength at which nine of ten copies lie above tau, and the first that fails.

    Args:
        above: for each kind and strength, which of its copies lie above tau.

    Returns:
        ``kind``, ``found_up_to`` and ``missed_from`` (strengths, or None), and ``found``: share by strength.
    """
    rows: list[KindLimit] = []
    for kind in dict.fromkeys(level.kind for level in above):
        shares = {level.strength: float(np.mean(found)) for level, found in above.items() if level.kind == kind}
        missed = [strength for strength in sorted(shares) if shares[strength] < DETECTED]
        within = [strength for strength in sorted(shares) if not missed or strength < missed[0]]
        rows.append(
            {
                "kind": kind,
                "found_up_to": within[-1] if within else None,
                "missed_from": missed[0] if missed else None,
                "found": {f"{strength:g}": share for strength, share in shares.items()},
            }
        )
    return rows


def detection_limit(
    similarity_of: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    training: Cohort,
    preprocessing: Preprocessing,
    tau: float,
    copies: int,
    seed: int,
    together: int = 0,
) -> DetectionLimit | None:
    """Plant copies of the same training images at every strength of ``data.ladder`` and look them up.

    Args:
        similarity_of: as in ``self_check.positive_control``.
        training: the training cohort; the files of its copied images are read again, at a larger size.
        preprocessing: the detector's.
        copies: of each kind and strength; 0 gives None.
        seed: of the choice of images and of all draws.
        together: bytes of copies from which on they are looked up; by default those of each strength by themselves,
            which several ranks cannot share.

    Returns:
        ``copies`` of each kind and strength, and the ``limits`` of ``limits_of_detection``.
    """
    dims = preprocessing.spatial_dims
    larger = preprocessing.resized([round(SOURCE_FACTOR[dims] * length) for length in preprocessing.size])
    order = np.random.default_rng([seed, 13]).permutation(len(training))
    sources: list[NDArray[np.floating]] = []
    for position in order:
        if len(sources) == copies:
            break
        try:
            sources.append(larger(training.images[int(position)]))
        except UnusableImageError:
            continue
    if len(sources) < 2:  # a replaced region needs a second image
        return None
    images = np.stack(sources).astype(np.float32)
    above: dict[Planted, NDArray[np.bool_]] = {}
    waiting: dict[Planted, NDArray[np.float32]] = {}
    levels = list(chosen_levels(kinds_of(dims)))
    for level in levels:
        waiting[level] = as_handed_in(altered(images, level, seed), preprocessing)
        if level == levels[-1] or sum(copies.nbytes for copies in waiting.values()) >= together:
            similarity = similarity_of(np.concatenate(list(waiting.values())))
            ends = np.cumsum([len(copies) for copies in waiting.values()])[:-1]
            above |= dict(zip(waiting, (values > tau for values in np.split(similarity, ends)), strict=True))
            waiting.clear()
    return {"copies": len(images), "limits": limits_of_detection(above)}

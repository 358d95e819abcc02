# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The limit of detection of one audit: from which strength of an alteration on would it miss a copy?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.parts import DetectionLimit, KindLimit
from monai_memo.data.cohort import Cohort
from monai_memo.data.ladder import Planted, altered, as_handed_in, levels_of_a_limit
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
    called: Callable[[NDArray[np.float32]], NDArray[np.bool_]],
    training: Cohort,
    preprocessing: Preprocessing,
    copies: int,
    seed: int,
    together: int = 0,
    others: Cohort | None = None,
) -> DetectionLimit | None:
    """Plant copies of the same training images at every strength of ``data.ladder`` and look them up.

    Args:
        called: which images ``(n, channels, *spatial)`` the audit would call copies, as a whole or in part.
        training: the training cohort; the files of its copied images are read again, at a larger size.
        preprocessing: the detector's.
        copies: of each kind and strength; 0 gives None.
        seed: of the choice of images and of all draws.
        together: bytes of copies from which on they are looked up; by default those of each strength by themselves,
            which several ranks cannot share.
        others: unseen patients, who stand in where a copy is joined with another image: a region of a second training
            image would be found for its own sake. By default the other copied images.

    Returns:
        ``copies`` of each kind and strength, and the ``limits`` of ``limits_of_detection``.
    """
    dims = preprocessing.spatial_dims
    larger = preprocessing.resized([round(SOURCE_FACTOR[dims] * length) for length in preprocessing.size])
    sources = _some(training, copies, larger, [seed, 13])
    if len(sources) < 2:  # a replaced region needs a second image
        return None
    images = np.stack(sources).astype(np.float32)
    joined = [] if others is None else _some(others, len(images), larger, [seed, 14])
    hosts = np.resize(np.stack(joined), images.shape).astype(np.float32) if joined else None
    above: dict[Planted, NDArray[np.bool_]] = {}
    waiting: dict[Planted, NDArray[np.float32]] = {}
    levels = levels_of_a_limit(dims)
    for level in levels:
        waiting[level] = as_handed_in(altered(images, level, seed, hosts), preprocessing)
        if level == levels[-1] or sum(copies.nbytes for copies in waiting.values()) >= together:
            found = called(np.concatenate(list(waiting.values())))
            ends = np.cumsum([len(copies) for copies in waiting.values()])[:-1]
            above |= dict(zip(waiting, np.split(found, ends), strict=True))
            waiting.clear()
    return {"copies": len(images), "limits": limits_of_detection(above)}


def _some(cohort: Cohort, count: int, read: Preprocessing, seed: list[int]) -> list[NDArray[np.floating]]:
    """So many images of a cohort, chosen at random; those that cannot be read are passed over."""
    found: list[NDArray[np.floating]] = []
    for position in np.random.default_rng(seed).permutation(len(cohort)):
        if len(found) == count:
            break
        try:
            found.append(read(cohort.images[int(position)]))
        except UnusableImageError:
            continue
    return found

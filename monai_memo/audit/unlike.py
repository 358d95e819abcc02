# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic images that do not resemble the training images: noise, another kind of image, another preparation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.repeats import MARGIN, Pixels, centred, small_images
from monai_memo.audit.verdict import SHARE_OF_CONCERN
from monai_memo.statistics.similarities import Floats, fisher

LEAST = 0.01  # quantile of held-out images' likeness to the training images' mean; ``MARGIN`` below it nobody is one


def unlike_training(
    samples: Pixels | Sequence[Pixels],
    training: Pixels,
    heldout: Pixels,
    called: NDArray[np.bool_],
    seed: int = 0,
) -> list[str]:
    """What to warn of where more than 5 % of the synthetic images are such and no copies.

    What an audit says of images of another kind is little: held-out images set its threshold, and these are not like
    them. Copies that were turned, inverted or cut in a way that it looks for are called, and do not count here.

    Args:
        samples, training, heldout: ``(n, channels, *spatial)`` prepared pixels.
        called: ``(n_samples,)`` which were called copies.
        seed: of the images that are looked at where there are many.

    Returns:
        No or one sentence.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> real = rng.random((1, 1, 16, 16)) + 0.1 * rng.random((40, 1, 16, 16))
        >>> unlike_training(rng.random((10, 1, 16, 16)), real[:20], real[20:], np.zeros(10, bool))[0][:68]
        '10 of 10 synthetic images do not resemble the training images, which'
    """
    mean = centred(centred(small_images(training, seed)[0]).mean(axis=0, keepdims=True))[0]

    def likeness(images: Pixels | Sequence[Pixels]) -> tuple[Floats, NDArray[np.int64]]:
        vectors, rows = small_images(images, seed)
        return fisher(centred(vectors) @ mean), rows

    limit = np.quantile(likeness(heldout)[0], LEAST, method="lower") - MARGIN
    found, rows = likeness(samples)
    strange = (found < limit) & ~called[rows]
    if strange.sum() <= SHARE_OF_CONCERN * len(found):
        return []
    return [
        f"{strange.sum()} of {len(found)} synthetic images do not resemble the training images, which every held-out "
        f"image does (correlation with their mean image: {np.tanh(np.median(found[strange])):.2f} and lower than "
        f"{np.tanh(limit):.2f}), and are not called copies: noise, another kind of image, or images that were turned, "
        "cut or scaled in another way. Held-out images say nothing of such images, and copies among them may be "
        "missed. Look at them (monai-memo inspect shows both cohorts), and audit what is meant to be shared."
    ]

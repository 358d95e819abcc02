# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Single copies that need no rate: too few to stand out of what chance gives, and plain to see.

A rate says how many synthetic images come nearer to training patients than chance allows. One copy among a thousand
images does not change it. An image that *is* a training image, or agrees with one far more than any held-out image
does, is no matter of rates, and no verdict may pass over it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from monai_memo.audit.comparison import Comparison
from monai_memo.audit.parts import Verdict
from monai_memo.audit.repeats import Pixels
from monai_memo.sealing import array_sha256
from monai_memo.statistics.own_references import FAR_ABOVE
from monai_memo.statistics.similarities import fisher


@dataclass(frozen=True)
class SingleCopies:
    """Counts of synthetic images.

    Attributes:
        same: equal to a training image, to the last pixel of what is compared.
        far_above: others that agree with one place by place far more than any held-out image is similar to one.
    """

    same: int
    far_above: int


def single_copies(
    synthetic: Iterable[Pixels], training: Iterable[Pixels], comparison: Comparison, tau: float
) -> SingleCopies:
    """Count them.

    Args:
        synthetic, training: prepared images ``(channels, *spatial)``.
        comparison: of these.
        tau: threshold for copies.

    Example:
        >>> from monai_memo.statistics.similarities import Similarities
        >>> sims = Similarities.from_matrices(np.full((3, 5), 0.8), np.full((3, 4), 0.8))
        >>> found = Comparison(sims, np.zeros(4, int), by_places=np.array([0.8, 0.8, 0.99, 1]))
        >>> images = np.random.default_rng(0).random((6, 1, 8, 8))
        >>> single_copies(images[:4], images[3:], found, 0.85)
        SingleCopies(same=1, far_above=1)
    """
    known = {array_sha256(np.asarray(image)) for image in training}
    same = np.array([array_sha256(np.asarray(image)) in known for image in synthetic])
    if comparison.by_places is None:
        return SingleCopies(int(same.sum()), 0)
    highest = max(tau, float(comparison.sims.heldout_to_training.max()))
    far = comparison.by_places > np.tanh(fisher(highest) + FAR_ABOVE)
    return SingleCopies(int(same.sum()), int((far & ~same).sum()))


def with_single_copies(verdict: Verdict, found: SingleCopies) -> Verdict:
    """The verdict, which single copies decide where the rates do not show copying."""
    if verdict["level"] == "copies_found":
        return verdict
    if found.same:
        are = "1 synthetic image is a training image" if found.same == 1 else (
            f"{found.same} synthetic images are training images"
        )  # fmt: skip
        return {
            "level": "copies_found",
            "headline": f"Copies found: {are}, to the last pixel.",
            "detail": "That needs no statistics. Do not share this data set as it is: remove the images whose column "
            f"copy is true in matches.csv, and audit the rest. By the rates: {verdict['headline']} {verdict['detail']}",
        }
    if not found.far_above or verdict["level"] != "no_excess":
        return verdict  # what is not conclusive tells how many agree in the same way
    agree = "image agrees" if found.far_above == 1 else "images agree"
    return {
        "level": "inconclusive",
        "headline": f"Not conclusive: {found.far_above} synthetic {agree} with a training image far more than any "
        "held-out image does.",
        "detail": "So few change no rate, and one copy is a patient. Look at these pairs first (the most similar ones "
        "of the report and of matches.csv): take them out if they show the same image, and audit the rest. By the "
        f"rates: {verdict['headline']} {verdict['detail']}",
    }

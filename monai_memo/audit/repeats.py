# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic images that are the same image, or nearly: so many samples say no more than a few."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.audit.verdict import SHARE_OF_CONCERN
from monai_memo.registration.affine import resized
from monai_memo.sealing import array_sha256
from monai_memo.statistics.similarities import Floats, Integers, fisher

LENGTH = {2: 32, 3: 16}  # of the longest axis at which images are compared: noise alone makes no other image
MOST = 2000  # images of each cohort, drawn at random: all pairs are compared
NEAREST, MARGIN = 0.99, 0.5  # quantile of real images' likeness to other patients; beyond it, on Fisher's scale
Pixels = NDArray[np.floating]


def repeated_samples(
    pixels: Pixels | Sequence[Pixels], heldout: Pixels | None = None, patients: Integers | None = None, seed: int = 0
) -> tuple[list[str], list[str]]:
    """What to warn of, and why finding nothing would say little.

    Rates and intervals count every synthetic image as a draw of its own. A generator that does not use its seeds or has
    collapsed, or files that were copied, give many images and few draws: "none of 1,000" is then "not this one".

    Args:
        pixels: of all synthetic images, prepared.
        heldout: ``(n_heldout, channels, *spatial)`` held-out images, as soft as the synthetic ones. They tell how alike
            different images are; without them images count that are the same to the last pixel.
        patients: ``(n_heldout,)`` of these.
        seed: of the images that are looked at where there are many.

    Returns:
        Warnings and concerns, no or one sentence each; a concern where more than 5 % of the images are repeats.

    Example:
        >>> repeated_samples(np.zeros((10, 1, 8, 8)))[0][0][:76]
        '9 of 10 synthetic images repeat another one to the last pixel: there is only'
    """
    total = len(pixels)
    different = len({array_sha256(np.asarray(image)) for image in pixels})
    if total - different <= SHARE_OF_CONCERN * total and heldout is not None and patients is not None:
        looked_at, nearly = nearly_repeated(pixels, heldout, patients, seed)
        if nearly > SHARE_OF_CONCERN * looked_at:
            amount = "one image" if looked_at - nearly == 1 else f"{looked_at - nearly} different ones"
            text = (
                f"{nearly} of {looked_at} synthetic images are nearly the same as another one, more alike than images "
                f"of two patients are: they amount to {amount}, and intervals that count each image are too "
                "narrow. So it is with a generator that has collapsed, or that knows a few images by heart. Draw from "
                "other seeds or train it anew. Then audit again."
            )
            return [text], [text]
    if different == total:
        return [], []
    there = f"is only {different} different one" if different == 1 else f"are {different} different ones"
    text = (
        f"{total - different} of {total} synthetic images repeat another one to the last pixel: there {there}, and "
        "intervals that count each image are too narrow. A generator that gives one image for several seeds does not "
        "use them: let every seed draw its own noise. Files that stand there twice: take them out. Then audit again."
    )
    return [text], [text] if total - different > SHARE_OF_CONCERN * total else []


def nearly_repeated(
    samples: Pixels | Sequence[Pixels], heldout: Pixels, patients: Integers, seed: int = 0
) -> tuple[int, int]:
    """How many synthetic images are far more like an earlier one than images of two patients are.

    Returns:
        Images looked at, and such images among them.
    """
    theirs, rows = small_images(heldout, seed)
    return over_again(small_images(samples, seed)[0], theirs, patients[rows])


def over_again(samples: NDArray[np.floating], heldout: NDArray[np.floating], patients: Integers) -> tuple[int, int]:
    """How many vectors of synthetic images are far more like an earlier one than those of two patients are.

    Args:
        samples, heldout: ``(n, values)``, whose correlations are compared.
        patients: ``(n_heldout,)``.

    Returns:
        Vectors looked at, and such vectors among them.
    """
    ours, theirs = centred(samples), centred(heldout)
    alike, same = fisher(theirs @ theirs.T), patients[:, None] == patients[None]
    if same.all():
        return len(ours), 0
    nearest = np.where(same, -np.inf, alike).max(axis=1)
    limit = float(np.quantile(nearest, NEAREST, method="higher")) + MARGIN
    return len(ours), int(np.tril(fisher(ours @ ours.T) > limit, -1).any(axis=1).sum())


def small_images(pixels: Pixels | Sequence[Pixels], seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """``(n, values)`` of at most ``MOST`` images, and which these are."""
    rows = np.sort(np.random.default_rng([seed, 37]).permutation(len(pixels))[:MOST])
    shape = np.asarray(pixels[0]).shape[1:]
    factor = min(1.0, LENGTH[len(shape)] / max(shape))
    small = [max(1, round(factor * length)) for length in shape]
    found = np.stack([
        resized(torch.from_numpy(np.asarray(pixels[row], dtype=np.float32))[None], small)[0].numpy().ravel()
        for row in rows
    ]).astype(np.float64)  # fmt: skip
    return found, rows


def centred(vectors: NDArray[np.floating]) -> Floats:
    """Of mean zero and length one."""
    found = np.asarray(vectors, dtype=np.float64)
    found = found - found.mean(axis=1, keepdims=True)
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12))

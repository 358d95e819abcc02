# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Held-out images as soft as the synthetic ones, so that the control speaks for them.

What tells patients apart is lost when images are blurred: blurred images of unseen patients are closer to training
images than sharp ones are, and pass a threshold that comes from sharp ones (docs/study.md, "A control that matters").
Samples of a generator are often soft. The held-out images are therefore filtered until their spectrum is that of the
synthetic images, before tau, p-values and control are taken from them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter
from scipy.stats import binom

from monai_memo.audit.parts import Sharpness
from monai_memo.data.prepared import PreparedCohort
from monai_memo.files import blocks, write_with

MOST_IMAGES = 1000
FINE = 1.0  # pixels: standard deviation of the Gaussian that takes fine detail away
SOFT_QUANTILE, SOFT_SHARE = 0.25, 0.9
GROUPS, FEWEST_IN_GROUP = 4, 10
LOWER_TAIL, SHARE_TOLD = 0.05, 0.15  # of held-out images; of synthetic images below that, three times as many
LOWEST_TAIL = 0.01  # of held-out images; softer ones are judged by references of their own
NATURAL = 2  # times as many sharp synthetic images as held-out ones may lie there by nature
FEWEST_SOFT, BY_CHANCE = 5, 0.01  # soft images that are judged by themselves; chance that there are so many
NOTHING = 1e-12


def fine_detail(pixels: NDArray[np.floating], most: int = MOST_IMAGES) -> NDArray[np.float64]:
    """Share of each image's contrast that lies in detail finer than about two pixels.

    Args:
        pixels: ``(n, channels, *spatial)`` in [0, 1].
        most: images looked at, evenly spaced.

    Returns:
        ``(min(n, most),)``, 0 for an image of one grey value.
    """
    shares = []
    for position in _spread(len(pixels), most):
        image = np.asarray(pixels[position], dtype=np.float64).mean(axis=0)
        contrast = image.std()
        shares.append(float((image - gaussian_filter(image, FINE)).std() / contrast) if contrast > 0 else 0.0)
    return np.asarray(shares)


def _spread(n: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, n - 1, min(most, n)).round().astype(np.int64))


@dataclass(frozen=True)
class Softening:
    """Takes detail away from real images until they have as much as synthetic ones.

    The spectrum is that of the discrete cosine transform, whose mirrored ends make no edges, averaged over directions.
    Sharper and softer images (by ``fine_detail``) have filters of their own, so that a cohort of which a part is
    blurred is matched by held-out images of which the same part is.

    Attributes:
        limits: ``(groups - 1,)`` fine detail of held-out images at which one group ends and the next begins.
        gains: ``(groups, frequencies)`` what is left of each frequency, 0 to 1; frequencies in half periods along the
            shortest axis.
        synthetic, heldout: median fine detail of both cohorts, for the report.
    """

    limits: NDArray[np.float64]
    gains: NDArray[np.float64]
    synthetic: float
    heldout: float

    def __call__(self, pixels: NDArray[np.floating]) -> NDArray[np.floating]:
        """Soften ``(n, channels, *spatial)`` in [0, 1]; same shape, type and range."""
        frequencies = _frequencies(pixels.shape[2:])
        result = np.empty_like(pixels, subok=False)  # in memory, also where the images are mapped
        groups = np.searchsorted(self.limits, fine_detail(pixels, len(pixels)), side="right")
        for position, group in enumerate(groups):
            gain = self.gains[group][frequencies]
            for channel, image in enumerate(np.asarray(pixels[position], dtype=np.float64)):
                softened = idctn(dctn(image, norm="ortho") * gain, norm="ortho")
                result[position, channel] = softened.clip(0, 1)
        return result

    def cohort(self, prepared: PreparedCohort, folder: str | Path | None = None) -> PreparedCohort:
        """A cohort with softened pixels, under a hash of its own.

        Args:
            folder: for a file of the softened pixels, which then are memory-mapped; without it they stay in memory.

        Raises:
            OutputError: the folder cannot be written or the disk is full.
        """
        digest = hashlib.sha256(prepared.content_sha256.encode() + self.gains.tobytes() + self.limits.tobytes())
        if folder is None:
            pixels = self(prepared.pixels)
        else:
            path = Path(folder) / f"{prepared.cohort.name}-softened.f16"
            write_with(path, lambda temporary: self._write(prepared.pixels, temporary))
            pixels = np.memmap(path, dtype=prepared.pixels.dtype, mode="r", shape=prepared.pixels.shape)
        return replace(prepared, pixels=pixels, content_sha256=digest.hexdigest())

    def _write(self, pixels: NDArray[np.floating], path: Path) -> None:
        with open(path, "wb") as stream:
            for rows in blocks(pixels):
                stream.write(self(pixels[rows]).tobytes())

    def describe(self) -> Sharpness:
        """For the record: shares of fine detail, and a sentence."""
        return {
            "synthetic": self.synthetic,
            "heldout": self.heldout,
            "sentence": (
                f"The synthetic images are softer than the held-out ones: fine detail makes up {self.synthetic:.1%} of "
                f"their contrast, and {self.heldout:.1%} of that of the held-out images. The held-out images were "
                "therefore softened to the same spectrum before tau, p-values and control were taken from them, and so "
                "were the copies planted for the positive control and the limit of detection."
            ),
        }


def match_sharpness(synthetic: NDArray[np.floating], heldout: NDArray[np.floating]) -> Softening | None:
    """The filter that makes held-out images as soft as synthetic ones.

    Args:
        synthetic, heldout: ``(n, channels, *spatial)`` in [0, 1], prepared alike.

    Returns:
        None if the synthetic images are about as sharp: half of them sharper than a quarter of the held-out ones, or
        than nine tenths of their median.
    """
    ours, real = fine_detail(synthetic), fine_detail(heldout)
    if np.median(ours) >= min(np.quantile(real, SOFT_QUANTILE), SOFT_SHARE * np.median(real)):
        return None
    groups = max(1, min(GROUPS, min(len(ours), len(real)) // FEWEST_IN_GROUP))
    chosen_ours = np.array_split(_spread(len(synthetic), MOST_IMAGES)[np.argsort(ours, kind="stable")], groups)
    chosen_real = np.array_split(_spread(len(heldout), MOST_IMAGES)[np.argsort(real, kind="stable")], groups)
    gains = []
    for soft, sharp in zip(chosen_ours, chosen_real, strict=True):
        gain = np.sqrt(_power(synthetic, soft) / np.maximum(_power(heldout, sharp), NOTHING)).clip(0, 1)
        gain[0] = 1  # brightness stays
        gains.append(gain)
    ranked = np.sort(real)
    starts = np.cumsum([len(group) for group in chosen_real])[:-1]
    return Softening(ranked[starts], np.stack(gains), float(np.median(ours)), float(np.median(real)))


def _frequencies(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """``shape``, the distance of each cosine from the constant one, in steps of the shortest axis."""
    grid = np.meshgrid(*[np.arange(length) / length for length in shape], indexing="ij")
    return (np.sqrt(sum(axis**2 for axis in grid)) * min(shape)).round().astype(np.int64)


def _power(pixels: NDArray[np.floating], chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """Summed squared cosine coefficients at each frequency, mean of the chosen images."""
    frequencies = _frequencies(pixels.shape[2:]).ravel()
    total = np.zeros(frequencies.max() + 1)
    for position in chosen:
        for image in np.asarray(pixels[position], dtype=np.float64):
            total += np.bincount(frequencies, (dctn(image, norm="ortho") ** 2).ravel(), minlength=len(total))
    return total / len(chosen)


@dataclass(frozen=True)
class SoftPart:
    """Synthetic images that are soft while most are sharp: they have held-out images of their own to be judged by.

    Attributes:
        which: ``(n_synthetic,)``.
        softening: makes held-out images as soft as these.
    """

    which: NDArray[np.bool_]
    softening: Softening

    def warning(self) -> str:
        """What to tell of them."""
        n, share = int(self.which.sum()), float(self.which.mean())
        return (
            f"{n} of the synthetic images ({share:.0%}) are softer than 99 of 100 held-out ones; the others "
            "are as sharp. Blurred images are close to many patients, also where nothing was copied. So these were "
            "compared with held-out images that were blurred just as much, and their similarities were rescaled: at "
            "tau both are equally rare."
        )


def soft_part(synthetic: NDArray[np.floating], heldout: NDArray[np.floating]) -> SoftPart | None:
    """The soft ones among mostly sharp images; None where there are no more than chance makes.

    Args:
        synthetic, heldout: ``(n, channels, *spatial)`` in [0, 1], prepared alike, of which ``match_sharpness`` says
            that they are about as sharp.
    """
    limit = np.quantile(fine_detail(heldout), LOWEST_TAIL)
    if (fine_detail(synthetic) < limit).mean() <= LOWEST_TAIL:
        return None
    which = fine_detail(synthetic, len(synthetic)) < limit
    n_soft = int(which.sum())
    if n_soft < FEWEST_SOFT or binom.sf(n_soft - 1, len(which), LOWEST_TAIL) > BY_CHANCE:
        return None
    # Some of them are as soft as held-out images can be. They are judged with the others, but a filter that followed
    # them would leave detail that the blurred ones lost: of these 15 instead of 5 % were called then.
    natural = min(n_soft // 2, math.ceil(NATURAL * LOWEST_TAIL * len(which)))
    softest = np.flatnonzero(which)[np.argsort(fine_detail(synthetic[which], n_soft), kind="stable")]
    softening = match_sharpness(np.asarray(synthetic[np.sort(softest[: n_soft - natural])]), heldout)
    return None if softening is None else SoftPart(which, softening)


def partly_soft_warning(synthetic: NDArray[np.floating], heldout: NDArray[np.floating]) -> list[str]:
    """What to tell of synthetic images some of which are soft, too few for ``match_sharpness`` to act."""
    share = float((fine_detail(synthetic) < np.quantile(fine_detail(heldout), LOWER_TAIL)).mean())
    if share <= SHARE_TOLD:
        return []
    return [
        f"{share:.0%} of the synthetic images have less fine detail than nineteen of twenty held-out ones. The others "
        "are as sharp, so that nothing was softened: blurred images can be called copies for their blur alone. "
        "Look at the pairs, or audit the soft images by themselves."
    ]


def blur_warning(softening: Softening | None, matched: bool) -> list[str]:
    """What to tell of soft synthetic images.

    Args:
        softening: of ``match_sharpness``.
        matched: whether the held-out images were softened with it.
    """
    if softening is None:
        return []
    if matched:
        return [
            f"{softening.describe()['sentence']} Without that, blur alone would make copies of unseen patients. What "
            "is soft in another way, such as a mean of several patients, is matched in part only: look at the pairs."
        ]
    return [
        f"The synthetic images are blurred: fine detail makes up {softening.synthetic:.1%} of their contrast, and "
        f"{softening.heldout:.1%} of that of the held-out images. Blurred images of unseen patients are called copies "
        "more often than the control says, so that part of the excess may be blur. Leave --match_sharpness on, with "
        "size-matched calibration."
    ]

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Images in memory for the metrics: understood, prepared as an audit prepares files, and embedded."""

from __future__ import annotations

import logging
from typing import Self

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.data.loading import LUMINANCE, Preprocessing
from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError, UnusableImageError
from monai_memo.image_arrays import Images, Taken, take_images

logger = logging.getLogger(__name__)


def embed_images(
    detector: Detector, images: Images | Taken, device: str | torch.device = "cpu", batch_size: int = 64
) -> tuple[NDArray[np.float32], int]:
    """Embeddings of images in memory, scaled and resized as an audit does with files.

    Args:
        images: see ``monai_memo.image_arrays``.

    Returns:
        ``(n_usable, dim)`` embeddings, and how many images were not usable (constant, NaN).

    Raises:
        ConfigurationError: a shape that is none of images, or of other dimensions than the detector's.
    """
    usable, unusable = usable_images(detector.preprocessing, images)
    if not len(usable):
        return np.empty((0, detector.network.embedding_dim), dtype=np.float32), unusable
    return detector.embed(usable, batch_size, device, progress=False), unusable


def usable_images(
    preprocessing: Preprocessing, images: Images | Taken, strict: bool = False
) -> tuple[NDArray[np.float32], int]:
    """Images in memory, prepared as an audit does with files.

    Args:
        images: see ``monai_memo.image_arrays``.
        strict: refuse NaN and infinity, which otherwise make an image unusable.

    Returns:
        ``(n_usable, channels, *size)`` in [0, 1], and how many images were not usable (constant, NaN); a warning names
        each.

    Raises:
        ConfigurationError: a shape that is none of images, or of other dimensions than the detector's.
    """
    taken = images if isinstance(images, Taken) else taken_for(preprocessing, images, strict)
    usable, unusable = [], 0
    for number, image in enumerate(taken.arrays):
        try:
            usable.append(preprocessing.from_array(_in_channels(image, preprocessing.channels), f"image {number}"))
        except UnusableImageError as error:
            unusable += 1
            logger.warning("left out: %s", error)
    empty = np.empty((0, preprocessing.channels, *preprocessing.size), dtype=np.float32)
    return np.stack(usable) if usable else empty, unusable


def taken_for(preprocessing: Preprocessing, images: Images, strict: bool = True) -> Taken:
    """Images as a detector's audit understands them. See ``take_images``."""
    return take_images(images, "synthetic images", preprocessing.spatial_dims, strict=strict)


def _in_channels(image: NDArray[np.generic], channels: int) -> NDArray[np.generic]:
    """Colour as luminance, or grey in three channels, as files are read."""
    if len(image) == 3 and channels == 1:
        return np.asarray(np.tensordot(LUMINANCE, image.astype(np.float64), axes=1)[None])
    return np.repeat(image, 3, axis=0) if len(image) == 1 and channels == 3 else image


class ImageMetric(CumulativeIterationMetric):
    """A copy rate that takes images: ``update`` and ``compute`` beside MONAI's call, ``aggregate`` and ``reset``.

    Attributes:
        taken_for: what the images of the last ``update`` were taken for, in words.
    """

    taken_for: str = ""

    def update(self, images: Images) -> Self:
        """Take images in memory: tensors on any device, arrays, pictures, sequences of these.

        What they were taken for stands in ``taken_for``, and once in the log.

        Raises:
            ConfigurationError: a shape that is none of images or can mean two things, several sizes, NaN; or a metric
                without a detector.
        """
        preprocessing, shape = self.image_preprocessing(), tuple(getattr(images, "shape", ()))
        detector: Detector | None = getattr(self, "detector", None)
        width = None if detector is None else detector.network.embedding_dim
        if len(shape) == 2 and shape[0] and shape[1] == width:
            raise ConfigurationError(
                f"synthetic images: the shape {shape} may be {shape[0]} embeddings or one image: call the metric for "
                f"embeddings, and give an image as (1, 1, {shape[0]}, {shape[1]})"
            )
        taken = taken_for(preprocessing, images)
        if _kind(taken.sentence) != _kind(self.taken_for):
            logger.info("synthetic images: %s", taken.sentence)
        self.taken_for = taken.sentence
        self.take(taken)
        return self

    def compute(self) -> Tensor:
        """The same as ``aggregate``, by the name that torchmetrics has for it."""
        return self.aggregate()  # type: ignore[return-value]

    def repeated(self) -> tuple[int, int]:
        """Images looked at since the last reset, and how many of them are an earlier one over again, or nearly."""
        raise NotImplementedError

    def image_preprocessing(self) -> Preprocessing:
        """Of the detector that sees the images."""
        raise NotImplementedError

    def take(self, images: Images | Taken) -> int:
        """Add images, and tell how many are usable."""
        raise NotImplementedError


def _kind(sentence: str) -> str:
    """What was understood, without the number of images, which batches differ in."""
    return sentence.partition(" of ")[2]

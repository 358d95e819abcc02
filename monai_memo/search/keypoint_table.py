# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""All keypoints of a gallery on a graphics card, where comparing with all of them takes less time than an index."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.search.keypoint_index import unpacked
from monai_memo.search.keypoints import VALUES
from monai_memo.search.runner import Runner

LENGTH = 512.0  # of a descriptor, nearly: what they are divided by is a power of two, so that nothing is rounded
UP_TO = 65_536  # images; beyond, the processor's inverted file is used
FURTHER = 8  # values beside those of a descriptor: as many as keep rows of 16 bytes
ABSENT = -4.0  # a similarity that no keypoint has


class KeypointTable:
    """Compares keypoints with those of all images by matrix products, in half precision.

    Each keypoint finds the nearest one of every image, and of these the nearest few: so its neighbours lie in different
    images, where those of ``KeypointIndex`` may lie in one.

    Args:
        kept: of all images, ``packed``.
        runner: with the card.
    """

    def __init__(self, kept: Tensor, runner: Runner) -> None:
        self.runner, self.kept = runner, kept.to(runner.device)
        points = unpacked(kept)
        used = torch.arange(kept.shape[1]) < points.counts[:, None]
        self.owner: NDArray[np.int32] = np.repeat(np.arange(len(kept), dtype=np.int32), points.counts.numpy())
        self.frames: NDArray[np.float32] = points.frames[used].numpy()
        self.starts = np.cumsum(points.counts.numpy()) - points.counts.numpy()
        self.columns = torch.cat([self._column(kept[rows].to(runner.device)) for rows in runner.blocks(len(kept))])

    def __len__(self) -> int:
        return len(self.owner)

    @staticmethod
    def _column(kept: Tensor) -> Tensor:
        """``(images, most, values + 8)``: descriptors, and half of what a squared distance has beside the product."""
        points = unpacked(kept)
        values = points.descriptors.float() / LENGTH
        further = values.new_zeros(*values.shape[:2], FURTHER)
        further[:, :, 0] = -values.pow(2).sum(dim=2) / 2
        further[:, :, 0][points.frames[:, :, 2] <= 0] = ABSENT
        return torch.cat([values, further], dim=2).half()

    def nearest(self, descriptors: NDArray[np.uint8], neighbours: int) -> NDArray[np.int64]:
        """The most similar keypoints of different images, ``(n, neighbours)``, -1 where there are no more."""
        images, most, values = self.columns.shape
        every, wanted = self.columns.flatten(0, 1).T, min(neighbours, images)
        asked = torch.from_numpy(descriptors).to(self.columns.device)
        found = []
        for some in asked.split(self.runner.at_once(8 * images * most)):
            rows = torch.zeros(len(some), values, dtype=torch.half, device=some.device)
            rows[:, :VALUES] = some.half() / LENGTH
            rows[:, VALUES] = 1
            alike, slot = (rows @ every).view(len(some), images, most).max(dim=2)
            best, image = alike.topk(wanted, dim=1)
            place = image * most + slot.gather(1, image)
            found.append(torch.where(best > ABSENT / 2, place, -1))
        places = torch.cat(found).cpu().numpy()
        result = np.full((len(descriptors), neighbours), -1, dtype=np.int64)
        result[:, :wanted] = np.where(places < 0, -1, self.starts[places // most] + places % most)
        return result

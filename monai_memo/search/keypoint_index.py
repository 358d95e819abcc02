# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Keypoints of all images of a gallery: how they are kept, and an inverted file of their descriptors."""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.search.keypoints import VALUES, Keypoints
from monai_memo.search.runner import Runner

PROBED = 4  # lists of the inverted file that are looked into
LISTS = 2  # of the inverted file, times the square root of the number of keypoints
LISTED_AT_ONCE = 256  # images whose keypoints go into the index together
TRAINING_POINTS = 40  # keypoints for each list that the index is made from


@dataclass(frozen=True)
class KeypointIndex:
    """An inverted file of the descriptors of a gallery's keypoints.

    Attributes:
        file: None where there are no keypoints.
        owner: ``(keypoints,)`` their images, rising.
        frames: ``(keypoints, 4)`` place, size and direction.
    """

    file: faiss.IndexIVF | None
    owner: NDArray[np.int32]
    frames: NDArray[np.float32]

    def __len__(self) -> int:
        return 0 if self.file is None else len(self.owner)

    @classmethod
    def of(cls, kept: Tensor, runner: Runner) -> KeypointIndex:
        """Index keypoints; several processes share out which list each of them goes into.

        Args:
            kept: of all images, ``packed``.
        """
        size = len(kept)
        blocks = [slice(i, min(i + LISTED_AT_ONCE, size)) for i in range(0, size, LISTED_AT_ONCE)]
        counts = np.concatenate([unpacked(kept[rows]).counts.numpy() for rows in blocks])
        total = int(counts.sum())
        owner, frames = np.repeat(np.arange(size, dtype=np.int32), counts), np.empty((total, 4), dtype=np.float32)
        if total == 0:
            return cls(None, owner, frames)
        lists = int(np.clip(LISTS * total**0.5, 1, max(1, total // 8)))
        # Bytes hold descriptors as they are, not what is left of them beside the middle of their list.
        how = (faiss.ScalarQuantizer.QT_8bit_direct, faiss.METRIC_L2, False)
        file = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatL2(VALUES), VALUES, lists, *how)
        file.cp.seed, file.cp.niter = runner.seed + 1, 6
        file.cp.min_points_per_centroid, file.cp.max_points_per_centroid = 1, TRAINING_POINTS
        file.nprobe = min(PROBED, lists)
        share = min(total, TRAINING_POINTS * lists) / total
        rng = np.random.default_rng([runner.seed, 11])
        sample = []
        for rows in blocks:
            described = _described(unpacked(kept[rows]))
            sample.append(described if share >= 1 else described[rng.random(len(described)) < share])
        file.train(np.concatenate(sample).astype(np.float32))
        mine = runner.part_of(blocks)
        lists_found = []
        with runner.bar(sum(rows.stop - rows.start for rows in mine), "index of keypoints") as bar:
            for rows in mine:
                values = _described(unpacked(kept[rows])).astype(np.float32)
                lists_found.append(file.quantizer.assign(values, 1)[:, 0])
                bar.update(rows.stop - rows.start)
        listed = np.concatenate(lists_found)
        if len(mine) < len(blocks):
            listed = np.concatenate([part["listed"] for part in runner.together({"listed": listed})])
        start = 0
        for rows in blocks:
            points = unpacked(kept[rows])
            values, used = _described(points).astype(np.float32), _used(points)
            stop = start + len(values)
            lists_of = np.ascontiguousarray(listed[start:stop], dtype=np.int64)
            file.add_core(len(values), faiss.swig_ptr(values), None, faiss.swig_ptr(lists_of))
            frames[start:stop] = points.frames[used].numpy()
            start = stop
        return cls(file, owner, frames)

    def first(self, images: int) -> KeypointIndex:
        """Of the first images alone, without making it anew."""
        keypoints = int(np.searchsorted(self.owner, images))
        return KeypointIndex(self.file, self.owner[:keypoints], self.frames[:keypoints])

    def nearest(self, descriptors: NDArray[np.uint8], neighbours: int) -> NDArray[np.int64]:
        """The most similar keypoints, ``(n, neighbours)``, -1 where there are no more."""
        assert self.file is not None
        options = None
        if len(self.owner) < self.file.ntotal:
            some = faiss.IDSelectorRange(0, len(self.owner))
            options = faiss.SearchParametersIVF(sel=some, nprobe=self.file.nprobe)  # type: ignore[call-arg]
        found: NDArray[np.int64] = self.file.search(descriptors.astype(np.float32), neighbours, params=options)[1]
        return found


def packed(points: Keypoints) -> Tensor:
    """``(n, most, 144)`` uint8: descriptors, then the bytes of the frames; a size of 0 marks an empty row."""
    return torch.cat([points.descriptors, points.frames.contiguous().view(torch.uint8)], dim=2)


def unpacked(packed: Tensor) -> Keypoints:
    frames = packed[:, :, VALUES:].contiguous().view(torch.float32)
    return Keypoints(packed[:, :, :VALUES], frames, (frames[:, :, 2] > 0).sum(dim=1))


def _used(points: Keypoints) -> Tensor:
    return torch.arange(points.frames.shape[1]) < points.counts[:, None]


def _described(points: Keypoints) -> NDArray[np.uint8]:
    """Descriptors of all images one after the other."""
    described: NDArray[np.uint8] = points.descriptors[_used(points)].numpy()
    return described

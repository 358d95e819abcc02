# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Candidates by keypoints, with the transform that brings them onto the query, however far they were moved.

Embeddings, templates and shifts know images that lie nearly where their original lies. Keypoints know them turned by
any angle, cropped, framed, mirrored and inverted. Each keypoint of a query, and of its mirror image and negative, looks
for the most similar ones of all training images (an inverted file: the cost grows far slower than the gallery). Their
difference in angle and size must be the same for most keypoints of an image to be a candidate. Then all keypoints of a
query and a candidate are compared; each pair of them is a guess at the transform, and the guess counts that the most
other pairs agree with.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.search.gallery import Gallery, as_tensor, grey
from monai_memo.search.keypoint_index import KeypointIndex, packed, unpacked
from monai_memo.search.keypoint_table import UP_TO, KeypointTable
from monai_memo.search.keypoints import INVERTED, MIRRORED, VARIANTS, Keypoints, keypoints_of, variants_of
from monai_memo.search.placed import Placed
from monai_memo.search.runner import AHEAD, CPU, Runner

CANDIDATES = 10
VOTERS = 48  # strongest keypoints of a query
NEIGHBOURS = 5  # keypoints of the gallery that each of them votes for
ANGLES, SIZES = 12, 8  # bins of votes: of 30 degrees, of half octaves
RATIO = 0.9  # distance to the best keypoint over that to the second best of an image
NEAR, TURNED, RESIZED = 0.08, 0.6, 0.5  # half lengths, radians, logarithm: how far a pair may lie off a guess
CLOSE = (0.1, 0.08, 0.06, 0.05)  # half lengths, off the transform as it gets better
FEWEST = 3  # pairs that a transform rests on
LARGEST_ZOOM = 2.5
MOST_THREADS = 8  # beside a card: more of them only keep the one waiting that gives it its work
BYTES_PER_PAIR = 40  # of keypoints, while images are compared


@dataclass(frozen=True)
class LookedUp:
    """What the processor finds for ``n`` queries.

    Attributes:
        points: keypoints of the queries.
        descriptors, frames: of them and their variants, see ``keypoints.variants_of``.
        which, variants: ``(n, k)`` candidates, and which variant of the query they are candidates for.
    """

    points: Keypoints
    descriptors: Tensor
    frames: Tensor
    which: NDArray[np.int64]
    variants: NDArray[np.int64]


class LocalFeatureRetriever:
    """Keypoints; of pictures only.

    They are found on the CPU, and looked up and paired on the runner's device.

    Args:
        candidates: of each query.
        neighbours: keypoints of the gallery that each keypoint of a query votes for.
    """

    def __init__(self, candidates: int = CANDIDATES, neighbours: int = NEIGHBOURS) -> None:
        self.wanted, self.neighbours = candidates, neighbours
        self.size = 0

    def fit(self, gallery: Gallery, runner: Runner) -> None:
        """Keypoints of the gallery, and the inverted file of their descriptors.

        Raises:
            ValueError: the gallery holds volumes.
        """
        if len(gallery.shape) != 2:
            raise ValueError(f"keypoints are for pictures, got images of shape {gallery.shape}")
        self.size = len(gallery)
        threads = _threads()

        def make(block: Tensor) -> Tensor:
            return packed(keypoints_of(grey(block)[:, 0].cpu().numpy(), threads=threads))

        kept = gallery.derived.get("keypoints")
        on_cpu = replace(runner, device=CPU)
        self.packed = gallery.derive("keypoints", make, on_cpu) if kept is None else kept
        gallery.derived["keypoints"] = self.packed
        self.table: KeypointTable | None = None
        if runner.waits and self.size <= UP_TO:
            self.table = KeypointTable(self.packed, runner)
            return
        self.index = KeypointIndex.of(self.packed, on_cpu) if gallery.keypoints is None else gallery.keypoints
        gallery.keypoints = self.index

    def __call__(self, queries: Tensor, runner: Runner) -> Tensor:
        """``(batch, candidates)``."""
        return self.placed(queries, runner).candidates

    def look_up(self, queries: NDArray[np.floating], runner: Runner) -> LookedUp:
        """The processor's part of ``placed``: keypoints, and candidates by their votes.

        Args:
            queries: ``(batch, channels, height, width)`` in [0, 1].
        """
        threads = 1
        if runner.waits:  # several blocks at a time share the cores; the number holds for this thread alone
            threads = max(1, min(_threads() // AHEAD, MOST_THREADS))
            faiss.omp_set_num_threads(threads)
        images = grey(as_tensor(queries, CPU))[:, 0].numpy()
        return self._looked_up(keypoints_of(images, threads=threads), None)

    def placed(self, queries: Tensor, runner: Runner, looked_up: LookedUp | None = None) -> Placed:
        """Candidates with the transforms that bring them onto their queries.

        Args:
            queries: ``(batch, channels, height, width)`` in [0, 1].
            looked_up: what ``look_up`` gave for them, where that was done before.
        """
        return self._paired(looked_up or self.look_up(queries.cpu().numpy(), runner), runner)

    def place(self, points: Keypoints, runner: Runner, given: NDArray[np.int64] | None = None) -> Placed:
        """As ``placed``, for keypoints that are at hand.

        Args:
            given: ``(n, k)`` candidates to place, instead of those that get most votes.
        """
        return self._paired(self._looked_up(points, given), runner)

    def _looked_up(self, points: Keypoints, given: NDArray[np.int64] | None) -> LookedUp:
        descriptors, frames = variants_of(points)
        return LookedUp(points, descriptors, frames, *self._voted(points, descriptors, frames, given))

    def _voted(
        self, points: Keypoints, descriptors: Tensor, frames: Tensor, given: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Candidates ``(n, k)`` with most votes, and of which variant."""
        n = len(points)
        if given is not None:
            which = np.repeat(given, VARIANTS, axis=1)
            return which, np.tile(np.arange(VARIANTS), (n, given.shape[1]))
        which, variants = (np.full((n, self.wanted), fill, dtype=np.int64) for fill in (-1, 0))
        index = self.index if self.table is None else self.table
        if len(index) == 0:
            return which, variants
        counts = points.counts.clamp(max=VOTERS).numpy()
        rows = np.flatnonzero(counts >= FEWEST)
        if not len(rows):
            return which, variants
        voters, query, variant = self._voters(descriptors, rows, counts)
        found = index.nearest(voters, self.neighbours)
        theirs = torch.cat([frames[row, :, : counts[row]].flatten(0, 1) for row in rows]).numpy()
        codes, votes = self._counted(index, found, query, variant, theirs)
        row = codes // (VARIANTS * self.size)
        order = np.lexsort((codes, -votes, row))
        place = np.arange(len(order)) - np.searchsorted(row[order], row[order])  # within the query
        order, place = order[place < self.wanted], place[place < self.wanted]
        which[row[order], place] = codes[order] // VARIANTS % self.size
        variants[row[order], place] = codes[order] % VARIANTS
        return which, variants

    @staticmethod
    def _voters(
        descriptors: Tensor, rows: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        """Descriptors of all queries and variants one after the other, with the query and variant of each."""
        every = torch.cat([descriptors[row, :, : counts[row]].flatten(0, 1) for row in rows]).numpy()
        variant = np.concatenate([np.repeat(np.arange(VARIANTS), counts[row]) for row in rows])
        return every, np.repeat(rows, VARIANTS * counts[rows]), variant

    def _counted(
        self,
        index: KeypointIndex | KeypointTable,
        found: NDArray[np.int64],
        query: NDArray[np.int64],
        variant: NDArray[np.int64],
        frames: NDArray[np.float32],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many keypoints agree on angle and size.

        Args:
            found: ``(m, neighbours)`` keypoints of the gallery, -1 where there is none.
            query, variant: ``(m,)`` of the voters.
            frames: ``(m, 4)`` of the voters.

        Returns:
            ``(candidates,)`` query, image and variant in one number, rising, and votes.
        """
        mine, target = np.repeat(np.arange(len(found)), found.shape[1]), found.ravel()
        mine, target = mine[target >= 0], target[target >= 0]
        there, here = index.frames[target], frames[mine]
        code = (query[mine] * self.size + index.owner[target]) * VARIANTS + variant[mine]
        codes, group = np.unique(code, return_inverse=True)
        angle = np.remainder(there[:, 3] - here[:, 3], 2 * np.pi) * (ANGLES / (2 * np.pi))
        size = np.log2(there[:, 2] / here[:, 2]) * 2 + SIZES / 2
        kept = (size > 0) & (size < SIZES)
        bins_each, best = ANGLES * (SIZES + 1), np.zeros(len(codes), dtype=np.int64)
        for turn in (0, 1):  # both bins next to it, so that an edge divides no votes
            for step in (0, 1):
                place = np.floor(angle + 0.5 * turn).astype(np.int64) % ANGLES
                level = np.floor(size + 0.5 * step).astype(np.int64)
                bins, votes = np.unique(((group * ANGLES + place) * (SIZES + 1) + level)[kept], return_counts=True)
                np.maximum.at(best, bins // bins_each, votes)
        return codes, best

    def _paired(self, found: LookedUp, runner: Runner) -> Placed:
        """All keypoints of queries and candidates against one another."""
        points, descriptors, frames, which, variants = (getattr(found, part.name) for part in fields(found))
        n, k = which.shape
        device = runner.device
        kept = self.packed if self.table is None else self.table.kept
        theirs = unpacked(kept[torch.from_numpy(which.clip(min=0).ravel()).to(kept.device)])
        rows, kinds = torch.arange(n).repeat_interleave(k), torch.from_numpy(variants.ravel())
        here = Keypoints(descriptors[rows, kinds], frames[rows, kinds], points.counts[rows])
        parts = [
            transforms_of(here.some(part, device), theirs.some(part, device))
            for part in runner.blocks(n * k, runner.at_once(BYTES_PER_PAIR * here.frames.shape[1] ** 2))
        ]
        thetas, votes, agreeing = (torch.cat(part) for part in zip(*parts, strict=True))
        kinds = kinds.to(device)
        mirrored = (kinds & MIRRORED) > 0
        thetas[mirrored, :, 0] *= -1
        candidates = torch.from_numpy(which).to(device)
        none = (candidates < 0) | (votes.view(n, k) < FEWEST)
        order = torch.where(none, -1.0, votes.view(n, k)).argsort(dim=1, descending=True, stable=True)
        if k > self.wanted:
            order = order[:, : max(self.wanted, k // VARIANTS)]
        across = torch.arange(n, device=device)[:, None]
        candidates = torch.where(none, -1, candidates)[across, order]
        again = (candidates[:, :, None] == candidates[:, None, :]).tril(-1).any(dim=2)  # another variant of it
        places = points.frames[:, :, :2].to(device)[:, None].expand(-1, order.shape[1], -1, -1)
        return Placed(
            torch.where(again, -1, candidates), thetas.view(n, k, 2, 3)[across, order],
            torch.where(again, 0.0, votes.view(n, k)[across, order]),
            ((kinds & INVERTED) > 0).view(n, k)[across, order], places, agreeing.view(n, k, -1)[across, order],
        )  # fmt: skip


def transforms_of(here: Keypoints, there: Keypoints) -> tuple[Tensor, Tensor, Tensor]:
    """The transform of each pair of images that most keypoints agree on.

    Args:
        here, there: ``p`` images each.

    Returns:
        ``(p, 2, 3)``; ``(p,)`` number of places that agree; ``(p, most)`` which keypoints of ``here`` do.
    """
    p, most = here.frames.shape[:2]
    row = torch.arange(most, device=here.frames.device)
    first, second = here.descriptors.float(), there.descriptors.float()
    empty = row >= there.counts[:, None]
    squares = second.pow(2).sum(dim=2).masked_fill(empty, 1e9)
    distance = squares[:, None] - 2 * (first @ second.transpose(1, 2))
    nearest, match = distance.min(dim=2)
    other = distance.scatter(2, match[:, :, None], 1e9).amin(dim=2)
    norm = first.pow(2).sum(dim=2)
    usable = (nearest + norm < RATIO**2 * (other + norm)) & (row < here.counts[:, None])
    target = there.frames.gather(1, match[:, :, None].expand(-1, -1, 4))
    source = here.frames
    # Each pair of keypoints is a guess: turn and zoom are the difference of their angles and sizes.
    turn = target[:, :, 3] - source[:, :, 3]
    zoom = (target[:, :, 2].clamp(min=1e-6) / source[:, :, 2].clamp(min=1e-6)).log()
    linear = _similarity(turn, zoom.exp())
    shift = target[:, :, :2] - (linear @ source[:, :, :2, None])[..., 0]
    guess = torch.cat([linear, shift[..., None]], dim=3)  # (p, most, 2, 3)
    usable = usable & (zoom.abs() < np.log(LARGEST_ZOOM))
    x, y = source[:, None, :, 0], source[:, None, :, 1]
    off = torch.zeros_like(distance)  # squared, of each keypoint under each guess
    for axis in (0, 1):
        along, across, move = (part[:, :, None] for part in guess[:, :, axis].unbind(2))
        off += (along * x + across * y + (move - target[:, None, :, axis])) ** 2
    bent = torch.remainder(turn[:, :, None] - turn[:, None, :] + torch.pi, 2 * torch.pi) - torch.pi
    agrees = (off < NEAR**2) & (bent.abs() < TURNED) & ((zoom[:, :, None] - zoom[:, None, :]).abs() < RESIZED)
    agrees = agrees & usable[:, None, :] & usable[:, :, None]
    # Keypoints with several directions stand in one place several times: it counts once.
    same = (x.transpose(1, 2) == x) & (y.transpose(1, 2) == y) & usable[:, None, :]
    weight = 1 / same.sum(dim=2).clamp(min=1).to(source.dtype)
    votes = (agrees * weight[:, None, :]).sum(dim=2)
    best = votes.argmax(dim=1)
    pair = torch.arange(p, device=best.device)
    theta, chosen = guess[pair, best], agrees[pair, best]
    for close in CLOSE:
        theta = _fitted(source[:, :, :2], target[:, :, :2], chosen * weight, theta)
        placed = (theta[:, None, :, :2] @ source[:, :, :2, None])[..., 0] + theta[:, None, :, 2]
        near = ((placed - target[:, :, :2]) ** 2).sum(dim=2) < close**2
        facing = torch.remainder(turn - turn[pair, best][:, None] + torch.pi, 2 * torch.pi) - torch.pi
        alike = (facing.abs() < TURNED) & ((zoom - zoom[pair, best][:, None]).abs() < RESIZED)
        chosen = near & usable & alike
    return theta, (chosen * weight).sum(dim=1), chosen


def _similarity(turn: Tensor, zoom: Tensor) -> Tensor:
    """``(..., 2, 2)`` rotation and zoom."""
    cosine, sine = turn.cos() * zoom, turn.sin() * zoom
    return torch.stack([torch.stack([cosine, -sine], dim=-1), torch.stack([sine, cosine], dim=-1)], dim=-2)


def _fitted(source: Tensor, target: Tensor, weight: Tensor, guess: Tensor) -> Tensor:
    """Affine transform with least squares, drawn to the guess where few keypoints say little.

    Args:
        source, target: ``(p, most, 2)``.
        weight: ``(p, most)``.
        guess: ``(p, 2, 3)``.
    """
    rows = torch.cat([source, torch.ones_like(source[..., :1])], dim=2)
    weighted = (rows * weight[..., None]).transpose(1, 2)
    prior = torch.diag(torch.tensor([0.3, 0.3, 0.05], device=source.device))
    normal = weighted @ rows + prior
    right = weighted @ target + prior @ guess.transpose(1, 2)
    return torch.linalg.solve(normal, right).transpose(1, 2)


def _threads() -> int:
    """For keypoints: as many as torch may use."""
    return max(1, min(torch.get_num_threads(), os.cpu_count() or 1))

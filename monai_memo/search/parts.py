# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The search for copies in part: a region of a quarter of the image (an eighth of a volume) that a training image has.

The rest of the image may be another patient's or invented. Windows of each query are looked up by themselves
(``part_windows``), the best candidates are brought to lie on their window and compared with it in fine detail
(``part_score``), and the window that agrees most, next to what training images of other patients show there, counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.registration.affine import resized
from monai_memo.registration.filters import structured
from monai_memo.sealing import fingerprint, is_sealed, write_sealed
from monai_memo.search.colours import VERSION as COLOURS
from monai_memo.search.colours import colour_agreement
from monai_memo.search.gallery import Gallery, as_tensor, grey, require_images
from monai_memo.search.part_score import Crops, Cut, Windows, agreement
from monai_memo.search.part_windows import FEWEST, PartCandidates, PartRetriever
from monai_memo.search.runner import Runner

VERSION = 2  # raise it when the same images come to give another result
LENGTH = {2: 64, 3: 32}  # of the images that are compared
COMPARED = {2: 6, 3: 3}  # candidates of each query that are registered
SCALE_IMAGES = 100  # training images that scores are brought to one scale by
SAVE_EVERY = 256
NOT_SCORED = -100.0  # far below any score
NAMES = ("training", "score", "transforms", "regions")
Pixels = NDArray[np.floating]


@dataclass(frozen=True)
class PartMatches:
    """The region of each of ``n`` queries that is most like one of a training image.

    Attributes:
        training: ``(n,)`` index of the training image; -1 where there is none.
        score: ``(n,)`` by how many standard deviations the region agrees more with it than the same place of training
            images does with those of other patients.
        transforms: ``(n, dims, dims + 1)`` that bring the training image to the query, see ``registration.affine``.
        regions: ``(n, dims, 2)`` where the region begins and ends along each axis, as shares of its length.
    """

    training: NDArray[np.int64]
    score: NDArray[np.float64]
    transforms: NDArray[np.float32]
    regions: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.training)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All of it by name, for a file."""
        return {name: getattr(self, name) for name in NAMES}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.generic]]) -> PartMatches:
        """From what ``arrays`` gave."""
        return cls(
            arrays["training"].astype(np.int64, copy=False),
            arrays["score"].astype(np.float64, copy=False),
            arrays["transforms"].astype(np.float32, copy=False),
            arrays["regions"].astype(np.float64, copy=False),
        )

    @classmethod
    def concat(cls, parts: Sequence[PartMatches]) -> PartMatches:
        """Those of several blocks of queries, one after the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in NAMES))

    @property
    def shares(self) -> NDArray[np.float64]:
        """``(n,)`` share of the image that the region takes."""
        found: NDArray[np.float64] = np.prod(self.regions[:, :, 1] - self.regions[:, :, 0], axis=1)
        return found


class PartSearch:
    """Looks regions of images up in a training cohort.

    Args:
        retriever: of windows.
        compared: candidates of each query that are registered and compared; by default 6, of volumes 3.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> images = rng.random((30, 1, 32, 32), dtype=np.float32)
        >>> query = rng.random((1, 1, 32, 32), dtype=np.float32)
        >>> query[0, :, 16:, :16] = images[7, :, 16:, :16]
        >>> found = PartSearch().fit(Gallery(images)).search(query)
        >>> int(found.training[0]), bool(found.regions[0, 0, 0] == 0.5)
        (7, True)
    """

    def __init__(self, retriever: PartRetriever | None = None, compared: int | None = None) -> None:
        self.retriever, self.compared = retriever or PartRetriever(), compared

    def fit(self, gallery: Gallery, runner: Runner | None = None) -> PartSearch:
        """Get ready to look queries up in a gallery."""
        self.gallery, self.runner = gallery, runner or Runner()
        dims = len(gallery.shape)
        self.shape = tuple(min(length, LENGTH[dims]) for length in gallery.shape)
        self.kept, self.crops = self.compared or COMPARED[dims], Crops(self.shape)
        self.windows: Windows | None = None
        with torch.inference_mode():
            self.retriever.fit(gallery, self.runner)
            self.windows = self._scale()
        return self

    def __len__(self) -> int:
        return len(self.gallery)

    def search(self, queries: Pixels, store: str | Path | None = None, name: str = "parts") -> PartMatches:
        """The best match in part of each query.

        Args:
            queries: ``(n, channels, *spatial)`` in [0, 1], prepared like the gallery.
            store: file (``.npz``) that keeps what is done; a call that was killed continues there.
            name: of the progress bar.

        Raises:
            ValueError: the queries do not have the shape of the gallery's images.
        """
        if "gallery" not in vars(self):
            raise ValueError("this search has no gallery yet: call fit(Gallery(pixels, patients)) before looking up")
        if queries.shape[1:] != self.gallery.pixels.shape[1:]:
            raise ValueError(
                f"queries must have shape (n, {', '.join(map(str, self.gallery.pixels.shape[1:]))}) like the images "
                f"that they are looked up among, got {queries.shape}"
            )
        require_images(queries, "queries")
        runner, mine = self.runner, self.runner.mine(len(queries))
        identity = "" if store is None else self._identity(queries)
        if store is not None and runner.shard[1] > 1:  # each process keeps its own share
            identity = fingerprint("share of parts", [identity, mine.start, mine.stop])
            store = Path(store).with_suffix(f".{mine.start}-{mine.stop}.npz")
        parts, done = [], mine.start
        if store is not None and is_sealed(store, identity):
            with np.load(store, allow_pickle=False) as kept:
                parts.append(PartMatches.of(kept))
            done += len(parts[0])
        saved = done
        with torch.inference_mode(), runner.bar(mine.stop - mine.start, name, done - mine.start) as bar:
            for rows in runner.blocks(len(queries)):
                if rows.stop <= done or rows.start >= mine.stop:
                    continue
                runner.check()
                parts.append(self._block(as_tensor(queries[rows], runner.device)))
                bar.update(rows.stop - rows.start)
                if store is not None and (rows.stop - saved >= SAVE_EVERY or rows.stop == mine.stop):
                    parts, saved = [PartMatches.concat(parts)], rows.stop
                    arrays: dict[str, Any] = parts[0].arrays()
                    write_sealed(store, lambda temporary: np.savez(temporary, **arrays), identity)  # noqa: B023
        found = PartMatches.concat(parts) if parts else self._nothing()
        if runner.team is None:
            return found
        return PartMatches.concat([PartMatches.of(share) for share in runner.together(found.arrays())])

    def _nothing(self) -> PartMatches:
        dims = len(self.shape)
        return PartMatches(
            np.empty(0, dtype=np.int64), np.empty(0), np.empty((0, dims, dims + 1), dtype=np.float32),
            np.empty((0, dims, 2)),
        )  # fmt: skip

    def _block(self, queries: Tensor) -> PartMatches:
        assert self.windows is not None
        found, maps, thetas = self.compare(grey(queries))
        scored = self.windows(maps.flatten(0, 1))
        none = found < 0
        score = torch.where(none, NOT_SCORED, scored.score.view(found.shape))
        best = score.argmax(dim=1, keepdim=True)
        rows = torch.arange(len(found), device=found.device)[:, None]
        regions = self.windows.regions(
            maps[rows, best][:, 0].cpu().numpy(), scored.window.view(found.shape).gather(1, best)[:, 0].cpu().numpy()
        )
        which, theta = found.gather(1, best)[:, 0], thetas[rows, best][:, 0]
        best_score = score.gather(1, best)[:, 0].double().cpu().numpy()
        if queries.shape[1] == 3:
            agreement = self._in_colour(queries, which, theta, regions)
            best_score = np.where(best_score > 0, best_score * agreement, best_score)
        return PartMatches(which.cpu().numpy(), best_score, theta.cpu().numpy(), regions)

    def _in_colour(
        self, queries: Tensor, which: Tensor, thetas: Tensor, regions: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """How far the colours of each region agree with those of the training image, 0 to 1."""
        where = torch.zeros(len(queries), 1, *self.shape)
        for one, region in zip(where, regions, strict=True):
            one[0][tuple(
                slice(round(low * length), max(round(low * length) + 1, round(high * length)))
                for (low, high), length in zip(region, self.shape, strict=True)
            )] = 1  # fmt: skip
        others = as_tensor(self.gallery.pixels[which.clamp(min=0).cpu().numpy()], queries.device)
        inverted = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)
        small = resized(queries, self.shape), resized(others, self.shape)
        agreement = colour_agreement(*small, thetas, inverted, where.to(queries.device))
        return np.where(which.cpu().numpy() < 0, 1.0, agreement.double().cpu().numpy())

    def compare(self, images: Tensor, patients: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates of each query, where they agree with it, and how they are brought to it.

        Args:
            images: ``(n, 1, *spatial)``.
            patients: ``(n,)`` whose images are passed over.

        Returns:
            ``(n, k)``, -1 where there are fewer; ``(n, k, *kept)`` of ``part_score.agreement``;
            ``(n, k, dims, dims + 1)``.
        """
        structure = structured(images)
        candidates = self.retriever(images, structure, patients, self.runner)
        small = resized(images, self.shape)
        structure = structure if small is images else structured(small)
        found, thetas, cut = self._shortlist(small, structure, candidates)
        k = found.shape[1]
        others = self._candidates(found)
        queries, seen = (one.repeat_interleave(k, dim=0) for one in (small, structure))
        moved = self.crops.composed(thetas, cut[1], cut[0].registered())
        step = self.runner.at_once(64 * small[0].numel())
        maps = torch.cat([
            agreement(*some)
            for some in zip(*(one.split(step) for one in (queries, seen, others, moved)), strict=True)
        ])  # fmt: skip
        return found, maps.unflatten(0, found.shape), moved.unflatten(0, found.shape)

    def _candidates(self, which: Tensor) -> Tensor:
        flat = which.clamp(min=0).flatten()
        step = self.runner.at_once(4 * int(np.prod(self.gallery.shape)))
        return torch.cat([resized(self.gallery.images(some, self.runner), self.shape) for some in flat.split(step)])

    def _shortlist(
        self, small: Tensor, structure: Tensor, candidates: PartCandidates
    ) -> tuple[Tensor, Tensor, tuple[Cut, Tensor]]:
        """The candidates whose window is most like the query's in fine detail, with transforms, windows and centres."""
        n, k = candidates.training.shape
        step = max(1, self.runner.at_once(64 * small[0].numel()) // k)
        every = (small, structure, candidates.training, candidates.thetas, candidates.centres)
        cuts = []
        for images, seen, training, thetas, centres in zip(*(one.split(step) for one in every), strict=True):
            images, seen = (one.repeat_interleave(k, dim=0) for one in (images, seen))
            cuts.append(Cut.of(
                self.crops, images, seen, self._candidates(training), thetas.flatten(0, 1), centres.flatten(0, 1)
            ))  # fmt: skip
        alike = torch.cat([cut.alike() for cut in cuts]).view(n, k)
        alike = torch.where(candidates.training < 0, -2.0, alike)
        best = alike.topk(min(self.kept, k), dim=1).indices
        flat = (best + k * torch.arange(n, device=best.device)[:, None]).flatten()
        cut = Cut.concat(cuts).rows(flat)
        thetas, centres = candidates.thetas.flatten(0, 1)[flat], candidates.centres.flatten(0, 1)[flat]
        return candidates.training.gather(1, best), thetas, (cut, centres)

    def _scale(self) -> Windows:
        """What training images show among those of other patients, in each window."""
        gallery = self.gallery
        n = min(SCALE_IMAGES, len(gallery))
        chosen = np.sort(np.random.default_rng([self.runner.seed, 23]).choice(len(gallery), n, replace=False))
        maps = []
        for rows in self.runner.my_blocks(n):
            self.runner.check()
            images = grey(as_tensor(gallery.pixels[chosen[rows]], self.runner.device))
            own = torch.from_numpy(gallery.patients[chosen[rows]]).to(self.runner.device)
            found, agreements, _ = self.compare(images, own)
            maps.append(torch.where((found < 0).view(*found.shape, *(1,) * len(self.shape)), 0.0, agreements))
        if self.runner.team is not None:
            here = {"maps": torch.cat(maps).cpu().numpy()} if maps else {}
            every = [part["maps"] for part in self.runner.together(here) if part]
            maps = [torch.from_numpy(np.asarray(part)).to(self.runner.device) for part in every]
        enough = len(np.unique(gallery.patients)) >= FEWEST
        return Windows.of(torch.cat(maps)) if enough else Windows.plain(maps[0])

    def _identity(self, queries: Pixels) -> str:
        settings: list[Any] = [VERSION, self.retriever.wanted, self.kept, self.runner.seed]
        settings += ["colours", COLOURS] if queries.shape[1] == 3 else []
        return fingerprint("matches in part", settings, [self.gallery.pixels, self.gallery.patients, queries])

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The search for copies in one cohort: retrieve candidates, register and score them, normalise the scores.

Three similarities are measured for each candidate: local ones after registration (``reranker``), of the whole images,
and how far it is ahead of the other candidates (both ``score_norm``), brought to one scale. The greater one of the
first two counts, and the lead on top of it (``Matches.with_further``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.sealing import fingerprint, is_sealed, write_sealed
from monai_memo.search.checks import checked_candidates, checked_places, checked_scores
from monai_memo.search.colours import VERSION as COLOURS
from monai_memo.search.colours import in_colour
from monai_memo.search.embedding_retriever import EmbeddingRetriever
from monai_memo.search.gallery import Gallery, as_tensor, patient_numbers, require_images
from monai_memo.search.local_features import LocalFeatureRetriever
from monai_memo.search.matches import NOT_SCORED, Matches
from monai_memo.search.placed import Placed
from monai_memo.search.protocols import Encoder, PlacingRetriever, Reranker, Retriever, Scored, SearchDescription
from monai_memo.search.reranker import RegisteredReranker
from monai_memo.search.runner import Runner
from monai_memo.search.score_norm import Closeness, CommonScale, WholeImages, leads, vote_leads
from monai_memo.search.shape_retriever import ShapeRetriever
from monai_memo.search.volume_retriever import VolumeRetriever

VERSION = 11  # raise it when the same images come to give another result: what is kept of another one is not taken up
SCALE_IMAGES, FEWEST_IMAGES = 200, 20  # training images that the common scale is measured on
SAVE_EVERY = 64
LEADS = 3  # kinds of them
Pixels = NDArray[np.floating]
MakeSearch = Callable[[Encoder, int], "CopySearch"]  # of a detector's network and a batch size; not fitted yet


class CopySearch:
    """Looks images up in a training cohort.

    .. versionadded:: 0.2.0

    Args:
        retrievers: each finds candidates; all of them are scored.
        reranker: scores them.
        whole_images: compare whole images as well; from 20 patients on.

    Example:
        >>> import numpy as np
        >>> images = np.random.default_rng(0).random((3, 1, 32, 32), dtype=np.float32)
        >>> search = CopySearch([ShapeRetriever()], RegisteredReranker()).fit(Gallery(images))
        >>> found = search.search(images[1:2, ..., ::-1])
        >>> int(found.candidates[0, 0]), bool(found.similarity[0, 0] > 0.99)
        (1, True)
    """

    def __init__(
        self,
        retrievers: Sequence[Retriever] = (),
        reranker: Reranker | None = None,
        whole_images: bool = True,
    ) -> None:
        self.retrievers: list[Retriever] = list(retrievers) or [ShapeRetriever()]
        self.reranker: Reranker = reranker or RegisteredReranker()
        self.wanted_whole_images = whole_images
        self.scale: CommonScale | None = None
        self.layout_scale: CommonScale | None = None
        self.lead_scales: list[CommonScale | None] = []

    @classmethod
    def default(cls, encoder: Encoder, batch_size: int = 64) -> CopySearch:
        """The search of an audit: by embeddings and by shape, then by registration."""
        embeddings = EmbeddingRetriever(encoder, batch_size=batch_size)
        return cls([embeddings, ShapeRetriever(), LocalFeatureRetriever(), VolumeRetriever()])

    def fit(self, gallery: Gallery, runner: Runner | None = None) -> CopySearch:
        """Get ready to look queries up in a gallery."""
        runner = runner or Runner()
        self.gallery, self.runner = gallery, runner
        placing = VolumeRetriever if len(gallery.shape) == 2 else LocalFeatureRetriever  # is for the other dimension
        self.retrievers = [one for one in self.retrievers if not isinstance(one, placing)]
        enough = len(np.unique(gallery.patients)) >= FEWEST_IMAGES
        self.scale = None
        with torch.inference_mode():
            known = gallery.embeddings is not None
            for retriever in self.retrievers:
                if known and isinstance(retriever, EmbeddingRetriever):
                    retriever.fit(gallery, runner)
                    known, gallery = False, gallery.without_embeddings()  # those of the first encoder are no others'
                else:
                    retriever.fit(gallery, runner)
            gallery = self.gallery
            self.reranker.fit(gallery, runner)
            if self.wanted_whole_images and enough:
                self.whole_images, self.layouts = WholeImages(), WholeImages(layout=True)
                self.whole_images.fit(gallery, runner)
                self.layouts.fit(gallery, runner)
                self.scale = self._measure_scale()
        return self

    def __len__(self) -> int:
        return len(self.gallery) if "gallery" in vars(self) else 0

    def search(
        self, queries: Pixels, store: str | Path | None = None, patients: NDArray[np.int64] | None = None
    ) -> Matches:
        """Matches of each query.

        Args:
            queries: ``(n, channels, *spatial)`` in [0, 1], prepared like the gallery.
            store: file (``.npz``) that keeps what is done; a call that was killed continues there. It is made again
                where it is damaged, or was made from other images or by another search.
            patients: ``(n,)`` whose images are passed over, for images that are looked up among those of others.

        Raises:
            ValueError: there is no gallery yet (``fit``); the queries do not have the shape of the gallery's images, or
                are not finite; ``patients`` are not as many whole numbers; an encoder, retriever or reranker of your
                own returned something of another shape, vectors that are not finite, or images that are not there;
                with ``store``, it has no method ``identity``.
        """
        return self._run(queries, store, patients, None)

    def score(self, queries: Pixels, candidates: NDArray[np.int64], patients: NDArray[np.int64]) -> Matches:
        """Matches of given pairs, and nothing beyond them.

        Args:
            candidates: ``(n, k)`` indices into the gallery, padded with -1.
            patients: ``(n,)`` of the queries; no other patients either.
        """
        return self._run(queries, None, patients, candidates)

    def describe(self) -> SearchDescription:
        """What kind of search this is, for records."""
        embeddings = [one for one in self.retrievers if isinstance(one, EmbeddingRetriever)]
        parts = [*self.retrievers, *([] if self.scale is None else [self.whole_images])]
        return {
            "retrievers": [type(one).__name__ for one in self.retrievers],
            "neighbours": sum(one.neighbours for one in embeddings),
            "refined": self.reranker.refined,
            "whole_images": self.scale is not None,
            "exact": all(getattr(part, "exact", True) for part in parts),
            "own": [
                type(one).__name__
                for one in [*self.retrievers, self.reranker]
                if not type(one).__module__.startswith("monai_memo.")
            ],
        }

    def _run(
        self,
        queries: Pixels,
        store: str | Path | None,
        patients: NDArray[np.int64] | None,
        candidates: NDArray[np.int64] | None,
    ) -> Matches:
        if "gallery" not in vars(self):
            raise ValueError("this search has no gallery yet: call fit(Gallery(pixels, patients)) before looking up")
        if queries.shape[1:] != self.gallery.pixels.shape[1:]:
            raise ValueError(
                f"queries must have shape (n, {', '.join(map(str, self.gallery.pixels.shape[1:]))}) like the images "
                f"that they are looked up among, got {queries.shape}"
            )
        require_images(queries, "queries")
        if patients is not None:
            patients = patient_numbers(patients)
            if len(patients) != len(queries):
                raise ValueError(f"patients must be as many as the queries, {len(queries)}, got {len(patients)}")
        runner, total = self.runner, len(queries)
        identity = "" if store is None else self._identity(queries, patients)
        kept = self._agreed(_stored(store, identity) if runner.shard[0] == 0 or runner.team is None else None)
        done = 0 if kept is None else len(kept)
        mine, shared = runner.mine(total, done), runner.shard[1] > 1
        if shared and store is not None:  # each process keeps its own share beside the whole
            own: Path | None = Path(store).with_suffix(f".{mine.start}-{mine.stop}.npz")
            first, own_identity = mine.start, fingerprint("share of matches", [identity, mine.start, mine.stop])
            before = _stored(own, own_identity)
        else:
            own, own_identity, before, first = None if store is None else Path(store), identity, kept, 0
        parts: list[Matches] = [] if before is None else [before]
        done = saved = mine.start if before is None else first + len(before)
        begin = mine.start if shared else 0
        with torch.inference_mode(), runner.bar(mine.stop - begin, "search", done - begin) as bar:
            missing = [
                slice(max(rows.start, done), rows.stop)
                for rows in runner.blocks(total) if rows.stop > done and rows.start < mine.stop
            ]  # fmt: skip
            prepared = runner.ahead(lambda rows: self._looked_up(queries[rows], candidates is None), missing)
            for rows, looked_up in prepared:
                runner.check()
                parts.append(self._block(
                    as_tensor(queries[rows], runner.device),
                    None if patients is None else torch.from_numpy(patients[rows]).to(runner.device),
                    None if candidates is None else torch.from_numpy(candidates[rows]).to(runner.device),
                    looked_up,
                ))  # fmt: skip
                bar.update(rows.stop - rows.start)
                if own is not None and (rows.stop - saved >= SAVE_EVERY or rows.stop == mine.stop):
                    parts, saved = [Matches.concat(parts)], rows.stop
                    _save(own, parts[0], own_identity)
        found = Matches.concat(parts) if parts else self._nothing()
        if runner.team is None:
            return found
        shares = [Matches.of(share) for share in runner.together(found.arrays())]
        whole = [share for share in ([] if kept is None else [kept]) + shares if len(share)]
        found = Matches.concat(whole) if whole else found
        if store is not None and runner.shard[0] == 0 and (kept is None or len(kept) < total):
            _save(store, found, identity)
        return found

    def _looked_up(self, queries: Pixels, wanted: bool) -> tuple[object, ...]:
        """The processor's part of retrievers that have one, for a block of queries."""
        looked_up = [getattr(one, "look_up", None) if wanted else None for one in self.retrievers]
        return tuple(None if one is None else one(queries, self.runner) for one in looked_up)

    def _nothing(self) -> Matches:
        return Matches.empty(0, self.reranker.refined, len(self.gallery.shape), 0)

    def _agreed(self, kept: Matches | None) -> Matches | None:
        """What the first process found of an earlier call: all of them go on from there."""
        if self.runner.team is None:
            return kept
        first = self.runner.together({} if kept is None else kept.arrays())[0]
        return Matches.of(first) if first else None

    def _block(
        self, queries: Tensor, patients: Tensor | None, given: Tensor | None, looked_up: tuple[object, ...] = ()
    ) -> Matches:
        """One block of queries, on the device."""
        scored, whole_image, leads = self.block(queries, patients, given, looked_up)
        inverted = getattr(scored, "inverted", None)
        inverted = torch.zeros_like(scored.candidates, dtype=torch.bool) if inverted is None else inverted
        found = Matches(
            scored.candidates.cpu().numpy(), scored.similarity.double().cpu().numpy(), scored.transforms.cpu().numpy(),
            scored.profiles.cpu().numpy(), np.full(scored.candidates.shape, NOT_SCORED),
            np.full(scored.candidates.shape, NOT_SCORED), inverted.cpu().numpy(),
        )  # fmt: skip
        if self.scale is None or whole_image is None:
            return in_colour(found, queries, self.gallery, self.runner)
        none = found.candidates < 0
        closeness = whole_image.cpu().numpy()
        values = self.scale(closeness[:, :, 0])
        if self.layout_scale is not None:
            values = np.maximum(values, self.layout_scale(closeness[:, :, 1]))
        values = np.where(none, NOT_SCORED, values)
        lead = found.lead
        if leads is not None:
            each = leads.cpu().numpy()
            for number, scale in enumerate(self.lead_scales):
                if scale is not None:
                    lead = np.maximum(lead, scale(each[:, :, number]))
        found = found.with_further(values, np.where(none, NOT_SCORED, lead), self.scale.similarity[0])
        return in_colour(found, queries, self.gallery, self.runner)

    def block(
        self,
        queries: Tensor,
        patients: Tensor | None = None,
        given: Tensor | None = None,
        looked_up: tuple[object, ...] = (),
    ) -> tuple[Scored, Tensor | None, Tensor | None]:
        """One block of queries on the device (only keypoints are looked for and looked up on the CPU).

        Args:
            looked_up: what ``look_up`` of each retriever gave, where that was done before.

        Returns:
            Scored candidates, closeness of whole images and layouts ``(n, r, 2)``, and leads ``(n, r, 3)``; the last
            ones None where they are not measured.
        """
        candidates, placed = self._candidates(queries, patients, looked_up) if given is None else (given, None)
        if self.scale is None:
            return self._scored(queries, candidates, None, placed), None, None
        scored, closest = self._compared(queries, candidates, placed, patients, given is None)
        whole = torch.stack([
            part.of_candidates(vectors, scored.candidates, one.background) for part, vectors, one in closest
        ], dim=2)  # fmt: skip
        return scored, whole, None if given is not None else self._leads(scored, placed, patients)

    def _compared(
        self, queries: Tensor, candidates: Tensor, placed: Placed | None, patients: Tensor | None, kept: bool
    ) -> tuple[Scored, list[tuple[WholeImages, Tensor, Closeness]]]:
        """Scored candidates, and the whole images with what is closest by them, which is kept among the candidates."""
        closest = []
        for part in (self.whole_images, self.layouts):
            vectors = part.vectors_of(queries)
            closest.append((part, vectors, part.closeness(vectors, patients)))
        if not kept:
            return self._scored(queries, candidates, None, placed), closest
        nearest = torch.stack([one.nearest for _, _, one in closest], dim=1)
        candidates = self._union([candidates, nearest])
        nearest = nearest if getattr(self.reranker, "takes_places", False) else nearest[:, 0]
        return self._scored(queries, candidates, nearest, placed), closest

    def _leads(self, scored: Scored, placed: Placed | None, own: Tensor | None) -> Tensor:
        """``(n, r, 3)``: of all bands, of the finest, and of keypoints."""
        patients = self.whole_images.patients
        if getattr(self.reranker, "takes_places", False):
            found = leads(scored, patients)
        else:  # profiles of another reranker need not be correlations
            found = torch.full((*scored.candidates.shape, LEADS - 1), -torch.inf, device=patients.device)
        if placed is None or placed.places.shape[2] == 0:  # votes that are no keypoints are all alike, and tell nothing
            return torch.cat([found, torch.full_like(found[:, :, :1], -torch.inf)], dim=2)
        theirs = placed.candidates
        if own is not None:
            theirs = torch.where(patients[theirs.clamp(min=0)] == own[:, None], -1, theirs)
        votes = vote_leads(placed.votes, theirs, scored.candidates, patients)
        return torch.cat([found, votes.to(found.dtype)[:, :, None]], dim=2)

    def _scored(self, queries: Tensor, candidates: Tensor, kept: Tensor | None, placed: Placed | None) -> Scored:
        if placed is not None and getattr(self.reranker, "takes_places", False):
            found = self.reranker(queries, candidates, kept, self.runner, placed)  # type: ignore[call-arg]
        else:
            found = self.reranker(queries, candidates, kept, self.runner)
        return checked_scores(self.reranker, found, len(queries), self.reranker.refined, queries.ndim - 2)

    def _candidates(
        self, queries: Tensor, patients: Tensor | None, looked_up: tuple[object, ...] = ()
    ) -> tuple[Tensor, Placed | None]:
        """Candidates of all retrievers, and where some of them lie."""
        parts: list[Tensor] = []
        places: list[Placed] = []
        known = looked_up or (None,) * len(self.retrievers)
        for retriever, found in zip(self.retrievers, known, strict=True):
            if isinstance(retriever, PlacingRetriever):
                further = {} if found is None else {"looked_up": found}
                placed = retriever.placed(queries, self.runner, **further)
                n, dims = len(self.gallery), queries.ndim - 2
                places.append(checked_places(retriever, placed, len(queries), n, dims, self.runner))
                parts.append(places[-1].candidates)
            else:
                found_here = retriever(queries, self.runner)
                parts.append(checked_candidates(retriever, found_here, len(queries), len(self.gallery), self.runner))
        candidates = self._union(parts)
        if patients is not None:
            theirs = torch.from_numpy(self.gallery.patients).to(queries.device)[candidates.clamp(min=0)]
            candidates = torch.where(theirs == patients[:, None], -1, candidates)
        return candidates, Placed.together(places)

    def _union(self, parts: Sequence[Tensor]) -> Tensor:
        """Candidates of several retrievers, each once, padded with -1 at the end."""
        none = parts[0].new_full((len(parts[0]), 1), -1)  # a row is never empty, even if nobody found anything
        found = torch.cat([*parts, none], dim=1).sort(dim=1, descending=True).values
        again = torch.zeros_like(found, dtype=torch.bool)
        again[:, 1:] = found[:, 1:] == found[:, :-1]
        found = torch.where(again, -1, found).sort(dim=1, descending=True).values
        if self.runner.waits:
            return found
        return found[:, : max(1, int((found >= 0).sum(dim=1).max()))]

    def _measure_scale(self) -> CommonScale | None:
        """Training images among those of the other patients: neither similarity has a copy to find there."""
        gallery, n = self.gallery, min(SCALE_IMAGES, len(self.gallery))
        chosen = np.sort(np.random.default_rng([self.runner.seed, 5]).choice(len(gallery), n, replace=False))
        local, whole, layout, lead = [torch.empty(0)], [torch.empty(0)], [torch.empty(0)], [torch.empty(0, LEADS)]
        mine = self.runner.my_blocks(n)
        with self.runner.bar(sum(rows.stop - rows.start for rows in mine), "common scale") as bar:
            for rows in mine:
                self.runner.check()
                images = as_tensor(gallery.pixels[chosen[rows]], self.runner.device)
                own = torch.from_numpy(gallery.patients[chosen[rows]]).to(self.runner.device)
                candidates, placed = self._candidates(images, own)
                scored, closest = self._compared(images, candidates, placed, own, True)
                local.append(scored.similarity[:, 0].cpu())
                lead.append(self._leads(scored, placed, own).amax(dim=1).cpu())
                for kept, (_, _, one) in zip((whole, layout), closest, strict=True):
                    kept.append(one.value.cpu())
                bar.update(len(images))
        here = {
            "similarity": torch.cat(local).double().numpy(), "closeness": torch.cat(whole).double().numpy(),
            "layout": torch.cat(layout).double().numpy(), "lead": torch.cat(lead).double().numpy(),
        }  # fmt: skip
        every = self.runner.together(here)
        similarity, closeness, alike, each = (np.concatenate([part[name] for part in every]) for name in here)
        usable = similarity > NOT_SCORED
        self.lead_scales = []
        for values in each.T:
            measured = usable & np.isfinite(values)
            few = measured.sum() < FEWEST_IMAGES
            self.lead_scales.append(None if few else CommonScale.between(values[measured], similarity[measured]))
        if usable.sum() < FEWEST_IMAGES:
            return None
        self.layout_scale = CommonScale.between(alike[usable], similarity[usable])
        return CommonScale.between(closeness[usable], similarity[usable])

    def _identity(self, queries: Pixels, patients: NDArray[np.int64] | None) -> str:
        parts: list[Retriever | Reranker] = [*self.retrievers, self.reranker]
        settings: list[Any] = [[type(part).__name__, _described(part)] for part in parts]
        settings += ["colours", COLOURS] if queries.shape[1] == 3 else []
        arrays = [self.gallery.pixels, self.gallery.patients, queries]
        arrays += [] if patients is None else [patients]
        # What an encoder made of the gallery stands for its weights.
        arrays += [one.vectors.cpu().numpy() for one in self.retrievers if isinstance(one, EmbeddingRetriever)]
        return fingerprint("matches", [VERSION, settings, self.scale is None, self.runner.seed], arrays)


def _described(part: Retriever | Reranker) -> Any:
    """What decides the results of a part.

    Raises:
        ValueError: a part of others that does not say so; what was kept of another one would be taken for its own.
    """
    own = getattr(part, "identity", None)
    if callable(own):
        return own()
    if not type(part).__module__.startswith("monai_memo."):
        raise ValueError(
            f"{type(part).__name__} has no method identity(), so that matches kept of another one could be taken for "
            "its own: let it return what decides its results (numbers, text, lists of these), or search without store"
        )
    return sorted(_plain(part).items())


def _plain(part: Retriever | Reranker) -> dict[str, bool | int | float | str]:
    return {name: value for name, value in vars(part).items() if isinstance(value, bool | int | float | str)}


def _save(store: str | Path, found: Matches, identity: str) -> None:
    arrays: dict[str, Any] = found.arrays()
    write_sealed(store, lambda temporary: np.savez(temporary, **arrays), identity)


def _stored(store: str | Path | None, identity: str) -> Matches | None:
    if store is None or not is_sealed(store, identity):
        return None
    with np.load(store, allow_pickle=False) as found:
        return Matches.of(found)

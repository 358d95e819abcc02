# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What a search found: for each query the candidates that were registered and scored, best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.registration.lncc import combine

NOT_SCORED = -1.0
LARGEST = 1 - 1e-6
NAMES = ("candidates", "similarity", "transforms", "profiles", "whole_image", "lead", "inverted")


@dataclass(frozen=True)
class Matches:
    """Scored candidates of ``n`` queries, best first.

    Attributes:
        candidates: ``(n, r)`` index of the training image; -1 where a query has fewer candidates.
        similarity: ``(n, r)`` what counts, -1 to 1 (see ``with_further``); -1 where there is no candidate.
        transforms: ``(n, r, dims, dims + 1)`` affine, see ``registration.affine``.
        profiles: ``(n, r, bands)`` agreement in each frequency band, finest first.
        whole_image: ``(n, r)`` similarity of the whole images (``score_norm``); -1 where it was not measured.
        lead: ``(n, r)`` how far a candidate agrees better than the others do (``score_norm``), on the same scale; -1
            where it was not measured.
        inverted: ``(n, r)`` whether black and white are exchanged.
    """

    candidates: NDArray[np.int64]
    similarity: NDArray[np.float64]
    transforms: NDArray[np.float32]
    profiles: NDArray[np.float32]
    whole_image: NDArray[np.float64]
    lead: NDArray[np.float64]
    inverted: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.candidates)

    def rows(self, chosen: NDArray[np.int64] | slice) -> Matches:
        """Some of the queries."""
        return Matches(*(getattr(self, name)[chosen] for name in NAMES))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All of it by name, for a file."""
        return {name: getattr(self, name) for name in NAMES}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Matches:
        """From what ``arrays`` gave."""
        return cls(
            arrays["candidates"].astype(np.int64, copy=False),
            arrays["similarity"].astype(np.float64, copy=False),
            arrays["transforms"].astype(np.float32, copy=False),
            arrays["profiles"].astype(np.float32, copy=False),
            arrays["whole_image"].astype(np.float64, copy=False),
            arrays["lead"].astype(np.float64, copy=False),
            arrays["inverted"].astype(np.bool_, copy=False),
        )

    @classmethod
    def concat(cls, parts: Sequence[Matches]) -> Matches:
        """Matches of several blocks or shards of queries, one after the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in NAMES))

    @classmethod
    def empty(cls, n: int, refined: int, dims: int, bands: int) -> Matches:
        """``n`` queries without any candidate."""
        return cls(
            np.full((n, refined), -1, dtype=np.int64),
            np.full((n, refined), NOT_SCORED),
            np.zeros((n, refined, dims, dims + 1), dtype=np.float32),
            np.zeros((n, refined, bands), dtype=np.float32),
            np.full((n, refined), NOT_SCORED),
            np.full((n, refined), NOT_SCORED),
            np.zeros((n, refined), dtype=bool),
        )

    def by_places(self) -> NDArray[np.float64]:
        """``(n,)`` agreement of each query with its best candidate place by place, in all frequency bands."""
        agreement: NDArray[np.float64] = combine(torch.from_numpy(self.profiles[:, 0])).double().numpy()
        return agreement

    def with_further(self, whole_image: NDArray[np.float64], lead: NDArray[np.float64], middle: float) -> Matches:
        """What counts from all that was measured, and the candidates in its order.

        How well a candidate agrees (by places, or as a whole) and how far it is ahead of the others are two questions.
        Where both answers are above the middle of other patients they add up, as two deviations do: the root of the
        sum of squares on Fisher's scale. Copies that are altered much are a little above it by both, other patients
        rarely.

        Args:
            whole_image, lead: ``(n, r)`` on the scale of ``similarity``.
            middle: the middle of that scale, of images looked up among other patients (Fisher's scale).
        """
        agreement = np.maximum(self.similarity, whole_image)
        above = [np.arctanh(one.clip(-LARGEST, LARGEST)) - middle for one in (agreement, lead)]
        both = np.tanh(middle + np.hypot(*(part.clip(min=0) for part in above)))
        greater = np.maximum(agreement, lead)  # counts where neither is above the middle
        similarity = np.where(np.maximum(*above) > 0, np.maximum(both, greater), greater)
        return replace(self, similarity=similarity, whole_image=whole_image, lead=lead).in_order()

    def in_order(self) -> Matches:
        """Best candidates first."""
        order = np.argsort(-self.similarity, axis=1, kind="stable")
        rows = np.arange(len(self))[:, None]
        return Matches(*(getattr(self, name)[rows, order] for name in NAMES))

    @classmethod
    def best_of(cls, parts: Sequence[Matches]) -> Matches:
        """Several look-ups of the same queries (turned, or in parts of a gallery): each image once, at its best.

        Args:
            parts: equally many queries each.
        """
        whole = {name: np.concatenate([getattr(one, name) for one in parts], axis=1) for name in NAMES}
        order = np.argsort(-whole["similarity"], axis=1, kind="stable")
        rows = np.arange(len(order))[:, None]
        whole = {name: values[rows, order] for name, values in whole.items()}
        for row, candidates in enumerate(whole["candidates"]):
            _, first = np.unique(candidates, return_index=True)
            again = np.ones(len(candidates), dtype=bool)
            again[first] = False
            whole["candidates"][row, again] = -1
            whole["similarity"][row, again] = NOT_SCORED
        order = np.argsort(whole["candidates"] < 0, axis=1, kind="stable")  # the most similar stay in front
        return cls(*(whole[name][rows, order] for name in NAMES))

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Candidates with the transform that brings each of them onto its query, from retrievers that know one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Placed:
    """Candidates of ``n`` queries with where they lie.

    Attributes:
        candidates: ``(n, k)`` index of the training image, -1 where there is none; each image once.
        transforms: ``(n, k, dims, dims + 1)`` see ``registration.affine``.
        votes: ``(n, k)`` how much speaks for the transform (keypoints of the query that agree on it, a place once).
        inverted: ``(n, k)`` whether black and white are exchanged.
        places: ``(n, k, most, dims)`` keypoints of the query, last axis first, from the centre in half lengths of the
            longest axis; ``most`` is 0 where a retriever has none.
        agreeing: ``(n, k, most)`` which of them agree on the transform.
    """

    candidates: Tensor
    transforms: Tensor
    votes: Tensor
    inverted: Tensor
    places: Tensor
    agreeing: Tensor

    @classmethod
    def together(cls, parts: Sequence[Placed]) -> Placed | None:
        """What several retrievers found, without keypoints; an image that several found stands at its first place."""
        if not parts:
            return None
        if len(parts) == 1:
            return parts[0]
        names = ("candidates", "transforms", "votes", "inverted")
        candidates, transforms, votes, inverted = (torch.cat([getattr(one, n) for one in parts], dim=1) for n in names)
        again = (candidates[:, :, None] == candidates[:, None, :]).tril(-1).any(dim=2)
        none = candidates.new_zeros(*candidates.shape, 0)
        return cls(torch.where(again, -1, candidates), transforms, votes, inverted, none, none.bool())

    def among(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Where the candidates stand in another list.

        Args:
            candidates: ``(n, m)``.

        Returns:
            ``(n, k)`` places in it, and whether they stand there at all.
        """
        same = (self.candidates[:, :, None] == candidates[:, None, :]) & (self.candidates >= 0)[:, :, None]
        return same.long().argmax(dim=2), same.any(dim=2)

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Which pair a rater sees next."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.tasks.strategy import Strategy

from monai_memo.errors import ConfigurationError
from monai_memo.label.ratings import checked_rater
from monai_memo.label.server.datastore import ReviewDatastore


class _NextUnrated(Strategy):
    """The first pair of a list that the rater has not rated."""

    name = ""

    def __call__(self, request: dict[str, Any], datastore: ReviewDatastore) -> dict[str, Any] | None:
        """Answers ``id`` and nothing that depends on the similarity; None when all pairs are rated.

        Args:
            request: ``rater`` (or ``client_id``, as MONAI Label's clients send it).
        """
        try:
            rater = checked_rater(request.get("rater") or request.get("client_id"))
        except ConfigurationError as error:
            raise HTTPException(400, str(error)) from error
        pair_ids = datastore.pairs_for(rater, self.name)
        rated = datastore.rated_by(rater, pair_ids)
        left = [pair_id for pair_id in pair_ids if pair_id not in rated]
        return {"id": left[0]} if left else None


class Blinded(_NextUnrated):
    """The sample over the whole range of similarities, in a random order of the rater's own."""

    name = "blinded"

    def __init__(self) -> None:
        super().__init__("Pairs over the whole range of similarities, in random order")


class Uncertain(_NextUnrated):
    """Further pairs, those whose similarity is closest to the threshold first. They do not enter the estimates."""

    name = "uncertain"

    def __init__(self) -> None:
        super().__init__("Further pairs that the detector is least sure about")

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Which pair a rater sees next."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.tasks.strategy import Strategy

from monai_memo.errors import ConfigurationError
from monai_memo.label.names import checked_rater
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
        left = datastore.store.waiting(rater, self.name)
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


class Adjudication(_NextUnrated):
    """Pairs on which raters differ, while nobody has settled them."""

    name = "adjudication"

    def __init__(self) -> None:
        super().__init__("Pairs on which raters differ who have rated all pairs")

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The ratings of one review as servers need them: who sees which pair next, and how a rating is stored.

Both servers, ours and MONAI Label's, go through this, so that a review begun with one goes on with the other.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import EllipsisType
from typing import Any

from filelock import FileLock

from monai_memo.errors import ConfigurationError
from monai_memo.label.analysis import Analysis
from monai_memo.label.names import rater_key
from monai_memo.label.prepare import DATASTORE, FINAL
from monai_memo.label.ratings import (
    ADJUDICATION,
    UNDO,
    DamagedRatingsError,
    Entry,
    all_ratings,
    append_entry,
    new_entry,
    read_entries,
    settled,
    standing,
)
from monai_memo.label.study import Study, order_for

logger = logging.getLogger(__name__)

LOCK = ".lock"  # MONAI Label's own
LEFT_OUT = "left out while the server runs"


class UnknownPairError(ConfigurationError):
    """No pair of this id is shown."""


class RatingStore:
    """Ratings of the pairs of a study, one file for each pair.

    A pair whose file of ratings is damaged is left out, as if it could not be shown, until the file is mended: raters
    go on with the others. Its file is named in the log, once.

    Args:
        review: folder of the review.
        study: its plan.
        confidence: of intervals.
        told: is called with the id of a pair after each rating.
    """

    def __init__(
        self, review: Path, study: Study, confidence: float = 0.95, told: Callable[[str], None] | None = None
    ) -> None:
        self.study, self.confidence = study, confidence
        self.folder = review / FINAL
        self.told = told
        self.lock_file = review / DATASTORE / LOCK
        self._shown = {pair.pair_id for pair in study.pairs if not pair.missing}
        self._unreadable: set[str] = set()
        self._named: dict[str, str] = {}
        self._naming = threading.Lock()

    def history(self, pair_ids: Iterable[str] | None = None) -> dict[str, list[Entry]]:
        """Entries of each pair; none of a pair whose file is damaged."""
        return self._read(pair_ids)[0]

    def _read(self, pair_ids: Iterable[str] | None = None) -> tuple[dict[str, list[Entry]], set[str]]:
        """Entries of each pair, and the pairs that are left out."""
        damaged: dict[str, DamagedRatingsError] = {}
        history = all_ratings(self.folder, self.study.by_id if pair_ids is None else pair_ids, damaged)
        with self._naming:
            for pair_id, error in damaged.items():
                if self._named.get(pair_id) != str(error):
                    logger.error("%s\nUntil then the pair is left out, and raters go on with the others.", error)
                self._named[pair_id] = str(error)
            for pair_id in set(self._named) & set(history) - set(damaged):
                del self._named[pair_id]
        return history, (set(damaged) | self._unreadable) & self._shown

    def remove_leftovers(self) -> None:
        """Remove what a writer that was killed has left; whoever writes now holds the lock."""
        with FileLock(self.lock_file):
            for path in self.folder.glob(".*.json"):
                path.unlink(missing_ok=True)

    def leave_out(self, pair_id: str) -> None:
        """Show this pair no more while the server runs: its images cannot be read."""
        self._unreadable.add(pair_id)

    def left_out(self) -> int:
        """How many pairs nobody can rate now, since their files are damaged."""
        return len(self._read()[1])

    def entries(self, pair_id: str) -> list[Entry]:
        """Entries of one pair, oldest first."""
        return read_entries(self.folder / f"{pair_id}.json")

    def analysis(self) -> Analysis:
        """Of the ratings as they are now, without the pairs that are left out."""
        history, left_out = self._read()
        pairs = tuple(
            replace(pair, missing=LEFT_OUT) if pair.pair_id in left_out else pair for pair in self.study.pairs
        )
        return Analysis(replace(self.study, pairs=pairs), history, self.confidence)

    def rate(self, pair_id: Any, params: Mapping[str, Any]) -> Entry:
        """Add one rating, or an undo, atomically.

        Args:
            params: see ``new_entry``; and ``replaces``, the time of the rating that this one takes the place of. A
                rating without it is the first one of its rater; an undo without it withdraws whatever stands.

        Raises:
            UnknownPairError: no such pair.
            RatedMeanwhileError: the rater has rated the pair already, or what was to be replaced stands no more.
            ConfigurationError: a rating that cannot be; or one that settles a pair on which nobody differs.
            DamagedRatingsError: the pair's file holds no ratings.
        """
        if not isinstance(pair_id, str) or pair_id not in self._shown:
            raise UnknownPairError("no such pair")
        entry = new_entry(params)
        known = checked_replaces(params, ... if entry.rating == UNDO else None)
        with FileLock(self.lock_file):
            if entry.settles and entry.rating != UNDO and pair_id not in self.disputed():
                raise ConfigurationError(
                    "this pair cannot be settled: no two raters who have rated all pairs differ on it"
                )
            append_entry(self.folder / f"{pair_id}.json", entry, known)
        if self.told is not None:
            self.told(pair_id)
        return entry

    def disputed(self) -> list[str]:
        """Pairs to be settled: those on which raters differ who have rated the whole sample.

        While a rater goes on, which of the pairs so far others see differently would tell what they said.
        """
        analysis = self.analysis()
        return analysis.disputed(analysis.finished)

    def pairs_for(self, rater: str, strategy: str) -> list[str]:
        """Pairs that a strategy serves to a rater, in order."""
        if strategy == ADJUDICATION:
            return sorted(self.disputed(), key=lambda pair_id: self._place(rater, pair_id))
        if strategy == "uncertain":
            return [pair.pair_id for pair in self.study.uncertain]
        return order_for(self.study, rater)

    def _place(self, rater: str, pair_id: str) -> str:
        """An order of the rater's own that stays when pairs come and go."""
        return hashlib.sha256(f"{self.study.seed} {rater_key(rater)} {pair_id}".encode()).hexdigest()

    def rated_by(self, rater: str, pair_ids: Iterable[str], strategy: str = "blinded") -> dict[str, Entry]:
        """The pairs among these that the rater has rated; that anybody has settled, with ``"adjudication"``."""
        found = {
            pair_id: settled(entries) if strategy == ADJUDICATION else standing(entries, rater)
            for pair_id, entries in self.history(pair_ids).items()
        }
        return {pair_id: entry for pair_id, entry in found.items() if entry is not None}

    def waiting(self, rater: str, strategy: str) -> list[str]:
        """Pairs that the rater has still to rate, in order."""
        pair_ids = self._that_can_be_rated(rater, strategy)
        rated = self.rated_by(rater, pair_ids, strategy)
        return [pair_id for pair_id in pair_ids if pair_id not in rated]

    def _that_can_be_rated(self, rater: str, strategy: str) -> list[str]:
        # The order is that of all pairs: it stays when a file is mended.
        pair_ids = self.pairs_for(rater, strategy)
        left_out = self._read(pair_ids)[1]
        return [pair_id for pair_id in pair_ids if pair_id not in left_out]

    def progress(self, rater: str, strategy: str = "blinded") -> dict[str, Any]:
        """How far a rater is with the pairs of a strategy, and the latest pair, which can be undone.

        ``last_time`` is when it was rated; an undo that names it takes back this rating and no later one.
        """
        pair_ids = self._that_can_be_rated(rater, strategy)
        rated = self.rated_by(rater, pair_ids, strategy)
        own = {pair_id: entry for pair_id, entry in rated.items() if rater_key(entry.rater) == rater_key(rater)}
        last = max(own, key=lambda pair_id: own[pair_id].time) if own else None
        return {
            "rated": len(rated),
            "total": len(pair_ids),
            "last": last,
            "last_time": None if last is None else own[last].time,
        }

    def everybody_finished(self) -> bool:
        """Whether somebody has rated, and everybody who has has rated the whole sample."""
        analysis = self.analysis()
        return bool(analysis.raters) and analysis.finished == analysis.raters

    def summary(self) -> dict[str, Any]:
        """How far raters agree, for the first page: of those alone who have rated the whole sample.

        Numbers over all pairs and no pair: with raters who still rate, a change would tell what others said of the
        pair between.
        """
        analysis = self.analysis()
        finished = analysis.finished
        disputed = analysis.disputed(finished)
        found = analysis.agreement(finished, quick=True)
        sampled = {pair.pair_id for pair in analysis.study.sample}
        rows = [
            {
                "raters": two["raters"],
                "pairs": len(sampled),
                "same": len(sampled - set(analysis.disputed(two["raters"]))),
                "kappa_two": two["kappa"],
                "kappa_four": four["kappa"],
            }
            for two, four in zip(found["two"]["cohen"], found["four"]["cohen"], strict=True)
        ]
        return {
            "finished": len(finished),
            "under_way": len(analysis.raters) - len(finished),
            "agreement": rows,
            "disputed": len(disputed),
            "open": sum(settled(analysis.history[pair_id]) is None for pair_id in disputed),
        }


def checked_replaces(params: Mapping[str, Any], default: EllipsisType | None) -> str | EllipsisType | None:
    """Time of the rating that a client says it replaces.

    Raises:
        ConfigurationError: anything but a text or null.
    """
    found = params.get("replaces", default)
    if found is not None and found is not ... and not isinstance(found, str):
        raise ConfigurationError(f"replaces must be the time of an earlier rating, or null, got {str(found)[:60]!r}")
    return found

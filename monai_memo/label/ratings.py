# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Ratings: one file for each pair, to which entries are only ever added.

The files are MONAI Label's labels with the tag ``final``, whichever server writes them. A new opinion of a rater and
its withdrawal are further entries, so that what was rated when can be followed to the end. Where raters differ,
somebody settles the pair: an entry with the strategy ``adjudication``, which stands beside the ratings and replaces
none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.files import write_json

RATINGS = ("copy", "same_patient", "novel", "unsure")
UNDO = "undo"
ADJUDICATION = "adjudication"
STRATEGIES = ("blinded", "uncertain", ADJUDICATION)
RATER = re.compile(r"\w(?:[\w .@+-]{0,38}\w)?")


@dataclass(frozen=True)
class Entry:
    """One line in the history of a pair.

    Attributes:
        rating: one of ``RATINGS``, or ``"undo"``, which withdraws the rater's latest standing rating of the pair.
        rater: name or pseudonym.
        time: UTC, ISO 8601.
        strategy: that served the pair; ``"adjudication"`` if the entry settles a disagreement.
        seconds: that the pair was looked at, where the client tells.
        evidence: whether the difference map was looked at before.
    """

    rating: str
    rater: str
    time: str
    strategy: str = "blinded"
    seconds: float | None = None
    evidence: bool = False

    @property
    def settles(self) -> bool:
        return self.strategy == ADJUDICATION


def new_entry(params: Mapping[str, Any]) -> Entry:
    """An entry of now, from what a client sent.

    Args:
        params: ``rating``, ``rater``, and where known ``strategy``, ``seconds``, ``evidence``.

    Raises:
        ConfigurationError: a missing or impossible value; the message names it and what is allowed.
    """
    rating, rater = params.get("rating"), params.get("rater")
    if rating not in (*RATINGS, UNDO):
        raise ConfigurationError(f"rating must be one of {', '.join((*RATINGS, UNDO))}, got {str(rating)[:60]!r}")
    strategy = checked_strategy(params.get("strategy", STRATEGIES[0]))
    seconds = params.get("seconds")
    if seconds is not None and (
        isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 1e6
    ):
        raise ConfigurationError(f"seconds must be a number from 0 to 1,000,000, got {str(seconds)[:60]!r}")
    return Entry(
        rating=str(rating),
        rater=checked_rater(rater),
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        strategy=strategy,
        seconds=None if seconds is None else round(float(seconds), 2),
        evidence=params.get("evidence") is True,
    )


def checked_rater(rater: Any) -> str:
    """The rater's name without blanks around it.

    Raises:
        ConfigurationError: no name, or one with other than letters, digits and ``. @ + - _``.
    """
    name = rater.strip() if isinstance(rater, str) else ""
    if not RATER.fullmatch(name):
        raise ConfigurationError(
            f"rater must be a name of 1 to 40 letters, digits, blanks or . @ + - _, got {str(rater)[:60]!r}"
        )
    return name


def checked_strategy(strategy: Any) -> str:
    """One of ``STRATEGIES``.

    Raises:
        ConfigurationError: anything else.
    """
    if strategy not in STRATEGIES:
        raise ConfigurationError(f"strategy must be one of {', '.join(STRATEGIES)}, got {str(strategy)[:60]!r}")
    return str(strategy)


def read_entries(path: str | Path) -> list[Entry]:
    """All entries of one pair, oldest first; none if nobody has rated it.

    Raises:
        MemoError: the file is no list of ratings.
    """
    try:
        return [Entry(**entry) for entry in json.loads(Path(path).read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise MemoError(f"{path} holds no ratings: {error}. Restore it from a backup, or move it away.") from error


def append_entry(path: str | Path, entry: Entry) -> list[Entry]:
    """Add one entry, atomically, and return all. Writers have to take turns (the datastore's lock)."""
    entries = [*read_entries(path), entry]
    if entry.rating == UNDO and not standing(entries[:-1], entry.rater, entry.settles):
        raise ConfigurationError(f"{entry.rater} has no rating of this pair to undo")
    write_json(path, [asdict(item) for item in entries])
    return entries


def standing(entries: Sequence[Entry], rater: str, settling: bool = False) -> Entry | None:
    """The rater's rating that counts: the latest that was not withdrawn.

    Args:
        settling: of the entries that settle a disagreement, instead of the rater's own ratings.

    Example:
        >>> history = [Entry(rating, "anna", "") for rating in ("novel", "copy", "undo")]
        >>> standing(history, "anna").rating
        'novel'
    """
    stack: list[Entry] = []
    for entry in entries:
        if entry.rater.casefold() != rater.casefold() or entry.settles != settling:
            continue
        if entry.rating != UNDO:
            stack.append(entry)
        elif stack:
            stack.pop()
    return stack[-1] if stack else None


def standing_by_rater(entries: Sequence[Entry]) -> dict[str, Entry]:
    """The rating that counts of each rater, by the name as first written. What settles a disagreement is left out."""
    return _standing_of_each(entries, settling=False)


def settled(entries: Sequence[Entry]) -> Entry | None:
    """The entry that settles a disagreement: the latest that was not withdrawn, whoever made it.

    Example:
        >>> history = [Entry("copy", "anna", ""), Entry("novel", "bert", ""), Entry("copy", "eva", "", ADJUDICATION)]
        >>> settled(history).rater, sorted(standing_by_rater(history))
        ('eva', ['anna', 'bert'])
    """
    found = list(_standing_of_each(entries, settling=True).values())
    return max(found, key=lambda entry: next(i for i, other in enumerate(entries) if other is entry), default=None)


def _standing_of_each(entries: Sequence[Entry], settling: bool) -> dict[str, Entry]:
    names: dict[str, str] = {}
    for entry in entries:
        names.setdefault(entry.rater.casefold(), entry.rater)
    found = {name: standing(entries, name, settling) for name in names.values()}
    return {name: entry for name, entry in found.items() if entry is not None}


def all_ratings(folder: str | Path, pair_ids: Iterable[str]) -> dict[str, list[Entry]]:
    """Entries of each pair, read from the datastore's folder of final labels."""
    return {pair_id: read_entries(Path(folder) / f"{pair_id}.json") for pair_id in pair_ids}

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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import EllipsisType
from typing import Any

from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.files import write_json
from monai_memo.label.names import checked_rater, rater_key

RATINGS = ("copy", "same_patient", "novel", "unsure")
UNDO = "undo"
ADJUDICATION = "adjudication"
STRATEGIES = ("blinded", "uncertain", ADJUDICATION)
LONGEST_LOOK = 1e6  # seconds


class DamagedRatingsError(MemoError):
    """A file that should hold the ratings of a pair does not."""


class RatedMeanwhileError(ConfigurationError):
    """A rating would take the place of one that whoever sends it does not know of."""


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
    rating, seconds = checked_rating(params.get("rating")), checked_seconds(params.get("seconds"))
    strategy = checked_strategy(params.get("strategy", STRATEGIES[0]))
    return Entry(
        rating=rating,
        rater=checked_rater(params.get("rater")),
        time=datetime.now(UTC).isoformat(timespec="microseconds"),
        strategy=strategy,
        seconds=None if seconds is None else round(seconds, 2),
        evidence=params.get("evidence") is True,
    )


def checked_rating(rating: Any) -> str:
    """One of ``RATINGS``, or ``"undo"``.

    Raises:
        ConfigurationError: anything else.
    """
    if rating not in (*RATINGS, UNDO):
        raise ConfigurationError(f"rating must be one of {', '.join((*RATINGS, UNDO))}, got {str(rating)[:60]!r}")
    return str(rating)


def checked_seconds(seconds: Any) -> float | None:
    """How long a pair was looked at; None where nobody tells.

    Raises:
        ConfigurationError: no number, or an impossible one.
    """
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_LOOK:
        raise ConfigurationError(f"seconds must be a number from 0 to 1,000,000, got {str(seconds)[:60]!r}")
    return float(seconds)


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
        DamagedRatingsError: the file is no list of ratings.
    """
    try:
        return _entries(json.loads(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DamagedRatingsError(f"cannot read the ratings in {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError, ConfigurationError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DamagedRatingsError(
            f"{path} holds no ratings: {reason}. Restore it from a backup; or move it away, and the pair is rated anew."
        ) from error


def _entries(record: Any) -> list[Entry]:
    """Entries as they are stored; whoever changed a file by hand is told where.

    Raises:
        ValueError, ConfigurationError: not what this module writes.
    """
    if not isinstance(record, list):
        raise ValueError(f"a list of entries is expected, not {type(record).__name__}")
    return [_entry(number, item) for number, item in enumerate(record, 1)]


def _entry(number: int, item: Any) -> Entry:
    known = [field.name for field in fields(Entry)]
    if not isinstance(item, dict) or not set(known[:3]) <= set(item) <= set(known):
        raise ValueError(f"entry {number} must have rating, rater and time, and of others only {', '.join(known[3:])}")
    # A name that was taken once stays, also where the rules for names have become stricter since.
    for name in ("rater", "time"):
        if not isinstance(item[name], str) or not item[name]:
            raise ValueError(f"{name} of entry {number} must be text")
    checked_rating(item["rating"])
    checked_strategy(item.get("strategy", STRATEGIES[0]))
    checked_seconds(item.get("seconds"))
    if not isinstance(item.get("evidence", False), bool):
        raise ValueError(f"evidence of entry {number} must be true or false")
    return Entry(**item)


def append_entry(path: str | Path, entry: Entry, replaces: str | EllipsisType | None = ...) -> list[Entry]:
    """Add one entry, atomically, and return all. Writers have to take turns (the datastore's lock).

    Args:
        replaces: time of the rating that it takes the place of, or that it withdraws; None if there should be none;
            ``...`` whatever stands there.

    Raises:
        RatedMeanwhileError: another rating stands there. Nothing is written.
        ConfigurationError: there is nothing to undo.
        DamagedRatingsError: the file holds no ratings; it is left as it is.
    """
    entries = read_entries(path)
    own = standing(entries, entry.rater, entry.settles)
    # A pair is settled once, whoever does it.
    there = settled(entries) if entry.settles and entry.rating != UNDO else own
    if replaces is not ... and (None if there is None else there.time) != replaces:
        raise RatedMeanwhileError(_meanwhile(entry, there))
    if entry.rating == UNDO and own is None:
        raise ConfigurationError(f"{entry.rater} has no rating of this pair to undo")
    entries.append(entry)
    write_json(path, [asdict(item) for item in entries])
    return entries


def _meanwhile(entry: Entry, there: Entry | None) -> str:
    if there is None:
        return "the rating of this pair was taken back meanwhile, perhaps in another window; nothing was changed"
    if entry.rating == UNDO:
        return "this pair was rated anew meanwhile, perhaps in another window; nothing was taken back"
    if entry.settles:
        return "this pair was settled meanwhile; that stays, and nothing was changed"
    return (
        f"{entry.rater} has rated this pair already, perhaps in another window; that rating stays. To change it, "
        "take it back first (undo)"
    )


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
    key = rater_key(rater)
    for entry in entries:
        if rater_key(entry.rater) != key or entry.settles != settling:
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
        names.setdefault(rater_key(entry.rater), entry.rater)
    found = {name: standing(entries, name, settling) for name in names.values()}
    return {name: entry for name, entry in found.items() if entry is not None}


def all_ratings(
    folder: str | Path, pair_ids: Iterable[str], damaged: dict[str, DamagedRatingsError] | None = None
) -> dict[str, list[Entry]]:
    """Entries of each pair, read from the datastore's folder of final labels.

    Args:
        damaged: where to put what cannot be read, by pair, instead of raising it; those pairs have no entries then.

    Raises:
        DamagedRatingsError: names every file that holds no ratings.
    """
    found: dict[str, list[Entry]] = {}
    broken: dict[str, DamagedRatingsError] = {}
    for pair_id in pair_ids:
        try:
            found[pair_id] = read_entries(Path(folder) / f"{pair_id}.json")
        except DamagedRatingsError as error:
            broken[pair_id], found[pair_id] = error, []
    if damaged is not None:
        damaged.update(broken)
    elif broken:
        raise DamagedRatingsError("\n".join(map(str, broken.values())))
    return found

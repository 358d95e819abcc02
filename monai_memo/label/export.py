# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Ratings as a table: ``monai-memo review-export``, and the download on the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.files import csv_text, write_text
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.label.names import rater_key
from monai_memo.label.prepare import FINAL, open_study
from monai_memo.label.ratings import Entry, all_ratings, settled, standing_by_rater
from monai_memo.label.settings import ReviewExportSettings
from monai_memo.label.study import Study
from monai_memo.text import cell

HEAD = ("pair", "part", "rater", "step", "rating", "time", "seconds", "difference_map")
OF_THE_AUDIT = ("synthetic", "training", "similarity", "detector")
BEHIND_SERVERS, FOR_OTHERS, FOR_US = "page", "redacted", "named"


def standing_entries(entries: Sequence[Entry]) -> list[Entry]:
    """What counts of a pair: the rating of each rater, then what settled it."""
    last = settled(entries)
    return [*standing_by_rater(entries).values(), *([last] if last is not None else [])]


def numbered(history: Mapping[str, Sequence[Entry]]) -> dict[str, str]:
    """``rater 1``, ``rater 2``, ... for each name, however it is written; those who only settle pairs come last."""
    rated = [entry for entries in history.values() for entry in standing_entries(entries)]
    names = {rater_key(entry.rater) for entry in rated if not entry.settles}
    settlers = {rater_key(entry.rater) for entry in rated} - names
    return {name: f"rater {number}" for number, name in enumerate([*sorted(names), *sorted(settlers)], 1)}


def rating_table(study: Study, history: Mapping[str, Sequence[Entry]], kind: str) -> str:
    """CSV with a row for each rating that counts.

    Args:
        kind: ``"named"``: everything. ``"redacted"``: raters and pairs are numbered, and no image is named.
            ``"page"``: without images and similarities.
    """
    further = {BEHIND_SERVERS: (), FOR_OTHERS: OF_THE_AUDIT[2:], FOR_US: OF_THE_AUDIT}[kind]
    return csv_text([*HEAD, *further], _rows(study, history, kind == FOR_OTHERS))


def _rows(study: Study, history: Mapping[str, Sequence[Entry]], pseudonymous: bool) -> Iterator[dict[str, Any]]:
    numbers = numbered(history)
    number = 0
    for pair in study.pairs:
        entries = standing_entries(history.get(pair.pair_id, ()))
        number += bool(entries)
        for entry in entries:
            yield {
                "pair": number if pseudonymous else pair.pair_id,
                "part": "sample" if pair.sampled else "near_tau",
                "rater": numbers[rater_key(entry.rater)] if pseudonymous else cell(entry.rater),
                "step": "settles" if entry.settles else "rates",
                "rating": entry.rating,
                "time": entry.time,
                "seconds": "" if entry.seconds is None else entry.seconds,
                "difference_map": str(entry.evidence).lower(),
                "synthetic": cell(pair.synthetic),
                "training": cell(pair.training),
                "similarity": pair.similarity,
                "detector": "copy" if pair.copy else "no copy",
            }


def review_export(audit: str | Path, **options: Any) -> tuple[Path, int]:
    """Write the ratings of a review as CSV; return its path and the number of ratings.

    Args:
        audit, options: see ``ReviewExportSettings``.

    Raises:
        MemoError: no review, or no ratings yet.
        ConfigurationError: ``out`` is there and is no such table.
    """
    settings = ReviewExportSettings(audit=str(audit), **options)
    folder = AuditFolder(Path(settings.audit))
    out = Path(settings.out)
    if out.is_dir() or (out.is_file() and not _is_ours(out)):
        raise ConfigurationError(f"out {out} is there already and is no table of ratings: name another file")
    study = open_study(folder)
    history = all_ratings(folder.review / FINAL, study.by_id)
    redacted = settings.redacted or folder.result.redacted
    text = rating_table(study, history, FOR_OTHERS if redacted else FOR_US)
    rows = text.count("\n") - 1
    if not rows:
        raise MemoError(f"nobody has rated a pair of {folder.folder} yet")
    return write_text(out, text), rows


def _is_ours(path: Path) -> bool:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.readline().startswith(",".join(HEAD))

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What the review page asks a server, and the answers. The same for our own server and for MONAI Label's.

No answer holds a similarity, the name of an image, or a path; what others have rated is told only when everybody who
began has finished, and then without images.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.label.export import BEHIND_SERVERS, rating_table
from monai_memo.label.forms import checked_json
from monai_memo.label.names import checked_rater
from monai_memo.label.native import (
    FIGURES,
    LEVELS,
    LOWEST,
    MOST_VALUE,
    NativePair,
    as_bytes,
    read_told,
    require_whole,
    unpacked,
)
from monai_memo.label.pairs import ENDING
from monai_memo.label.pictures import stored_pair
from monai_memo.label.prepare import DATASTORE, IMAGES
from monai_memo.label.ratings import ADJUDICATION, DamagedRatingsError, RatedMeanwhileError, checked_strategy
from monai_memo.label.store import RatingStore, UnknownPairError

logger = logging.getLogger(__name__)

# By name, so that no path of a request ever meets the disk.
FILES = {
    "review.js": "text/javascript; charset=utf-8",
    "viewer.js": "text/javascript; charset=utf-8",
    "planes.js": "text/javascript; charset=utf-8",
    "review.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
HTML, JSON, TABLE = "text/html; charset=utf-8", "application/json", "text/csv; charset=utf-8"
FIGURE_TYPE = "application/octet-stream"
RATING_FIELDS = ("pair", "rating", "rater", "strategy", "seconds", "evidence", "replaces")

DAMAGED = (
    "The file with the ratings of this pair is damaged. Nothing was stored and nothing was overwritten; go on with the "
    "other pairs. Tell whoever runs the server: its window names the file, which a backup restores."
)
UNREADABLE = (
    "The images of this pair cannot be read. It is left out until the server is started again; go on with the other "
    "pairs. Tell whoever runs the server: its window names the file."
)


@dataclass(frozen=True)
class Answer:
    """Of a server to a request.

    Attributes:
        headers: beside the type and those of ``access.HEADERS``.
    """

    status: int
    kind: str
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Any, status: int = 200) -> Answer:
        """JSON. Half a pair of UTF-16, which a client may have sent, goes back as the escape that JSON has for it."""
        return cls(status, JSON, json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace"))

    @classmethod
    def refusal(cls, status: int, reason: str) -> Answer:
        """Why not, in the form in which MONAI Label says it."""
        return cls.of({"detail": reason}, status)


class Desk:
    """Answers the review page.

    Args:
        review: folder of the review.
        store: its ratings.
        blind: tell nothing of others' ratings before everybody who began has finished.
    """

    def __init__(self, review: Path, store: RatingStore, blind: bool = True) -> None:
        self.review, self.store, self.blind = review, store, blind
        self._gets: dict[str, Callable[[dict[str, str]], Answer]] = {
            "progress": self._progress,
            "next": self._next,
            "pair": self._pair,
            "pixels": self._pixels,
            "agreement": self._agreement,
            "ratings.csv": self._table,
        }

    def answer(self, method: str, name: str, query: str, content_type: str = "", body: bytes = b"") -> Answer:
        """Answer ``/review/NAME``.

        Args:
            query: what follows the question mark, as it was sent.
        """
        try:
            if method == "POST":
                return self._rate(content_type, body) if name == "rating" else _nothing()
            if name in ("", "index.html"):
                return Answer(200, HTML, _page_file("index.html"))
            if name in FILES:
                return Answer(200, FILES[name], _page_file(name))
            if name in self._gets:
                return self._gets[name](_single(query))
            return _nothing()
        except UnknownPairError as error:
            return Answer.refusal(404, str(error))
        except RatedMeanwhileError as error:
            return Answer.refusal(409, str(error))
        except ConfigurationError as error:
            return Answer.refusal(400, str(error))
        except DamagedRatingsError as error:
            logger.error("%s", error)  # with its path, for whoever runs the server
            return Answer.refusal(500, DAMAGED)
        except (MemoError, OSError) as error:
            logger.error("%s", error)
            return Answer.refusal(500, "the server cannot read or write a file of this review; its window says which")
        except Exception as error:  # a mistake of ours is answered too, and told without what was sent
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.name}, line {place.lineno}"
            logger.error("a request was not answered: %s in %s", type(error).__name__, where)
            return Answer.refusal(500, "the server made a mistake; its window says where")

    def _progress(self, given: dict[str, str]) -> Answer:
        rater, strategy = checked_rater(given.get("rater")), checked_strategy(given.get("strategy", "blinded"))
        study = self.store.study
        return Answer.of(
            {
                **self.store.progress(rater, strategy),
                "dimension": study.spatial_dims,
                "further": len(self.store.waiting(rater, "uncertain")),
                "open": len(self.store.waiting(rater, ADJUDICATION)),
                "left_out": self.store.left_out(),
            }
        )

    def _next(self, given: dict[str, str]) -> Answer:
        rater, strategy = checked_rater(given.get("rater")), checked_strategy(given.get("strategy", "blinded"))
        waiting = self.store.waiting(rater, strategy)
        # The one after it is told as well, so that the page can fetch it while the rater looks at this one.
        return Answer.of({"id": waiting[0] if waiting else None, "then": waiting[1] if waiting[1:] else None})

    def _known(self, given: dict[str, str]) -> str:
        pair = self.store.study.by_id.get(given.get("pair", ""))
        if pair is None or pair.missing:
            raise UnknownPairError("no such pair")
        return pair.pair_id

    def _pair(self, given: dict[str, str]) -> Answer:
        return self._unless_damaged(self._known(given), self._told)

    def _told(self, pair_id: str) -> Answer:
        if self._figures(pair_id).is_file():
            told = read_told(self.review / IMAGES, pair_id)
            require_whole(self._figures(pair_id), told)
        else:
            native = self._of_an_earlier_version(pair_id)
            longest = max(native.synthetic.shape)
            told = {"shape": list(native.synthetic.shape), "extent": [n / longest for n in native.synthetic.shape],
                    "oriented": False, "channels": native.channels}  # fmt: skip
        return Answer.of({"id": pair_id, **told, "grey": {"lowest": LOWEST, "levels": LEVELS, "most": MOST_VALUE}})

    def _pixels(self, given: dict[str, str]) -> Answer:
        return self._unless_damaged(self._known(given), self._content)

    def _content(self, pair_id: str) -> Answer:
        if self._figures(pair_id).is_file():
            content = unpacked(self.review / IMAGES, pair_id)
        else:
            content = as_bytes(self._of_an_earlier_version(pair_id))
        return Answer(200, FIGURE_TYPE, content)

    def _figures(self, pair_id: str) -> Path:
        return self.review / IMAGES / f"{pair_id}{FIGURES}"

    def _unless_damaged(self, pair_id: str, found: Callable[[str], Answer]) -> Answer:
        """A pair whose files cannot be read is served no more: it would be the rater's next one again and again."""
        try:
            return found(pair_id)
        except (MemoError, OSError, ValueError) as error:
            logger.error("%s", error)
            self.store.leave_out(pair_id)
            return Answer.refusal(500, UNREADABLE)

    def _of_an_earlier_version(self, pair_id: str) -> NativePair:
        """A review that was prepared when only the smaller pictures were kept goes on with them."""
        study = self.store.study
        path = self.review / DATASTORE / f"{pair_id}{ENDING[study.spatial_dims]}"
        try:
            pair = stored_pair(path, study.shape)
        except (ValueError, OSError) as error:
            raise MemoError(f"{path} is missing or damaged: prepare the review anew with --restart") from error
        return NativePair(pair.synthetic, pair.training, tuple(map(float, pair.synthetic.shape)))

    def _agreement(self, given: dict[str, str]) -> Answer:
        return Answer.of({**self.store.summary(), "table": self._may_show_all(), "left_out": self.store.left_out()})

    def _may_show_all(self) -> bool:
        return not self.blind or self.store.everybody_finished()

    def _table(self, given: dict[str, str]) -> Answer:
        if not self._may_show_all():
            return Answer.refusal(403, "the table is there when everybody who began has rated all pairs")
        text = rating_table(self.store.study, self.store.history(), BEHIND_SERVERS)
        return Answer(200, TABLE, text.encode("utf-8"), {"content-disposition": 'attachment; filename="ratings.csv"'})

    def _rate(self, content_type: str, body: bytes) -> Answer:
        # A form of another web site can be sent without asking; JSON cannot.
        if content_type.partition(";")[0].strip().lower() != JSON:
            return Answer.refusal(415, f"a rating is sent as {JSON}")
        found = checked_json(body, "a rating")
        if found is None:
            raise ConfigurationError("a rating must be a JSON object, got null")
        unknown = sorted(set(found) - set(RATING_FIELDS))
        if unknown:
            raise ConfigurationError(f"unknown field {', '.join(unknown)[:200]}; known: {', '.join(RATING_FIELDS)}")
        entry = self.store.rate(found.get("pair"), found)
        return Answer.of({"pair": found["pair"], "rating": entry.rating, "time": entry.time})


def _nothing() -> Answer:
    return Answer.refusal(404, "not part of a review")


def _single(query: str) -> dict[str, str]:
    """Each parameter once.

    Raises:
        ConfigurationError: one that was sent twice, or too many.
    """
    try:
        given = parse_qs(query, keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise ConfigurationError("the query cannot be read") from error
    twice = [name for name, values in given.items() if len(values) > 1]
    if twice:
        raise ConfigurationError(f"{twice[0][:60]} was sent twice")
    return {name: values[0] for name, values in given.items()}


def _page_file(name: str) -> bytes:
    return files("monai_memo.label").joinpath("page", name).read_bytes()

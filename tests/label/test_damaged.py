# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A damaged file, or a second window: the other raters go on, whom it concerns is told, and nothing is overwritten."""

from __future__ import annotations

import gzip
import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from monai_memo.label.prepare import FINAL, IMAGES, prepare_review
from monai_memo.label.ratings import DamagedRatingsError
from monai_memo.label.review import review
from monai_memo.label.store import RatingStore
from tests.label.conftest import Served, rate_all


def rate_sample(served: Served, rater: str, skip: str = "") -> None:
    for pair in served.study.sample:
        if pair.pair_id != skip:
            assert served.rate(pair.pair_id, "copy" if pair.copy else "novel", rater)[0] == 200


WRONG = ('5, "time": "t"', '"a", "time": 1', '"a"')


@pytest.mark.parametrize(
    "damage", ["[{", "", "null", "[5]", *(f'[{{"rating": "copy", "rater": {rest}}}]' for rest in WRONG)]
)
def test_one_damaged_file_of_ratings_stops_nobody(
    served: Served, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    rate_sample(served, "anna")
    pair = served.study.sample[2].pair_id
    path = served.folder / FINAL / f"{pair}.json"
    whole = path.read_text()
    path.write_text(damage)
    with caplog.at_level(logging.ERROR):
        for rater in ("anna", "bert"):
            progress = served.told(f"/review/progress?rater={rater}")
            assert (progress["total"], progress["left_out"]) == (5, 1)
        agreement = served.told("/review/agreement")
        assert (agreement["finished"], agreement["under_way"], agreement["left_out"]) == (1, 0, 1)
        seen = set()
        while (other := served.told("/review/next?rater=bert")["id"]) is not None:
            assert served.rate(other, "novel", "bert")[0] == 200
            seen.add(other)
        assert seen == {item.pair_id for item in served.study.sample} - {pair}
        told = served.told("/review/agreement")
        assert told["finished"] == 2 and told["agreement"][0]["pairs"] == 5
        assert served.ask("/review/ratings.csv")[2].decode().count("\n") == 11
        status, answer = served.rate(pair, "copy", "bert")  # whose page had the pair already
        assert (
            status == 500 and "Nothing was stored and nothing was overwritten; go on with the other" in answer["detail"]
        )
        assert str(served.folder) not in answer["detail"]
    assert path.read_text() == damage
    named = [record.message for record in caplog.records if str(path) in record.message]
    assert len(named) == 2 and "Until then the pair is left out" in named[0], "once when it is seen, once when rated"
    assert "Restore it from a backup; or move it away" in named[0]
    path.write_text(whole)
    assert served.told("/review/progress?rater=anna")["left_out"] == 0
    assert served.told("/review/next?rater=bert")["id"] == pair
    assert served.rate(pair, "novel", "bert")[0] == 200


def test_an_evaluation_names_what_is_damaged_and_counts_nothing_less(audit: Path) -> None:
    study = prepare_review(str(audit), n=6, n_uncertain=0, progress=False)
    rate_all(audit, {pair.pair_id: "novel" for pair in study.pairs}, "anna")
    broken = [audit / "review" / FINAL / f"{pair.pair_id}.json" for pair in study.pairs[:2]]
    for path in broken:
        path.write_text('[{"rating": "copy", "rater": 5, "time": "t"}]')
    with pytest.raises(DamagedRatingsError) as raised:
        review(str(audit))
    assert all(str(path) in str(raised.value) for path in broken) and not (audit / "review.json").exists()
    for path in broken:
        path.rename(path.with_suffix(".broken"))
    assert review(str(audit)).record["raters"][0]["rated"] == 4, "the remedy that it names"


@pytest.mark.parametrize("kind", ["told", "short", "changed", "gone", "other shape"])
def test_a_pair_whose_images_are_damaged_is_left_out(
    served: Served, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    rate_sample(served, "anna", skip=served.study.sample[0].pair_id)
    pair = served.told("/review/next?rater=bert")["id"]
    figures, told = (served.folder / IMAGES / f"{pair}{ending}" for ending in (".gz", ".json"))
    if kind == "told":
        told.write_text('{"shape": "30", "extent": [1, 1], "oriented": false}')
    elif kind == "short":
        figures.write_bytes(figures.read_bytes()[:-40])
    elif kind == "changed":
        content = bytearray(figures.read_bytes())
        content[len(content) // 2] ^= 255
        figures.write_bytes(content)
    elif kind == "gone":
        figures.unlink()
    else:
        figures.write_bytes(gzip.compress(bytes(100)))
    with caplog.at_level(logging.ERROR):
        status, _, content = served.ask(f"/review/pair?pair={pair}")
    assert status == 500 and "left out until the server is started again" in json.loads(content)["detail"]
    assert pair in caplog.text and str(served.folder) in caplog.text and str(served.folder) not in content.decode()
    assert served.told("/review/next?rater=bert")["id"] not in (pair, None)
    assert served.told("/review/progress?rater=bert")["total"] == 5
    assert served.told("/review/agreement")["left_out"] == 1


def test_a_second_window_is_told_instead_of_replacing_a_rating(served: Served) -> None:
    pair = served.told("/review/next?rater=anna")["id"]
    assert served.rate(pair, "novel", "anna")[0] == 200
    for rating, rater in (("copy", "anna"), ("novel", "ANNA")):
        status, answer = served.rate(pair, rating, rater)
        assert status == 409 and "has rated this pair already, perhaps in another window" in answer["detail"]
    last = served.told("/review/progress?rater=anna")
    assert last["last"] == pair and last["last_time"] == served.store.entries(pair)[0].time
    assert served.rate(pair, "undo", "anna", replaces="2020-01-01")[0] == 409, "not the rating that the window shows"
    assert served.rate(pair, "copy", "anna", replaces=last["last_time"])[0] == 200, "on purpose"
    assert served.rate(pair, "undo", "anna", replaces=last["last_time"])[0] == 409
    assert [entry.rating for entry in served.store.entries(pair)] == ["novel", "copy"]
    assert served.rate(pair, "undo", "anna")[0] == 200 and served.rate(pair, "undo", "anna")[0] == 200
    assert served.rate(pair, "unsure", "anna")[0] == 200, "taken back, it can be rated anew"
    for wrong in (5, ["t"], {"a": 1}, True):
        status, answer = served.rate(pair, "copy", "anna", replaces=wrong)
        assert status == 400 and "replaces must be the time of an earlier rating, or null" in answer["detail"]


def test_of_two_windows_that_save_at_the_same_time_one_is_told(served: Served) -> None:
    pair = served.study.sample[0].pair_id
    found: list[int] = []
    barrier = threading.Barrier(6)

    def save(rating: str) -> None:
        barrier.wait()
        found.append(served.rate(pair, rating, "anna")[0])

    threads = [threading.Thread(target=save, args=(rating,)) for rating in ("copy", "novel", "unsure") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200] + [409] * 5 and len(served.store.entries(pair)) == 1


def test_whether_a_pair_is_disputed_is_asked_while_nobody_else_writes(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the question and the answer a rater could take back what the dispute is about."""
    from filelock import FileLock, Timeout

    held = []
    asked = RatingStore.disputed

    def disputed(store: RatingStore) -> list[str]:
        try:
            with FileLock(store.lock_file, timeout=0, is_singleton=False):
                held.append(False)
        except Timeout:
            held.append(True)
        return asked(store)

    rate_sample(served, "anna")
    rate_sample(served, "bert", skip=served.study.sample[0].pair_id)
    first = served.study.sample[0].pair_id
    served.rate(first, "unsure", "bert")
    monkeypatch.setattr(RatingStore, "disputed", disputed)
    assert served.rate(first, "copy", "eva", strategy="adjudication")[0] == 200
    assert held == [True]
    status, answer = served.rate(first, "novel", "frida", strategy="adjudication")
    assert status == 409 and "settled meanwhile" in answer["detail"]


def test_what_nobody_foresaw_is_answered_and_told_without_what_was_sent(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise AttributeError("secret of anna")

    monkeypatch.setattr(RatingStore, "progress", broken)
    with caplog.at_level(logging.ERROR):
        status, _, content = served.ask("/review/progress?rater=anna")
    assert status == 500 and json.loads(content)["detail"] == "the server made a mistake; its window says where"
    assert "AttributeError in broken, line " in caplog.text and "anna" not in caplog.text


def test_half_a_sign_in_a_request_is_sent_back_as_json_has_it(served: Served) -> None:
    status, _, content = served.ask("/review/rating", b'{"\\ud800": 1}', method="POST")
    assert status == 400 and "unknown field \ud800" in json.loads(content)["detail"]

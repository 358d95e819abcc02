# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import unicodedata
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.label.names import checked_rater, rater_key
from monai_memo.label.ratings import (
    ADJUDICATION,
    DamagedRatingsError,
    Entry,
    RatedMeanwhileError,
    all_ratings,
    append_entry,
    new_entry,
    read_entries,
    standing,
    standing_by_rater,
)


def test_entries_are_only_added_and_the_latest_stands(tmp_path: Path) -> None:
    path = tmp_path / "labels" / "pair.json"
    seen: list[str] = []
    for rating, rater in (("novel", "anna"), ("copy", "bert"), ("copy", "anna"), ("undo", "anna")):
        append_entry(path, new_entry({"rating": rating, "rater": rater}))
        text = path.read_text()
        assert all(earlier.rstrip("]\n ") in text for earlier in seen), "earlier entries were changed"
        seen.append(text)
    entries = read_entries(path)
    assert [entry.rating for entry in entries] == ["novel", "copy", "copy", "undo"]
    assert datetime.fromisoformat(entries[0].time).tzinfo is not None
    assert {rater: entry.rating for rater, entry in standing_by_rater(entries).items()} == {
        "anna": "novel", "bert": "copy"
    }  # fmt: skip
    append_entry(path, new_entry({"rating": "undo", "rater": "anna"}))
    assert standing(read_entries(path), "anna") is None
    with pytest.raises(ConfigurationError, match="anna has no rating"):
        append_entry(path, new_entry({"rating": "undo", "rater": "anna"}))
    assert len(read_entries(path)) == 5, "a refused undo leaves no trace"


def test_a_rater_may_write_the_name_in_several_ways(tmp_path: Path) -> None:
    path = tmp_path / "pair.json"
    append_entry(path, new_entry({"rating": "novel", "rater": " Anna "}))
    append_entry(path, new_entry({"rating": "copy", "rater": "anna"}))
    assert {rater: entry.rating for rater, entry in standing_by_rater(read_entries(path)).items()} == {"Anna": "copy"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rating": "maybe", "rater": "a"}, "rating must be one of copy, same_patient, novel, unsure, undo"),
        ({"rater": "a"}, "rating must be one of"),
        ({"rating": "copy"}, "rater must be a name"),
        ({"rating": "copy", "rater": "../../etc"}, "rater must be a name"),
        ({"rating": "copy", "rater": "<script>"}, "rater must be a name"),
        ({"rating": "copy", "rater": "a" * 41}, "rater must be a name"),
        *(
            ({"rating": "copy", "rater": name}, "rater must be a name")
            for name in (
                ".",
                "..",
                ".anna",
                "a/b",
                "a\\b",
                "/etc",
                "a\nb",
                "a\0",
                "a\x1b[31m",
                "a\x7f",
                "a\u202eb",
                "a\u2028b",
                "\ud800",
                "\u0301a",
                "\u0941",
                "\u200d",
                "a\u200d",
                "'",
                "a'",
                "-a",
                "a;b",
                "a&b",
                'a"b',
                "a`b",
                "=1+1",
                "@a",
                "+a",
                "a<b",
                "\u00a0",
                "",
                None,
                5,
                ["anna"],
                {"a": 1},
                True,
            )
        ),
        ({"rating": "copy", "rater": "a", "strategy": "best"}, "strategy must be one of"),
        ({"rating": "copy", "rater": "a", "seconds": -1}, "seconds must be a number"),
        ({"rating": "copy", "rater": "a", "seconds": "fast"}, "seconds must be a number"),
    ],
)
def test_impossible_ratings_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        new_entry(params)


def test_names_of_people_are_accepted() -> None:
    for name in (
        "Dr. Müller-Lüdenscheidt", "王", "a.b@hospital.org", "reader 7", "anna + bert", "O'Brien", "A. B.", "reader_2",
        "सुनीता शर्मा", "มานี", "ད", "على\u200cرضى", "د. أحمد", "தமிழ்", "Núria Gal·la", "ジョン・スミス", "a",
    ):  # fmt: skip
        assert new_entry({"rating": "copy", "rater": name}).rater == unicodedata.normalize("NFC", name)


def test_one_name_written_in_two_ways_is_one_rater(tmp_path: Path) -> None:
    path = tmp_path / "pair.json"
    for composed, other in (
        ("José Muñoz", unicodedata.normalize("NFD", "José Muñoz")), ("क़", "क\u093c"), ("山田 太郎", "山田\u3000太郎"),
        ("Anna B", " ANNA \u00a0 b "), ("Ταΐγετος", "ΤΑΪ́ΓΕΤΟΣ"), ("على\u200cرضى", "علىرضى"),
    ):  # fmt: skip
        append_entry(path, new_entry({"rating": "novel", "rater": composed}))
        append_entry(path, new_entry({"rating": "copy", "rater": other}))
        found = standing_by_rater(read_entries(path))
        assert [entry.rating for entry in found.values()] == ["copy"], other
        assert list(found) == [checked_rater(composed)]
        path.unlink()
    assert checked_rater(unicodedata.normalize("NFD", "José")) == "José"
    assert checked_rater("e\u0301" * 40) == "é" * 40, "forty letters, however they are sent"
    assert rater_key("Anna") != rater_key("Hanna")


def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "pair.json"
    path.write_text("[{")
    with pytest.raises(MemoError, match=r"pair\.json holds no ratings"):
        append_entry(path, new_entry({"rating": "copy", "rater": "a"}))
    assert path.read_text() == "[{"
    path.write_text(json.dumps([{"unknown": 1}]))
    with pytest.raises(MemoError, match="holds no ratings"):
        read_entries(path)
    assert read_entries(tmp_path / "none.json") == []


GOOD = {"rating": "copy", "rater": "anna", "time": "2026-01-01", "strategy": "blinded", "seconds": 2, "evidence": False}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, "a list of entries is expected, not dict"),
        (None, "a list of entries is expected, not NoneType"),
        ("copy", "a list of entries is expected, not str"),
        ([GOOD, 5], "entry 2 must have rating, rater and time"),
        ([["copy", "anna"]], "entry 1 must have"),
        ([{"rating": "copy", "rater": "anna"}], "entry 1 must have rating, rater and time"),
        ([{**GOOD, "unknown": 1}], "entry 1 must have"),
        ([{**GOOD, "rater": 5}], "rater of entry 1 must be text"),
        ([{**GOOD, "rater": None}], "rater of entry 1 must be text"),
        ([{**GOOD, "rater": ""}], "rater of entry 1 must be text"),
        ([{**GOOD, "time": 1.5}], "time of entry 1 must be text"),
        ([{**GOOD, "rating": "perhaps"}], "rating must be one of"),
        ([{**GOOD, "rating": ["copy"]}], "rating must be one of"),
        ([{**GOOD, "strategy": None}], "strategy must be one of"),
        ([{**GOOD, "seconds": "long"}], "seconds must be a number"),
        ([{**GOOD, "seconds": float("nan")}], "seconds must be a number"),
        ([{**GOOD, "evidence": "no"}], "evidence of entry 1 must be true or false"),
    ],
)
def test_values_that_no_rating_has_are_named(tmp_path: Path, record: Any, said: str) -> None:
    path = tmp_path / "pair.json"
    path.write_text(json.dumps(record))
    with pytest.raises(DamagedRatingsError, match=said):
        read_entries(path)
    before = path.read_bytes()
    with pytest.raises(DamagedRatingsError, match=r"pair\.json holds no ratings: .* Restore it from a backup; or move"):
        append_entry(path, new_entry({"rating": "copy", "rater": "anna"}))
    assert path.read_bytes() == before


def test_every_damaged_file_is_named_at_once_or_handed_back(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text("[" * 100_000)
    (tmp_path / "two.json").write_bytes(b"\xff\xfe")
    (tmp_path / "three.json").mkdir()
    append_entry(tmp_path / "four.json", new_entry({"rating": "copy", "rater": "anna"}))
    names = ["one", "two", "three", "four", "five"]
    with pytest.raises(DamagedRatingsError) as raised:
        all_ratings(tmp_path, names)
    assert [name in str(raised.value) for name in ("one.json", "two.json", "three.json", "four.json")] == [
        True, True, True, False
    ]  # fmt: skip
    damaged: dict[str, DamagedRatingsError] = {}
    found = all_ratings(tmp_path, names, damaged)
    assert set(damaged) == {"one", "two", "three"} and [len(found[name]) for name in names] == [0, 0, 0, 1, 0]


def test_nothing_takes_the_place_of_a_rating_that_the_sender_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "pair.json"

    def append(rating: str, replaces: str | None, rater: str = "anna", **further: str) -> Entry:
        return append_entry(path, new_entry({"rating": rating, "rater": rater, **further}), replaces)[-1]

    first = append("novel", None)
    with pytest.raises(RatedMeanwhileError, match="anna has rated this pair already, perhaps in another window"):
        append("copy", None)
    append("copy", None, "bert")
    second = append("copy", first.time)
    with pytest.raises(RatedMeanwhileError, match="rated this pair already"):
        append("unsure", first.time)
    with pytest.raises(RatedMeanwhileError, match=r"rated anew meanwhile.* nothing was taken back"):
        append("undo", first.time)
    append("undo", second.time)
    assert standing(read_entries(path), "anna") == first
    append("undo", first.time)
    with pytest.raises(RatedMeanwhileError, match="was taken back meanwhile"):
        append("copy", first.time)
    assert [entry.rating for entry in read_entries(path)] == ["novel", "copy", "copy", "undo", "undo"]
    append("copy", None)
    settles = append("copy", None, "eva", strategy=ADJUDICATION)
    with pytest.raises(RatedMeanwhileError, match="settled meanwhile"):
        append("novel", None, "frida", strategy=ADJUDICATION)
    assert append("novel", settles.time, "frida", strategy=ADJUDICATION).rater == "frida", "on purpose it is possible"

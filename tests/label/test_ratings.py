# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.label.ratings import append_entry, new_entry, read_entries, standing, standing_by_rater


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
        ({"rating": "copy", "rater": "a", "strategy": "best"}, "strategy must be one of"),
        ({"rating": "copy", "rater": "a", "seconds": -1}, "seconds must be a number"),
        ({"rating": "copy", "rater": "a", "seconds": "fast"}, "seconds must be a number"),
    ],
)
def test_impossible_ratings_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        new_entry(params)


def test_names_of_people_are_accepted() -> None:
    for name in ("Dr. Müller-Lüdenscheidt", "王", "a.b@hospital.org", "reader 7"):
        assert new_entry({"rating": "copy", "rater": name}).rater == name


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

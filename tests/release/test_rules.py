# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from monai_memo.release.rules import BELOW, COPY, LISTED, NEIGHBOUR, PART, RATED, Row, Rule, choose

ROWS = [
    Row("a", "anna", 0.9, copy=True, listed=True),
    Row("b", "anna", 0.8, copy=True, listed=False),
    Row("c", "bert", 0.6, copy=False, listed=False, in_part=True, part_patient="carl"),
    Row("d", "anna", 0.5, copy=False, listed=False),
    Row("e", "carl", 0.4, copy=False, listed=False),
    Row("f", "dora", 0.3, copy=False, listed=False),
]


def test_every_image_above_tau_goes_also_where_none_is_listed() -> None:
    found = choose([Row("a", "anna", 0.9, copy=True, listed=False), ROWS[5]], Rule())
    assert dict(found.removed) == {"a": COPY} and found.kept == ["f"]


def test_copies_in_part_go_too_unless_that_is_turned_off() -> None:
    assert dict(choose(ROWS, Rule()).removed) == {"a": COPY, "b": COPY, "c": PART}
    assert "c" in choose(ROWS, Rule(parts=False)).kept


def test_the_list_leaves_copies_that_are_not_on_it() -> None:
    assert dict(choose(ROWS, Rule("list", parts=False)).removed) == {"a": LISTED}


def test_a_lowered_threshold_takes_more() -> None:
    found = choose(ROWS, Rule("bound", threshold=0.45))
    assert dict(found.removed) == {"a": COPY, "b": COPY, "c": BELOW, "d": BELOW}
    assert dict(found.patients) == {"anna": 2}, "an image below tau says nothing about its nearest patient"


def test_a_lowered_threshold_takes_what_is_above_it_as_the_search_found_it() -> None:
    near_many = Row("g", "dora", 0.3, copy=False, listed=False, as_found=0.5)
    assert choose([near_many], Rule()).kept == ["g"]
    assert dict(choose([near_many], Rule("bound", threshold=0.45)).removed) == {"g": BELOW}


def test_whole_neighbourhoods_are_those_of_patients_copied_as_a_whole_or_in_part() -> None:
    found = choose(ROWS, Rule(neighbourhoods=True))
    assert found.kept == ["f"]
    assert [name for name, reason in found.removed.items() if reason == NEIGHBOUR] == ["d", "e"]


def test_a_raters_copy_always_goes_and_names_a_copied_patient() -> None:
    found = choose(ROWS, Rule("list", parts=False, neighbourhoods=True), {"f": "copy"})
    assert found.removed["f"] == RATED and found.patients["dora"] == 1


def test_a_raters_novel_stays_only_where_that_is_asked_for() -> None:
    assert "b" in choose(ROWS, Rule(), {"b": "novel"}).removed
    found = choose(ROWS, Rule(keep_novel=True, neighbourhoods=True), {"b": "novel"})
    assert "b" in found.kept and list(found.spared) == ["b"]
    assert "f" in choose(ROWS, Rule(keep_novel=True), {"f": "novel"}).kept


def test_the_most_exposed_patient_comes_first() -> None:
    rows = [Row("x", "dora", 0.9, True, True), *ROWS]
    assert next(iter(choose(rows, Rule()).patients.items())) == ("anna", 2)
    assert choose(rows, Rule()).reasons == {COPY: 3, PART: 1}

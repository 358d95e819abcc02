# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Where raters differ: who may settle it, what then counts, how far raters agree, and the table of all ratings."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.label.analysis import Analysis
from monai_memo.label.export import FOR_OTHERS, FOR_US, rating_table, review_export
from monai_memo.label.learning import decisions
from monai_memo.label.ratings import ADJUDICATION, Entry, settled, standing, standing_by_rater
from monai_memo.label.study import Study
from tests.label.conftest import Served


def rated(study: Study, *raters: tuple[str, dict[str, str]]) -> dict[str, list[Entry]]:
    """The detector's call as everybody's rating, but for what is named."""
    return {
        pair.pair_id: [
            Entry(other.get(pair.pair_id, "copy" if pair.copy else "novel"), name, "2026-01-01")
            for name, other in raters
        ]
        for pair in study.pairs
    }


def rate_sample(served: Served, rater: str, other: dict[str, str]) -> None:
    for pair in served.study.sample:
        rating = other.get(pair.pair_id, "copy" if pair.copy else "novel")
        assert served.rate(pair.pair_id, rating, rater)[0] == 200


def test_what_settles_a_pair_stands_beside_the_ratings() -> None:
    first = [Entry("copy", "anna", ""), Entry("novel", "bert", ""), Entry("copy", "Anna", "", ADJUDICATION)]
    assert {name: entry.rating for name, entry in standing_by_rater(first).items()} == {"anna": "copy", "bert": "novel"}
    again = [*first, Entry("unsure", "eva", "", ADJUDICATION)]
    assert settled(again) == again[-1], "the latest, whoever made it"
    withdrawn = [*again, Entry("undo", "eva", "", ADJUDICATION)]
    assert settled(withdrawn) == first[-1]
    assert standing(withdrawn, "anna") == first[0], "an undo of what settled a pair takes no rating back"
    taken_back = [*withdrawn, Entry("undo", "anna", "")]
    assert standing(taken_back, "anna") is None and settled(taken_back) == first[-1]


def test_a_settled_pair_counts_as_it_was_settled_and_agreement_does_not(study: Study) -> None:
    called = [pair.pair_id for pair in study.sample if pair.copy][:3]
    history = rated(study, ("anna", {}), ("bert", dict.fromkeys(called, "novel")))
    before = Analysis(study, history)
    rates = before.detector()["copy_or_same_patient"]["consensus"]
    assert rates["undecided"] == 3 and before.disputed() == sorted(called)
    kappa = before.agreement(quick=True)
    for pair_id, rating in zip(called, ("novel", "same_patient", "unsure"), strict=True):
        history[pair_id].append(Entry(rating, "eva", "2026-01-02", ADJUDICATION))
    after = Analysis(study, history)
    wide, narrow = (after.detector()[name]["consensus"] for name in ("copy_or_same_patient", "copy_only"))
    assert wide["undecided"] == narrow["undecided"] == 1, "unsure settles nothing"
    assert wide["table"]["detector_copy_raters_not"] == 1 and narrow["table"]["detector_copy_raters_not"] == 2
    assert wide["precision"]["value"] < 1 and after.agreement(quick=True) == kappa and after.raters == ["anna", "bert"]
    assert after.adjudication() == {"disputed": 3, "settled": 3, "by": ["eva"]}
    assert after.detector()["copy_only"]["raters"] == before.detector()["copy_only"]["raters"]
    found = decisions(study, history)
    assert found[called[0]] is False and found[called[1]] is True and called[2] not in found
    assert [row["pair"] for row in after.disagreements()] == [called[0]]


def test_only_pairs_on_which_finished_raters_differ_can_be_settled(served: Served) -> None:
    first = served.study.sample[0].pair_id
    rate_sample(served, "anna", {first: "unsure"})
    for pair in served.study.sample[:-1]:
        served.rate(pair.pair_id, "same_patient", "bert")
    assert served.told("/review/next?rater=eva&strategy=adjudication") == {"id": None, "then": None}
    status, told = served.rate(first, "copy", "eva", strategy="adjudication")
    assert status == 400 and "no two raters who have rated all pairs differ" in told["detail"]
    served.rate(served.study.sample[-1].pair_id, "novel", "bert")
    expected = {p.pair_id for p in served.study.sample if served.store.entries(p.pair_id)[0].rating != "same_patient"}
    last = served.study.sample[-1]
    expected -= {last.pair_id} if not last.copy and last.pair_id != first else set()
    seen = []
    while (pair := served.told("/review/next?rater=eva&strategy=adjudication")["id"]) is not None:
        assert served.rate(pair, "novel", "eva", strategy="adjudication")[0] == 200
        seen.append(pair)
    assert set(seen) == expected and first in seen
    progress = served.told("/review/progress?rater=eva&strategy=adjudication")
    assert (progress["rated"], progress["total"], progress["last"]) == (len(seen), len(seen), seen[-1])
    assert served.told("/review/progress?rater=anna&strategy=adjudication")["last"] is None, "anna settled none"
    assert served.rate(seen[-1], "undo", "eva", strategy="adjudication")[0] == 200
    assert served.told("/review/next?rater=anna&strategy=adjudication")["id"] == seen[-1]
    assert served.told("/review/progress?rater=eva")["rated"] == 0, "she has rated no pair of the sample"


def test_agreement_is_told_of_raters_who_have_finished_and_of_no_pair(served: Served) -> None:
    sample = [pair.pair_id for pair in served.study.sample]
    empty = {"finished": 0, "under_way": 0, "agreement": [], "disputed": 0, "open": 0, "table": False, "left_out": 0}
    assert served.told("/review/agreement") == empty
    rate_sample(served, "anna", {})
    for pair_id in sample[:-1]:
        served.rate(pair_id, "unsure", "bert")
    told = served.told("/review/agreement")
    assert told == {**empty, "finished": 1, "under_way": 1}, "nothing moves while a rater goes on"
    status, _, content = served.ask("/review/ratings.csv")
    assert status == 403 and b"when everybody who began has rated all pairs" in content
    served.rate(sample[-1], "copy" if served.study.sample[-1].copy else "novel", "bert")
    told = served.told("/review/agreement")
    assert told["agreement"][0]["raters"] == ["anna", "bert"]
    assert (told["agreement"][0]["same"], told["agreement"][0]["pairs"], told["disputed"], told["open"]) == (1, 6, 5, 5)
    assert "pair_" not in str(told)
    served.rate(sample[0], "novel", "carla")
    assert (
        served.told("/review/agreement")["agreement"] == told["agreement"]
        and not served.told("/review/agreement")["table"]
    )


def test_two_raters_who_rate_alike_agree_fully(served: Served) -> None:
    for rater in ("anna", "bert", "carla"):
        rate_sample(served, rater, {})
    told = served.told("/review/agreement")
    assert [row["raters"] for row in told["agreement"]] == [["anna", "bert"], ["anna", "carla"], ["bert", "carla"]]
    for row in told["agreement"]:
        assert row["same"] == row["pairs"] == 6 and row["kappa_two"] == row["kappa_four"] == 1
    assert (told["disputed"], told["open"], told["table"]) == (0, 0, True)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_download_of_the_page_has_all_ratings_and_no_image(served: Served) -> None:
    first = served.study.sample[0].pair_id
    rate_sample(served, "anna", {})
    rate_sample(served, "bert", {first: "unsure"})
    served.rate(first, "novel", "eva", strategy="adjudication", seconds=3)
    status, headers, content = served.ask("/review/ratings.csv")
    assert status == 200 and headers["content-disposition"] == 'attachment; filename="ratings.csv"'
    rows = rows_of(content.decode())
    assert len(rows) == 13 and set(rows[0]) == {
        "pair", "part", "rater", "step", "rating", "time", "seconds", "difference_map"
    }  # fmt: skip
    last = next(row for row in rows if row["step"] == "settles")
    assert (last["pair"], last["rater"], last["rating"], last["seconds"]) == (first, "eva", "novel", "3.0")


def test_the_table_has_a_row_for_each_rating_that_counts(study: Study) -> None:
    history = rated(study, ("anna", {}), ("bert", {}))
    first = study.pairs[0]
    history[first.pair_id] = [
        Entry("copy", "anna", "t1", seconds=2.0), Entry("novel", "anna", "t2", evidence=True),
        Entry("copy", "bert", "t3"), Entry("undo", "bert", "t4"), Entry("copy", "=SUM(A1)", "t5", ADJUDICATION),
    ]  # fmt: skip
    rows = rows_of(rating_table(study, history, FOR_US))
    assert len(rows) == 2 * 64 + 2
    here = [row for row in rows if row["pair"] == first.pair_id]
    assert [(row["rater"], row["step"], row["rating"], row["time"]) for row in here] == [
        ("anna", "rates", "novel", "t2"), ("'=SUM(A1)", "settles", "copy", "t5")
    ]  # fmt: skip
    assert here[0]["difference_map"] == "true" and here[0]["synthetic"] == first.synthetic
    assert float(here[0]["similarity"]) == first.similarity and here[0]["training"] == first.training
    assert {row["part"] for row in rows} == {"sample", "near_tau"}
    assert {(row["detector"], row["rating"]) for row in rows if row["rater"] == "bert"} == {
        ("copy", "copy"), ("no copy", "novel")
    }  # fmt: skip
    redacted = rating_table(study, history, FOR_OTHERS)
    for word in ("anna", "bert", "SUM", "pair_", ".png"):
        assert word not in redacted
    assert {row["rater"] for row in rows_of(redacted)} == {"rater 1", "rater 2", "rater 3"}
    assert [row["rating"] for row in rows_of(redacted)] == [row["rating"] for row in rows]


def test_export_writes_its_table_and_over_nothing_else(audit: Path, tmp_path: Path) -> None:
    from monai_memo.label.prepare import prepare_review
    from tests.label.conftest import rate_all

    with pytest.raises(MemoError, match="review-prepare"):
        review_export(str(audit), out=str(tmp_path / "ratings.csv"))
    study = prepare_review(str(audit), n=6, n_uncertain=0, progress=False)
    with pytest.raises(MemoError, match="nobody has rated"):
        review_export(str(audit), out=str(tmp_path / "ratings.csv"))
    rate_all(audit, {pair.pair_id: "novel" for pair in study.pairs}, "anna")
    path, rows = review_export(str(audit), out=str(tmp_path / "ratings.csv"))
    assert rows == 6 and rows_of(path.read_text())[0]["synthetic"].startswith("synthetic_")
    rate_all(audit, {study.pairs[0].pair_id: "copy"}, "bert")
    assert review_export(str(audit), out=str(path), redacted=True)[1] == 7, "an earlier table is replaced"
    assert "anna" not in path.read_text() and "synthetic_" not in path.read_text()
    (tmp_path / "notes.csv").write_text("mine\n")
    for other in (tmp_path / "notes.csv", tmp_path):
        with pytest.raises(ConfigurationError, match="no table of ratings"):
            review_export(str(audit), out=str(other))
    assert (tmp_path / "notes.csv").read_text() == "mine\n"

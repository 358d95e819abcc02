# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""From ratings to numbers and to the chapter of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from monai_memo.errors import MemoError
from monai_memo.label.analysis import Analysis, consensus
from monai_memo.label.prepare import prepare_review
from monai_memo.label.ratings import Entry
from monai_memo.label.review import review
from monai_memo.label.study import Study
from tests.label.conftest import rate_all


def history(ratings: Mapping[str, Mapping[str, str]]) -> dict[str, list[Entry]]:
    """Entries of each pair from the rating of each rater."""
    return {pair: [Entry(rating, rater, "") for rater, rating in by.items()] for pair, by in ratings.items()}


def true_ratings(study: Study, truth: Mapping[str, str]) -> dict[str, str]:
    return {pair.pair_id: "copy" if truth[pair.synthetic] == pair.training else "novel" for pair in study.pairs}


def test_raters_who_agree_with_the_detector_find_no_error(study: Study) -> None:
    found = Analysis(study, history({p.pair_id: {"a": "copy" if p.copy else "novel"} for p in study.pairs}))
    rates = found.detector()["copy_or_same_patient"]["consensus"]
    assert rates["sensitivity"]["value"] == rates["specificity"]["value"] == rates["precision"]["value"] == 1
    assert rates["prevalence"]["value"] == pytest.approx(40 / 200)
    assert rates["pairs"] == 60 and found.disagreements() == [] and found.near_tau() == {"rated": 5, "agree": 5}


def test_rates_are_weighted_back_to_all_images(study: Study) -> None:
    """Raters call everything in one stratum below tau copies: they stand for its 200-image share."""
    ratings = {p.pair_id: {"a": "copy" if p.copy or p.stratum == 0 else "novel"} for p in study.pairs if p.sampled}
    rates = Analysis(study, history(ratings)).detector()["copy_or_same_patient"]["consensus"]
    low = study.stratum_sizes[0]
    assert rates["sensitivity"]["value"] == pytest.approx(40 / (40 + low))
    shown = sum(p.stratum == 0 for p in study.sample)
    unweighted = sum(p.copy for p in study.sample) / (sum(p.copy for p in study.sample) + shown)
    assert abs(rates["sensitivity"]["value"] - unweighted) > 0.03


def test_same_patient_counts_as_a_copy_in_the_wide_definition_only(study: Study) -> None:
    ratings = history({p.pair_id: {"a": "same_patient" if p.copy else "novel"} for p in study.pairs})
    found = Analysis(study, ratings).detector()
    assert found["copy_or_same_patient"]["consensus"]["sensitivity"]["value"] == 1
    assert found["copy_only"]["consensus"]["sensitivity"] is None
    assert found["copy_only"]["consensus"]["precision"]["value"] == 0


def test_majority_ties_and_unsure(study: Study) -> None:
    assert consensus(["copy", "copy", "novel"], ["copy"]) is True
    assert consensus(["copy", "novel"], ["copy"]) is None
    assert consensus(["unsure", "unsure", "novel"], ["copy"]) is False
    assert consensus(["unsure"], ["copy"]) is None
    ratings = {p.pair_id: {"a": "copy" if p.copy else "novel"} for p in study.pairs}
    doubtful = [p.pair_id for p in study.sample if not p.copy][:4]
    for pair_id in doubtful:
        ratings[pair_id] = {"a": "unsure"}
    rates = Analysis(study, history(ratings)).detector()["copy_or_same_patient"]["consensus"]
    assert rates["undecided"] == 4 and rates["pairs"] == 56 and rates["sensitivity"]["value"] == 1
    assert rates["undecided_as_copies"]["sensitivity"]["value"] < 1
    assert rates["undecided_as_novel"]["sensitivity"]["value"] == 1


def test_kappa_of_two_and_of_three_raters(study: Study) -> None:
    def rating(i: int, rater: int) -> str:
        base = "copy" if study.pairs[i].copy else "novel"
        return {"copy": "novel", "novel": "copy"}[base] if i % 10 == rater else base

    ratings = {p.pair_id: {name: rating(i, k) for k, name in enumerate("abc")} for i, p in enumerate(study.pairs)}
    two = Analysis(study, history({pair: {k: by[k] for k in "ab"} for pair, by in ratings.items()})).agreement()
    assert two["two"]["fleiss"] is None and len(two["two"]["cohen"]) == 1
    kappa = two["two"]["cohen"][0]["kappa"]
    assert 0 < kappa["low"] < kappa["value"] < kappa["high"] < 1 and two["four"]["cohen"][0]["pairs"] == 60
    three = Analysis(study, history(ratings)).agreement()
    assert len(three["two"]["cohen"]) == 3 and 0.2 < three["four"]["fleiss"]["kappa"]["value"] < 1
    alone = Analysis(study, history({pair: {"a": by["a"]} for pair, by in ratings.items()})).agreement()
    assert alone["two"]["cohen"] == [] and alone["two"]["fleiss"] is None
    apart = Analysis(study, history({study.pairs[0].pair_id: {"a": "copy"}, study.pairs[1].pair_id: {"b": "copy"}}))
    assert apart.agreement()["four"]["cohen"][0] == {"raters": ["a", "b"], "pairs": 0, "kappa": None}


def test_review_writes_its_record_and_a_chapter(audit: Path, truth: dict[str, str]) -> None:
    study = prepare_review(str(audit), n=24, n_uncertain=4, progress=False)
    before = (audit / "report.html").read_text()
    with pytest.raises(MemoError, match="nobody has rated"):
        review(str(audit))
    ratings = true_ratings(study, truth)
    rate_all(audit, ratings, "anna", seconds=4.0)
    rate_all(audit, {**ratings, study.sample[0].pair_id: "unsure"}, "b@ert", evidence=True)
    result = review(str(audit))
    record = json.loads((audit / "review.json").read_text())
    assert record == result.record and record["raters"][0] == {
        "rater": "anna", "rated": 24, "copy": record["raters"][0]["copy"], "same_patient": 0,
        "novel": record["raters"][0]["novel"], "unsure": 0, "median_seconds": 4.0, "with_difference_map": 0,
    }  # fmt: skip
    truly = {p.pair_id for p in study.sample if ratings[p.pair_id] == "copy"}
    table = record["detector"]["copy_or_same_patient"]["raters"]["anna"]["table"]
    assert table["detector_copy_raters_copy"] == sum(p.copy for p in study.sample if p.pair_id in truly)
    assert table["detector_not_raters_copy"] == sum(not p.copy for p in study.sample if p.pair_id in truly)
    assert result.headline.startswith("Detector against the consensus of 2 raters: sensitivity ")
    text = (audit / "report.html").read_text()
    assert "<h2>What raters say</h2>" in text and "anna and b@ert" in text and "data:image/png" in text
    assert text.index("<h2>What raters say") < text.index("<h2>What this audit cannot say")
    # Evaluated again: the chapter is replaced, and everything else is as it was.
    rate_all(audit, ratings, "carla")
    review(str(audit))
    again = (audit / "report.html").read_text()
    assert again.count("<h2>What raters say</h2>") == 1 and "carla" in again and "(Fleiss)" in again
    start, end = again.index("\n<!-- chapter review"), again.index("<!-- end of chapter review")
    end = again.index("-->", end) + 3
    assert again[:start] + again[end:] == before


def test_redacted_review_names_nobody(audit: Path, truth: dict[str, str]) -> None:
    study = prepare_review(str(audit), n=30, n_uncertain=0, progress=False)
    rate_all(audit, dict.fromkeys(true_ratings(study, truth), "copy"), "Dr. Anna Example")
    rate_all(audit, true_ratings(study, truth), "novel")  # a rater whose name is also a word of the record
    before = (audit / "report.html").read_text()
    review(str(audit), redacted=True)
    record, text = (audit / "review.json").read_text(), (audit / "report.html").read_text()
    chapter = text[text.index("<!-- chapter review") : text.index("<!-- end of chapter review")]
    for part in (record, chapter):
        assert "Anna" not in part and "patient_0" not in part and "synthetic_0" not in part and "pair_0" not in part
        assert "rater 1" in part and "novel" in part
    assert len(text) > len(before)


def test_a_redacted_report_gets_a_redacted_chapter(audit: Path, truth: dict[str, str]) -> None:
    study = prepare_review(str(audit), n=30, n_uncertain=0, progress=False)
    rate_all(audit, true_ratings(study, truth), "anna")
    record = json.loads((audit / "audit.json").read_text())
    (audit / "audit.json").write_text(json.dumps({**record, "redacted": True}))
    review(str(audit))
    assert "anna" not in (audit / "review.json").read_text()


def test_an_older_report_without_a_place_for_chapters(audit: Path, truth: dict[str, str]) -> None:
    study = prepare_review(str(audit), n=5, n_uncertain=0, progress=False)
    rate_all(audit, true_ratings(study, truth), "anna")
    (audit / "report.html").write_text("<html></html>")
    with pytest.raises(MemoError, match="older version"):
        review(str(audit))
    assert not (audit / "review.json").exists()
    (audit / "report.html").unlink()
    with pytest.raises(MemoError, match="cannot read"):
        review(str(audit))

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from monai_memo.audit.result import Estimate, Match
from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.label.study import Study, certainty_of, draw_study, order_for


def test_the_sample_covers_the_range_and_the_detectors_call_is_one_for_each_stratum(study: Study) -> None:
    assert len(study.sample) == 60 and len(study.uncertain) == 5 and sum(study.stratum_sizes) == 200
    similarity = np.array([pair.similarity for pair in study.sample])
    assert similarity.min() < 0.3 and similarity.max() > 0.95
    assert {pair.stratum for pair in study.sample} == set(range(len(study.stratum_sizes)))
    for pair in study.sample:
        assert pair.copy == study.stratum_copies[pair.stratum]
        drawn = sum(other.stratum == pair.stratum for other in study.sample)
        assert pair.inclusion == pytest.approx(drawn / study.stratum_sizes[pair.stratum])
    weights = sum(1 / pair.inclusion for pair in study.sample)
    assert weights == pytest.approx(200)


def test_further_pairs_are_those_closest_to_tau_that_were_not_drawn(study: Study) -> None:
    distances = [abs(pair.similarity - study.tau) for pair in study.uncertain]
    assert distances == sorted(distances) and distances[-1] < 0.06
    assert not {pair.synthetic for pair in study.uncertain} & {pair.synthetic for pair in study.sample}


def test_neither_ids_nor_orders_tell_of_the_similarity(study: Study) -> None:
    similarity = [pair.similarity for pair in study.pairs]
    assert abs(spearmanr(range(len(similarity)), similarity).statistic) < 0.3
    orders = [order_for(study, rater) for rater in ("anna", "bert")]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    assert order_for(study, "Anna") == orders[0]
    for order in orders:
        values = [study.by_id[pair_id].similarity for pair_id in order]
        assert abs(spearmanr(range(len(values)), values).statistic) < 0.3


def test_the_call_of_the_audit_decides_where_rounding_hides_the_border() -> None:
    """Six digits in the table: a copy and a pair below tau may show the same number as tau."""
    matches = [Match(f"s{i}", "t", "", 0.8, 0.8, i < 5) for i in range(12)]
    study = draw_study(matches, Estimate(0.8, 0.7, 0.9), "x", 2, n=12, n_uncertain=0)
    assert study.stratum_sizes == (7, 5) and study.stratum_copies == (False, True)
    assert all(pair.copy == study.stratum_copies[pair.stratum] for pair in study.pairs)


@pytest.mark.parametrize("copies", [0, 30])
def test_all_or_no_copies(copies: int) -> None:
    matches = [Match(f"s{i}", "t", "", 0.9 - i / 100, 0.5, i < copies) for i in range(30)]
    study = draw_study(matches, Estimate(0.5, 0.4, 0.6), "x", 2, n=10)
    assert set(study.stratum_copies) == {copies > 0} and len(study.sample) == 10


def test_round_trip_and_damaged_files(study: Study, tmp_path: Path) -> None:
    assert Study.load(study.save(tmp_path / "study.json")) == study
    (tmp_path / "study.json").write_text('{"version": 99}')
    with pytest.raises(MemoError, match="not the plan of a review"):
        Study.load(tmp_path / "study.json")
    with pytest.raises(MemoError, match="review-prepare"):
        Study.load(tmp_path / "none.json")


def test_missing_pairs_are_not_served(study: Study) -> None:
    pairs = tuple(replace(pair, missing="training image missing") if i < 3 else pair
                  for i, pair in enumerate(study.pairs))  # fmt: skip
    assert len(replace(study, pairs=pairs).sample) + len(replace(study, pairs=pairs).uncertain) == 62


def test_certainty_is_lowest_at_tau_and_depends_on_the_width_of_its_interval() -> None:
    values = certainty_of(np.array([0.5, 0.55, 0.8, 0.2]), Estimate(0.5, 0.4, 0.6), 0.95)
    assert values[0] == 0.5 and 0.8 < values[1] < 0.9 and values[2:].min() > 0.999
    assert certainty_of(np.array([0.55]), Estimate(0.5, 0.49, 0.51), 0.95)[0] > 0.999


@pytest.mark.parametrize("arguments", [{"n": 0}, {"n_uncertain": -1}, {"seed": 1.5}])
def test_impossible_numbers(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        draw_study([Match("s", "t", "", 0.5, 0.4, True)], Estimate(0.4, 0.3, 0.5), "x", 2, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: [], "a JSON object is expected, not list"),
        (lambda record: "plan", "a JSON object is expected, not str"),
        (lambda record: {**record, "pairs": None}, "not iterable"),
        (lambda record: {**record, "pairs": [5]}, "must be a mapping"),
        (lambda record: {**record, "seed": "1"}, "seed must be int, not str"),
        (lambda record: {**record, "shape": ["a"]}, "must be whole numbers"),
        (lambda record: with_first(record, pair_id="../audit"), "'../audit' is no id of a pair"),
        (lambda record: with_first(record, pair_id=5), "pair_id must be str, not int"),
        (lambda record: with_first(record, similarity="high"), "similarity must be float, not str"),
        (lambda record: with_first(record, similarity=True), "similarity must be float, not bool"),
        (lambda record: with_first(record, copy=1), "copy must be bool, not int"),
        (lambda record: with_first(record, missing=None), "missing must be str, not NoneType"),
    ],
)
def test_a_plan_with_other_values_is_named(study: Study, tmp_path: Path, change: Any, said: str) -> None:
    path = study.save(tmp_path / "study.json")
    assert Study.load(path) == study
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(MemoError, match=rf"study\.json is not the plan of a review: .*{re.escape(said)}"):
        Study.load(path)


def with_first(record: dict[str, Any], **values: object) -> dict[str, Any]:
    return {**record, "pairs": [{**record["pairs"][0], **values}, *record["pairs"][1:]]}

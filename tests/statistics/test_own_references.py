# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from monai_memo.benchmark.own_coverage import main, simulated
from monai_memo.statistics.discoveries import discover
from monai_memo.statistics.own_references import OwnReferences, rows_looked_through
from monai_memo.statistics.rates import audit_rates


@pytest.mark.parametrize("ratio", [1, 4])
def test_samples_that_are_near_to_everybody_pass_the_control_but_not_their_own_references(ratio: int) -> None:
    rng = np.random.default_rng(ratio)
    by_control, called, shown = [], [], 0
    for _ in range(12):
        sims, own = simulated(rng, ratio, 0.3)
        rates = audit_rates(sims, n_bootstrap=20, own=own)
        by_control.append((sims.synthetic_to_training > rates.tau_control).mean())
        called.append(rates.copies.value)
        assert rates.tau.value > rates.tau_control
        assert rates.tau.low <= rates.tau.value <= rates.tau.high
        shown += rates.excess_copies.low > 0
    assert np.mean(by_control) > 0.3
    assert 0.005 < np.mean(called) < 0.055
    assert shown <= 3  # of 12, where one in 40 is claimed and one in 30 measured


def test_copies_stand_out_above_their_own_references() -> None:
    sims, own = simulated(np.random.default_rng(0), 1, 0.3, 40)
    rates = audit_rates(sims, n_bootstrap=50, own=own)
    assert (sims.synthetic_to_training[:40] > rates.tau.value).all()
    assert rates.excess_copies.low > 0.1
    assert rates.excess_copies.high < 0.3


def test_nothing_changes_where_samples_are_like_held_out_images() -> None:
    sims, own = simulated(np.random.default_rng(3), 1, 0.0)
    low = OwnReferences(own.similarity - 0.5, 1)
    alone, both = audit_rates(sims, n_bootstrap=50), audit_rates(sims, n_bootstrap=50, own=low)
    assert alone == replace(both, excess_copies=alone.excess_copies)
    assert alone.tau.value == alone.tau_control


@pytest.mark.parametrize("copies", [0, 1, 4])
def test_copies_among_samples_that_are_far_from_everybody_cannot_be_excluded(copies: int) -> None:
    """Such samples do not pass by chance as held-out images do: nothing may be taken off for it."""
    for seed in range(5):
        sims, own = simulated(np.random.default_rng([seed, copies]), 1, -0.4, copies)
        excess = audit_rates(sims, n_bootstrap=100, own=own).excess_copies
        assert excess.high > max(copies + 1, 3) / 201
        assert excess.low < 0 or copies > 1  # nothing is shown by that


def test_no_control_makes_the_bound_less_than_the_number_of_images_allows() -> None:
    sims, _ = simulated(np.random.default_rng(9), 1, -0.4)
    assert audit_rates(sims, n_bootstrap=100).excess_copies.high >= 2.99 / 200


def test_the_papers_calibration_knows_nothing_of_them() -> None:
    sims, own = simulated(np.random.default_rng(4), 1, 0.3)
    assert audit_rates(sims, "paper", n_bootstrap=20) == audit_rates(sims, "paper", n_bootstrap=20, own=own)


def test_memorized_images_need_as_much_more_similarity() -> None:
    sims, own = simulated(np.random.default_rng(5), 1, 0.3)
    alone, both = audit_rates(sims, n_bootstrap=20), audit_rates(sims, n_bootstrap=20, own=own)
    raised = [np.arctanh(one.value) - np.arctanh(other.value) for one, other in (
        (both.tau, alone.tau), (both.tau_memorized, alone.tau_memorized))]  # fmt: skip
    assert raised[0] == pytest.approx(raised[1])
    assert both.n_memorized < alone.n_memorized


def test_p_values_are_those_of_the_stricter_reference() -> None:
    rng = np.random.default_rng(6)
    heldout, own = rng.uniform(0, 0.8, 400), OwnReferences(np.linspace(0, 0.9, 100), 1)
    found = discover(np.array([0.85, 0.95]), heldout, 0.05, own=own)
    assert found.p_values[0] == pytest.approx(0.06, abs=0.011)  # six of 100 samples come as near to unseen patients
    assert found.p_values[1] == pytest.approx(1 / 401)


def test_lists_of_samples_that_are_near_to_everybody_are_mostly_empty() -> None:
    rng = np.random.default_rng(7)
    listed = {"control": 0, "own": 0}
    for _ in range(10):
        sims, own = simulated(rng, 1, 0.4)
        scores = sims.synthetic_to_training
        listed["control"] += int(discover(scores, sims.heldout_to_training).listed.sum())
        listed["own"] += int(discover(scores, sims.heldout_to_training, own=own).listed.sum())
    assert listed["control"] > 100
    assert listed["own"] < 20


def test_copies_of_held_out_patients_raise_nothing_and_are_counted() -> None:
    # The "held-out" patients were trained on: what was copied from them must not hide what was copied from others.
    sims, own = simulated(np.random.default_rng(8), 1, 0.0, 40)
    leaked = own.similarity.copy()
    leaked[100:140] = 0.9999
    places = np.where(leaked > 0.99, leaked, leaked - 0.1)
    hidden = audit_rates(sims, n_bootstrap=20, own=OwnReferences(leaked, 1))
    rates = audit_rates(sims, n_bootstrap=20, own=OwnReferences(leaked, 1, places))
    assert hidden.n_copies == 0 and hidden.of_heldout == 0
    assert rates.n_copies >= 40 and rates.of_heldout == 40


def test_look_alikes_and_single_twins_of_held_out_images_are_no_copies_of_these() -> None:
    near = np.r_[np.full(98, 0.955), np.full(2, 0.999)]
    references, copies = OwnReferences(near, 1, near).without_copies(0.93)
    assert copies == 0  # a patient under two names
    assert references.threshold(0.95) == 0.955  # look-alikes raise it, the two do not


def test_soft_samples_are_moved_with_what_is_compared_with_them() -> None:
    softened, heldout = np.linspace(0.5, 0.9, 101), np.linspace(0.4, 0.8, 101)
    which = np.array([True, False])
    moved = OwnReferences(np.array([0.88, 0.88]), 1, np.array([0.5, 0.5])).moved(which, softened, heldout, 0.95)
    assert moved.similarity.round(2).tolist() == [0.78, 0.88]
    assert moved.by_places is not None and moved.by_places[0] < 0.5 == moved.by_places[1]


def test_held_out_patients_are_drawn_whole_up_to_the_size_of_the_training_cohort() -> None:
    patients = np.repeat(np.arange(40), 3)
    rows = rows_looked_through(patients, 50, 1)
    assert (np.bincount(patients[rows], minlength=40) % 3 == 0).all()
    assert len(rows) == 51
    assert (rows == rows_looked_through(patients, 50, 1)).all() and (rows != rows_looked_through(patients, 50, 2)).any()
    none = np.zeros(len(patients), dtype=bool)
    assert len(rows_looked_through(patients, 500, 0, none)) == 120  # better doubtful ones than none at all


def with_hubs(rng: np.random.Generator, patients: int = 100) -> tuple[np.ndarray, OwnReferences]:
    """Samples among training patients and among as many others; every twentieth patient is near to all of them."""
    galleries = []
    for _ in range(2):
        nearer = np.where(rng.random((patients, 1)) < 0.05, rng.uniform(0, 1, (patients, 1)), 0)
        galleries.append(np.tanh(0.1 * rng.standard_normal((patients, 80)) + nearer).T)
    images = np.argsort(-galleries[1], axis=1)[:, :5]
    found = images, np.take_along_axis(galleries[1], images, axis=1)
    return galleries[0].max(axis=1), OwnReferences.among(found, np.arange(patients), patients)


def test_the_draw_of_patients_is_taken_into_the_threshold() -> None:
    """Patients who are near to most samples stand in one cohort or in the other: chance moves all samples at once."""
    called: dict[str, list[float]] = {"known": [], "unknown": []}
    for seed in range(150):
        similarity, own = with_hubs(np.random.default_rng(seed))
        called["known"].append(float((similarity > own.threshold(0.95)).mean()))
        called["unknown"].append(float((similarity > replace(own, nearest=None).threshold(0.95)).mean()))
    assert np.mean(called["unknown"]) > 0.1
    assert np.mean(called["known"]) < 0.6 * np.mean(called["unknown"])


def test_the_excess_allows_for_another_draw_of_patients() -> None:
    shown = []
    for seed in range(40):
        sims, own = simulated(np.random.default_rng(seed), 1, 0.3, hubs=0.15)
        rates = [audit_rates(sims, n_bootstrap=100, own=one).excess_copies for one in (own, replace(own, nearest=None))]
        shown.append([one.low > 0 for one in rates])
    known, unknown = np.mean(shown, axis=0)
    assert known < 0.1 and known <= unknown


def test_without_patients_near_to_everybody_the_draw_changes_little() -> None:
    sims, own = simulated(np.random.default_rng(0), 1, 0.3)
    alone = replace(own, nearest=None)
    assert own.spread < 0.03 and alone.spread == 0
    assert abs(np.arctanh(own.threshold(0.95)) - np.arctanh(alone.threshold(0.95))) < 0.03
    taus = np.linspace(0.5, 0.9, 5)
    np.testing.assert_allclose(own.shares_above(taus), alone.shares_above(taus), atol=0.05)
    draws = own.threshold_draws(0.95, 500, np.random.default_rng(1))
    assert np.quantile(draws, 0.025) < own.threshold(0.95) < np.quantile(draws, 0.975)
    assert len(sims.synthetic_to_training) == len(own.similarity)


def test_copies_of_held_out_images_do_not_make_the_patients_look_decisive() -> None:
    rng = np.random.default_rng(2)
    near = np.sort(rng.uniform(0.5, 0.8, (100, 5)), axis=1)[:, ::-1].copy()
    near[:10, 0] = 0.999
    images = np.stack([rng.permutation(60)[:5] for _ in range(100)])
    images[:10, 0] = 3
    own = OwnReferences.among((images, near), np.arange(60), 60, near[:, 0])
    assert own.spread > 0.5
    assert own.without_copies(0.9)[0].spread < 0.1


def test_a_single_candidate_is_enough() -> None:
    images = np.column_stack([np.arange(20), np.full(20, -1)])
    similarity = np.column_stack([np.linspace(0.1, 0.8, 20), np.full(20, -1.0)])
    own = OwnReferences.among((images, similarity), np.arange(20), 20)
    assert own.spread == 0
    assert own.threshold(0.9) == replace(own, nearest=None).threshold(0.9)


@pytest.mark.parametrize("wrong", [{"ratio": 0.5}, {"similarity": np.array([np.nan])}, {"similarity": np.empty(0)}])
def test_what_cannot_be_a_reference_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be at least 1|finite similarity"):
        replace(OwnReferences(np.zeros(3), 1), **wrong)  # type: ignore[arg-type]


def test_the_table_of_simulated_audits_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["own_coverage", "--audits", "3"])
    monkeypatch.setattr("monai_memo.benchmark.own_coverage.RATIOS", (1,))
    main()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2 + 6 and {len(row) for row in rows} == {9}
    kinds = [["0", "0"], ["0.3", "0"], ["0.3", "0.15"]]
    assert [row[1:4] for row in rows[2:]] == [[*kind, copies] for copies in ("0", "20") for kind in kinds]
    assert all(float(row[5]) < 15 for row in rows[2:]) and float(rows[3][4]) > 40 and rows[6][6] == "100.0"

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Copies by group."""

from __future__ import annotations

import numpy as np

from monai_memo.statistics.groups import GroupRates, group_rates


def counted(copies: dict[str, tuple[int, int]]) -> GroupRates:
    """Groups by (copies, samples), each with ten training images of five patients, two of them memorized."""
    synthetic = [name for name, (_, n) in copies.items() for _ in range(n)]
    copied = np.concatenate([np.arange(n) < count for count, n in copies.values()])
    training = [name for name in copies for _ in range(10)]
    memorized = np.tile(np.arange(10) < 2, len(copies))
    patients = [f"{name}{i // 2}" for name in copies for i in range(10)]
    heldout = (["a"] * 8, np.arange(8) < 2)
    return group_rates(synthetic, copied, training, memorized, patients, heldout)


def test_counts_and_intervals_are_those_of_each_group() -> None:
    found = counted({"a": (20, 40), "b": (0, 60)})
    a, b = found.groups
    assert (a.name, a.n_copies, a.n_synthetic, a.n_train, a.n_patients, a.n_memorized) == ("a", 20, 40, 10, 5, 2)
    assert a.copies.value == 0.5 and 0.34 < a.copies.low < 0.37 and 0.63 < a.copies.high < 0.66
    assert a.together.low < a.copies.low and a.copies.high < a.together.high, "wider: for all groups at once"
    assert (b.copies.value, b.copies.low) == (0.0, 0.0) and b.copies.high >= 3 / 60 - 1e-3
    assert a.control is not None and a.control.value == 0.25 and b.control is None and b.n_heldout == 0
    assert found.p_value is not None and found.p_value < 0.001


def test_groups_that_differ_by_chance_alone_are_not_told_apart() -> None:
    rng = np.random.default_rng(0)
    names = [f"class {number}" for number in range(20)]
    p_values = []
    for _ in range(60):
        found = counted({name: (int(rng.binomial(25, 0.1)), 25) for name in names})
        p_values.append(found.p_value or 1.0)
    assert np.mean(np.array(p_values) < 0.05) <= 0.12
    assert 0.3 < np.mean(p_values) < 0.7


def test_a_rare_class_that_is_copied_is_told_though_the_whole_rate_is_low() -> None:
    found = counted({"often": (2, 190), "rare": (9, 10)})
    assert found.p_value is not None and found.p_value < 0.001
    assert counted({"a": (0, 10), "b": (0, 10)}).p_value is None and counted({"a": (3, 10)}).p_value is None


def test_the_rarest_group_comes_first_and_a_group_without_training_images_has_no_rate_of_memorized_ones() -> None:
    found = group_rates("xxy", np.array([True, False, False]), "xxx", np.zeros(3, dtype=bool), [1, 1, 2])
    assert [(group.name, group.n_train, group.n_patients) for group in found.groups] == [("y", 0, 0), ("x", 3, 2)]
    assert found.groups[0].memorized is None and found.groups[1].memorized is not None

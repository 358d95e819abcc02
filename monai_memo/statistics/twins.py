# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Samples of twin generators, summed up: what is above the similarities to patients whom the generator never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from monai_memo.statistics.intervals import percentile_interval, proportion_interval

RATES = (0.05, 0.01)
DRAWS = 1000
Floats = NDArray[np.float64]


def area_under_curve(own: Floats, twin: Floats) -> float:
    """Chance that a similarity to the own half is above one to the twin's half, ties counting a half.

    Example:
        >>> area_under_curve(np.array([0.9, 0.5]), np.array([0.5, 0.1]))
        0.875
    """
    ranks = rankdata(np.concatenate([own, twin]))[: len(own)]
    return float((ranks.sum() - len(own) * (len(own) + 1) / 2) / (len(own) * len(twin)))


def found_at(own: Floats, twin: Floats, rate: float) -> float:
    """Share of the similarities to the own half above the threshold that this share of the twin's is above."""
    return float((own > np.quantile(twin, 1 - rate)).mean())


def summarise(units: Sequence[Mapping[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """One row for each generator and number of steps, over all splits and both halves.

    Args:
        units: of ``study.twins``: ``generator``, ``steps``, ``scores`` and ``audit``.
        seed: of the resampling.

    Returns:
        ``called`` against ``own`` and ``twin`` half, ``called_by_control`` by a threshold from held-out images alone,
        ``called_in_part`` of those that are not called, ``excess`` by the reference control of the own half and in how
        many audits it was ``shown`` (the twin's half must show none beyond chance), and for each of the ``methods`` its
        ``auc`` and ``found_at_<rate>``, all as value, low and high of 95 %. Whole trainings are resampled, and samples
        within each: samples of one training share its patients.
    """
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for unit in units:
        groups.setdefault((unit["generator"], unit["steps"]), []).append(unit)
    return [
        {
            "generator": generator, "steps": steps, "trainings": len(group),
            "samples": sum(unit["audit"]["own"]["of"] for unit in group),
            "called": {side: _called(group, side, seed) for side in ("own", "twin")},
            "called_by_control": {side: _called(group, side, seed, "called_by_control") for side in ("own", "twin")},
            "called_in_part": {side: _called(group, side, seed, "called_in_part") for side in ("own", "twin")},
            "excess": _excess(group, seed),
            "shown": {side: sum(unit["audit"][side]["p_value"] < 0.05 for unit in group) for side in ("own", "twin")},
            "methods": {name: _method(group, name, seed) for name in group[0]["scores"]},
        }
        for (generator, steps), group in groups.items()
    ]  # fmt: skip


def _called(group: Sequence[Mapping[str, Any]], side: str, seed: int, key: str = "called") -> list[float]:
    rng = np.random.default_rng([seed, 3])
    counts = np.array([unit["audit"][side][key] for unit in group])
    sizes = np.array([unit["audit"][side]["of"] for unit in group])
    chosen = rng.integers(0, len(group), (DRAWS, len(group)))
    # None of a few samples does not mean none of many: each training's share is drawn from what its count allows.
    shares = rng.beta(counts[chosen] + 0.5, sizes[chosen] - counts[chosen] + 0.5)
    draws = (shares * sizes[chosen]).sum(axis=1) / sizes[chosen].sum(axis=1)
    return _interval(float(counts.sum() / sizes.sum()), draws)


def _excess(group: Sequence[Mapping[str, Any]], seed: int) -> list[float]:
    """Mean over trainings; draws of trainings, and of each one's interval taken for a normal one."""
    rng = np.random.default_rng([seed, 5])
    values, low, high = np.array([unit["audit"]["own"]["excess"] for unit in group]).T
    chosen = rng.integers(0, len(group), (DRAWS, len(group)))
    spread = (high - low) / (2 * norm.ppf(0.975))
    draws = (values[chosen] + spread[chosen] * rng.standard_normal(chosen.shape)).mean(axis=1)
    return _interval(float(values.mean()), np.minimum(draws, 1.0))  # a share


def _method(group: Sequence[Mapping[str, Any]], name: str, seed: int) -> dict[str, list[float]]:
    pairs = [
        (np.asarray(unit["scores"][name]["own"], dtype=float), np.asarray(unit["scores"][name]["twin"], dtype=float))
        for unit in group
    ]
    rng = np.random.default_rng([seed, 4])
    measures = {"auc": area_under_curve} | {
        f"found_at_{rate}": lambda own, twin, rate=rate: found_at(own, twin, rate) for rate in RATES
    }
    values: dict[str, list[float]] = {measure: [] for measure in measures}
    for draw in range(DRAWS // 5 + 1):
        chosen = pairs if draw == 0 else [pairs[i] for i in rng.integers(0, len(pairs), len(pairs))]
        rows = [np.arange(len(own)) if draw == 0 else rng.integers(0, len(own), len(own)) for own, _ in chosen]
        own = np.concatenate([one[0][row] for one, row in zip(chosen, rows, strict=True)])
        twin = np.concatenate([one[1][row] for one, row in zip(chosen, rows, strict=True)])
        for measure, function in measures.items():
            values[measure].append(function(own, twin))
    total = sum(len(own) for own, _ in pairs)
    result = {measure: _interval(found[0], np.array(found[1:])) for measure, found in values.items()}
    for measure, (value, low, high) in result.items():
        if measure != "auc":  # all or none of them found: resampling cannot move that
            least = proportion_interval(value * total, total)
            result[measure] = [value, round(min(low, least.low), 4), round(max(high, least.high), 4)]
    return result


def _interval(value: float, draws: Floats) -> list[float]:
    interval = percentile_interval(value, draws)
    low, high = min(interval.low, value), max(interval.high, value)
    return [round(value, 4), round(low, 4), round(high, 4)]

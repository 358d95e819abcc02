# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The pass rule of docs/mitigation_benchmark.md, registered before the benchmark was run, on units that were measured.

A unit is a mapping with ``arm``, ``n_patients``, ``seed``, ``excess_control`` and ``excess_reference`` (value, low,
high), ``scores`` by name, ``seconds_per_image`` and whatever else the table shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from monai_memo.statistics.intervals import Interval
from monai_memo.statistics.quality import KernelDistance, paired_difference

Unit = Mapping[str, Any]
PLAIN = "plain"
EXCESSES = ("excess_reference", "excess_control")
GRADIENT_WITHIN, HALF = 0.2, 0.5
# Scores of quality, and what is good: 1 more, -1 less, 0 near to that of real images.
SCORES = {
    "kid": -1, "fid": -1, "precision": 1, "recall": 1, "density": 1, "coverage": 1, "ms_ssim": 0, "gradient_ratio": 0,
    "balanced_accuracy": 1, "auc": 1,
}  # fmt: skip


def mean_excess(units: Sequence[Unit], name: str) -> Interval:
    """Mean over seeds; its interval is that of new samples and held-out patients for these very trainings."""
    values, lows, highs = (np.array([unit[name][i] for unit in units]) for i in range(3))
    value, n = float(values.mean()), len(units)
    below = float(np.sqrt(((values - lows) ** 2).sum())) / n
    above = float(np.sqrt(((highs - values) ** 2).sum())) / n
    return Interval(value, value - below, value + above)


def largest_difference(units: Sequence[Unit], score: str) -> float:
    """Of a score, between two seeds of one arm; 0 for a single seed."""
    values = [unit["scores"][score] for unit in units if unit["scores"].get(score) is not None]
    return max((abs(first - second) for first, second in combinations(values, 2)), default=0.0)


def judge(
    arm: Mapping[int, Unit],
    plain: Mapping[int, Unit],
    distances: Mapping[tuple[str, int], KernelDistance],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """One arm at one size by the registered rule.

    Args:
        arm, plain: units by seed.
        distances: kernel distance of the samples, by arm and seed.
        seeds: that were registered.

    Returns:
        The three parts with their numbers, ``passed`` (None where the rule cannot be applied) and ``why``.
    """
    done = [seed for seed in seeds if seed in arm and seed in plain]
    name = str(next(iter(arm.values()))["arm"])
    found: dict[str, Any] = {
        "arm": name, "n_patients": int(next(iter(arm.values()))["n_patients"]), "seeds": done, "of": len(seeds),
    }  # fmt: skip
    if not done:
        return found | {"passed": None, "why": "no seed of this arm and of the plain one is finished"}
    ours, theirs = [arm[seed] for seed in done], [plain[seed] for seed in done]
    excesses = {key: (mean_excess(ours, key), mean_excess(theirs, key)) for key in EXCESSES}
    found |= {key: [one.value, one.low, one.high] for key, (one, _) in excesses.items()}
    pairs = [(distances[name, seed], distances[PLAIN, seed]) for seed in done]
    difference = paired_difference(pairs) if name != PLAIN else Interval(0.0, 0.0, 0.0)
    every_plain = list(plain.values())
    margin = largest_difference(every_plain, "kid")
    energies = [float(np.mean([unit["scores"]["gradient_ratio"] for unit in side])) for side in (ours, theirs)]
    ratio = energies[0] / energies[1]
    found |= {
        "halved": all(one.value <= HALF * other.value for one, other in excesses.values()),
        "kid_difference": [difference.value, difference.low, difference.high],
        "kid_margin": margin,
        "as_good": difference.high <= margin,
        "gradient_of_plain": ratio,
        "as_sharp": abs(ratio - 1) <= GRADIENT_WITHIN,
    }
    if name == PLAIN:
        return found | {"passed": None, "why": "the arm that the others are compared with"}
    if min(other.value for _, other in excesses.values()) <= 0:
        return found | {"passed": None, "why": "the plain arm has no excess: there is nothing to halve"}
    if len(done) < len(seeds):
        return found | {"passed": None, "why": f"{len(done)} of {len(seeds)} seeds are finished"}
    failed = [
        words
        for key, words in (
            ("halved", "the excess is not halved"),
            ("as_good", "samples are farther from unseen patients"),
            ("as_sharp", "gradient energy differs by more than 20 %"),
        )
        if not found[key]
    ]
    return found | {"passed": not failed, "why": "; ".join(failed) or "all three parts hold"}


def judge_all(
    units: Sequence[Unit], distances: Mapping[tuple[int, str, int], KernelDistance], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Every arm at every size, the plain one first.

    Args:
        distances: by number of patients, arm and seed.
    """
    rows = []
    for size in sorted({int(unit["n_patients"]) for unit in units}):
        here = [unit for unit in units if unit["n_patients"] == size]
        plain = {int(unit["seed"]): unit for unit in here if unit["arm"] == PLAIN}
        by_arm = {(arm, seed): found for (patients, arm, seed), found in distances.items() if patients == size}
        for name in dict.fromkeys([PLAIN, *(str(unit["arm"]) for unit in here)]):
            arm = {int(unit["seed"]): unit for unit in here if unit["arm"] == name}
            if arm:
                rows.append(judge(arm, plain, by_arm, seeds))
    return rows


def lets_pass(switched: Unit, memorizer: Unit, plain: Sequence[Unit], real: Mapping[str, float]) -> dict[str, bool]:
    """Which scores call a perfect memorizer behind a switch as good as without it.

    As good: not worse than the memorizer as it is by more than the largest difference of the plain arm between two
    seeds; for gradient energy by no more than the rule's 20 %.

    Args:
        switched, memorizer: units of the sanity arm.
        plain: units of the plain arm.
        real: scores of real images, for those that should be near to them.
    """
    found = {}
    for score, direction in SCORES.items():
        one, other = (unit["scores"].get(score) for unit in (switched, memorizer))
        if one is None or other is None:
            continue
        if score == "gradient_ratio":
            found[score] = bool(abs(one / other - 1) <= GRADIENT_WITHIN)
            continue
        worse = abs(one - real[score]) - abs(other - real[score]) if direction == 0 else direction * (other - one)
        found[score] = bool(worse <= largest_difference(plain, score))
    return found


def sanity(units: Sequence[Unit], plain: Sequence[Unit], real: Mapping[str, float]) -> dict[str, Any]:
    """What the sanity arm shows: switches that halve its excess, and the scores that then let it pass.

    Returns:
        ``switches`` by name with ``halved``, ``let_pass`` and ``rule_holds`` (KID or gradient energy catches it), and
        ``not_used``: scores that let one pass.
    """
    memorizer = next(unit for unit in units if unit["arm"] == PLAIN)
    switches: dict[str, Any] = {}
    for unit in units:
        if unit["arm"] == PLAIN:
            continue
        halved = all(unit[key][0] <= HALF * memorizer[key][0] for key in EXCESSES)
        scores = lets_pass(unit, memorizer, plain, real)
        let = [score for score, passed in scores.items() if passed and halved]
        caught = not halved or not (scores["kid"] and scores["gradient_ratio"])
        switches[str(unit["arm"])] = {"halved": halved, "scores": scores, "let_pass": let, "rule_holds": caught}
    not_used = [score for score in SCORES if any(score in one["let_pass"] for one in switches.values())]
    return {"switches": switches, "not_used": not_used}

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Quality of samples, the pass rule of docs/mitigation_benchmark.md, and what the sanity arm does with scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from monai_memo.benchmark.mitigation_report import copies_and_quality, save_figure, verdict_table
from monai_memo.benchmark.mitigation_rule import judge, judge_all, lets_pass, sanity
from monai_memo.benchmark.neutral import ALTERATIONS, altered, train_classifier, train_features, usefulness
from monai_memo.data.phantoms import chest_phantom
from monai_memo.statistics.quality import KernelDistance, feature_scores, gradient_energy, paired_difference

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(120, 6))
PIXELS = np.stack([chest_phantom(number, (32, 32)) for number in range(48)]).astype(np.float32)


def shifted(by: float, seed: int, n: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 6)) + by


def test_the_kernel_distance_is_that_of_its_formula_and_does_not_grow_with_fewer_images() -> None:
    x, y = shifted(0.0, 1, 5), shifted(1.0, 2, 4)
    kernel = lambda a, b: (float(a @ b) / 6 + 1) ** 3  # noqa: E731
    within = np.mean([kernel(x[i], x[j]) for i in range(5) for j in range(5) if i != j])
    among = np.mean([kernel(y[i], y[j]) for i in range(4) for j in range(4) if i != j])
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert KernelDistance(x, y).value() == pytest.approx(within + among - 2 * across)
    few = np.mean([KernelDistance(shifted(0.5, seed, 8), REAL).value() for seed in range(300)])
    many = np.mean([KernelDistance(shifted(0.5, seed, 80), REAL).value() for seed in range(60)])
    assert few == pytest.approx(many, rel=0.15)


def test_resampled_samples_are_not_compared_with_themselves() -> None:
    distance = KernelDistance(shifted(0.0, 1, 40), REAL)
    draws = np.random.default_rng(3).multinomial(40, np.full(40, 1 / 40), size=400).astype(float)
    resampled = np.array([distance.value(w) for w in draws])
    assert abs(resampled.mean() - distance.value()) < 0.2 * resampled.std()


def test_the_paired_difference_is_narrower_than_two_distances_apart_and_covers_none() -> None:
    base = shifted(0.3, 5)
    alike = base + 0.01 * shifted(0.0, 6)
    pairs = [(KernelDistance(alike, REAL), KernelDistance(base, REAL))]
    found = paired_difference(pairs, n_bootstrap=400)
    assert found.low < 0 < found.high
    strangers = paired_difference([(KernelDistance(shifted(0.3, 7), REAL), pairs[0][1])], n_bootstrap=400)
    assert found.high - found.low < 0.5 * (strangers.high - strangers.low)
    with pytest.raises(ValueError, match="equally many"):
        paired_difference([(KernelDistance(base[:10], REAL), pairs[0][1])])


def test_scores_tell_real_images_from_others() -> None:
    same, other = (feature_scores(shifted(by, 8, 100), REAL) for by in (0.0, 2.0))
    assert same["kid"] < other["kid"] and same["fid"] < other["fid"]
    assert same["coverage"] > 0.8 > other["coverage"] and same["recall"] > other["recall"]


def test_gradient_energy_falls_with_blur_and_rises_with_noise() -> None:
    plain = gradient_energy(PIXELS).mean()
    soft = gradient_energy(np.stack([gaussian_filter(image, (0, 1, 1)) for image in PIXELS])).mean()
    noisy = gradient_energy(PIXELS + 0.1 * RNG.normal(size=PIXELS.shape)).mean()
    assert soft < 0.8 * plain < 1.2 * plain < noisy
    steps = np.zeros((1, 1, 2, 2, 2))
    steps[..., 1] = 3.0
    assert gradient_energy(steps).tolist() == [pytest.approx(3.0)]


def test_features_see_noise_and_lost_detail_that_a_copy_detector_is_taught_to_overlook(tmp_path: Path) -> None:
    features = train_features(PIXELS, None, tmp_path / "features.pt", steps=150, progress=False)
    real = features(PIXELS)
    assert real.shape == (48, 64) and real.mean() == pytest.approx(0, abs=1e-4)
    distance = KernelDistance(real[:24], real[24:]).value()
    for kind in (1, 2):
        draws = torch.Generator().manual_seed(2)
        images = altered(torch.from_numpy(PIXELS[:24]), torch.full((24,), kind), draws).numpy()
        assert KernelDistance(features(images), real[24:]).value() > distance + 0.05, ALTERATIONS[kind]
    again = train_features(PIXELS, None, tmp_path / "features.pt", steps=150, progress=False)
    assert np.array_equal(real, again(PIXELS))


def test_a_classifier_of_samples_is_tested_on_patients_and_its_interval_is_of_patients() -> None:
    positive = np.arange(48) % 2 == 1
    images = PIXELS.copy()
    images[positive, :, 10:22, 10:22] = 1.0
    classifier = train_classifier(images[:32], positive[:32], seed=0, steps=60)
    found = usefulness(classifier(images[32:]), positive[32:], np.arange(16), n_bootstrap=100)
    assert found.auc.value > 0.9 and found.balanced_accuracy.high <= 1
    chance = usefulness(np.full(16, 0.7), positive[32:], np.arange(16), n_bootstrap=100)
    assert chance.balanced_accuracy.value == 0.5 and chance.auc.value == 0.5
    thirds = usefulness(RNG.random(48), positive, np.arange(48) // 12, n_bootstrap=100)
    singles = usefulness(RNG.random(48), positive, np.arange(48), n_bootstrap=100)
    assert thirds.auc.high >= thirds.auc.value and singles.auc.low <= singles.auc.value


def unit(
    arm: str, seed: int, excess: float, gradient: float = 0.8, kid: float = 0.1, **scores: float
) -> dict[str, Any]:
    width = [excess, excess - 0.05, excess + 0.05]
    return {
        "arm": arm, "n_patients": 50, "seed": seed, "excess_reference": width, "excess_control": width,
        "scores": {"kid": kid, "gradient_ratio": gradient, **scores},
    }  # fmt: skip


def judged(
    excess: float, shift: float = 0.3, gradient: float = 0.8, plain: float = 0.6, seeds: int = 3
) -> dict[str, Any]:
    theirs = {seed: unit("plain", seed, plain, kid=0.1 + 0.02 * seed) for seed in range(3)}
    ours = {seed: unit("new", seed, excess, gradient) for seed in range(seeds)}
    distances = {("plain", seed): KernelDistance(shifted(0.3, seed), REAL) for seed in range(3)}
    distances |= {("new", seed): KernelDistance(shifted(0, seed) + shift, REAL) for seed in range(3)}
    return judge(ours, theirs, distances, (0, 1, 2))


def test_an_arm_passes_when_the_excess_is_halved_and_samples_are_as_good_and_as_sharp() -> None:
    found = judged(0.3)
    assert found["passed"] is True and found["kid_margin"] == pytest.approx(0.04)
    assert found["kid_difference"] == [pytest.approx(0.0)] * 3


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"excess": 0.31}, "the excess is not halved"),
        ({"excess": 0.1, "shift": 1.0}, "samples are farther from unseen patients"),
        ({"excess": 0.1, "gradient": 1.0}, "gradient energy differs by more than 20 %"),
        ({"excess": 0.1, "gradient": 0.6}, "gradient energy differs by more than 20 %"),
    ],
)
def test_an_arm_fails_by_each_part_of_the_rule(change: dict[str, float], why: str) -> None:
    found = judged(**change)
    assert found["passed"] is False and found["why"] == why


def test_nothing_is_judged_without_an_excess_or_without_all_seeds() -> None:
    assert judged(0.0, plain=-0.01)["passed"] is None
    short = judged(0.1, seeds=2)
    assert short["passed"] is None and short["why"] == "2 of 3 seeds are finished"


def test_the_table_and_the_figure_have_every_arm(tmp_path: Path) -> None:
    units = [unit(arm, seed, 0.2, kid=0.1 + 0.01 * seed) for arm in ("plain", "new") for seed in range(3)]
    distances = {
        (50, arm, seed): KernelDistance(shifted(0.3, seed), REAL) for arm in ("plain", "new") for seed in range(3)
    }
    rows = judge_all(units, distances, (0, 1, 2))
    assert [row["arm"] for row in rows] == ["plain", "new"]
    lines = verdict_table(rows).splitlines()
    assert lines[2].startswith("| 50 | plain | 3 of 3 | 20.0 (17.1 to 22.9) |")
    assert "fails: the excess is not halved" in lines[3]
    assert len({line.count("|") for line in lines}) == 1
    save_figure(copies_and_quality(units, rows), tmp_path / "a.png")
    save_figure(copies_and_quality(units, rows), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_score_that_calls_a_memorizer_behind_a_switch_as_good_is_not_used() -> None:
    plain = [unit("plain", seed, 0.6, kid=0.1 + 0.01 * seed, coverage=0.5, ms_ssim=0.5) for seed in range(3)]
    memorizer = unit("plain", 0, 0.9, kid=0.05, gradient=1.0, coverage=0.6, ms_ssim=0.5)
    noisy = unit("repellency", 0, 0.1, kid=0.4, gradient=1.6, coverage=0.6, ms_ssim=0.2)
    real = {"ms_ssim": 0.5, "gradient_ratio": 1.0}
    assert lets_pass(noisy, memorizer, plain, real) == {
        "kid": False, "coverage": True, "ms_ssim": False, "gradient_ratio": False,
    }  # fmt: skip
    found = sanity([memorizer, noisy], plain, real)
    assert found["not_used"] == ["coverage"] and found["switches"]["repellency"]["rule_holds"]
    still = unit("rejection", 0, 0.9, kid=0.05, gradient=1.0, coverage=0.6, ms_ssim=0.5)
    found = sanity([memorizer, still], plain, real)
    assert found["not_used"] == [] and not found["switches"]["rejection"]["halved"]
    cheat: Mapping[str, Any] = unit("repellency", 0, 0.1, kid=0.05, gradient=1.0, coverage=0.6, ms_ssim=0.5)
    assert not sanity([memorizer, cheat], plain, real)["switches"]["repellency"]["rule_holds"]

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Simulated audits for the reference control: coverage of its interval and type-I error of its p-value.

    python -m monai_memo.benchmark.reference_coverage --out docs/studies/reference_coverage.json

Patients are points, their images scatter about them. Samples of the generator are soft: they lie nearer to the mean
than patients do, so that some patients are near to many of them. A share of the samples are copies of training images.
Each audit has new patients in both galleries and new samples.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_memo.progress import following
from monai_memo.statistics.intervals import proportion_interval
from monai_memo.statistics.reference import NearestPatients, look_alike_share, reference_control

DIMENSIONS = 8
WITHIN, SOFT, NOISE = 0.5, 0.6, 0.05  # scatter of a patient's images; length of samples; of copies about originals


@dataclass(frozen=True)
class Setting:
    """One kind of audit.

    Attributes:
        training, heldout: patients.
        images: of each patient on average; the numbers vary.
        samples: synthetic images.
        copied: share of them that are copies.
        level: quantile of the threshold.
    """

    training: int
    heldout: int
    images: float = 3.0
    samples: int = 200
    copied: float = 0.0
    level: float = 0.95


SETTINGS = tuple(
    Setting(training, heldout, copied=copied)
    for training, heldout in ((30, 600), (60, 300), (100, 100), (300, 300), (300, 60), (600, 30))
    for copied in (0.0, 0.05, 0.3)
)


def simulate(setting: Setting, rng: np.random.Generator) -> tuple[NearestPatients, float, NDArray[np.bool_]]:
    """One audit: nearest patients, tau, and which samples are copies."""
    patients = setting.training + setting.heldout
    numbers = 1 + rng.poisson(setting.images - 1, patients)
    owner = np.repeat(np.arange(patients), numbers)
    centres = rng.normal(size=(patients, DIMENSIONS))
    images = centres[owner] + WITHIN * rng.normal(size=(len(owner), DIMENSIONS))
    in_training = owner < setting.training
    samples = SOFT * rng.normal(size=(setting.samples, DIMENSIONS)) * (1 + WITHIN**2) ** 0.5
    copies = rng.random(setting.samples) < setting.copied
    originals = rng.choice(np.flatnonzero(in_training), int(copies.sum()))
    samples[copies] = images[originals] + NOISE * rng.normal(size=(len(originals), DIMENSIONS))

    def nearness(queries: NDArray[np.float64], gallery: NDArray[np.float64]) -> NDArray[np.float64]:
        squared = (queries**2).sum(axis=1)[:, None] - 2 * queries @ gallery.T + (gallery**2).sum(axis=1)[None]
        return -np.sqrt(np.maximum(squared, 0))

    first = np.concatenate([[0], np.cumsum(numbers)[:-1]])
    posing = images[first[setting.training :]]  # one image of each held-out patient
    tau = float(np.quantile(nearness(posing, images[in_training]).max(axis=1), setting.level))
    found = nearness(samples, images)
    best = found.argmax(axis=1)
    return (
        NearestPatients(
            found.max(axis=1), owner[best].astype(np.int64), np.arange(patients) < setting.training, numbers
        ),
        tau,
        copies,
    )


def measure(setting: Setting, repeats: int, seed: int, shown: bool = False) -> dict[str, float]:
    """Coverage, type-I error or power, and what the list of ``look_alike_share`` holds, over simulated audits."""
    rng = np.random.default_rng([seed, setting.training, setting.heldout, round(1000 * setting.copied)])
    covered = rejected = above = below = 0
    excess, widths, false, listed = [], [], [], []
    for number in following(range(repeats), f"{setting.training}:{setting.heldout}", shown=shown):
        nearest, tau, copies = simulate(setting, rng)
        found = reference_control(nearest, tau, seed=int(number))
        covered += found.excess.low <= setting.copied <= found.excess.high
        above += found.excess.low > setting.copied
        below += found.excess.high < setting.copied
        rejected += found.p_value <= 0.05
        excess.append(found.excess.value)
        widths.append(found.excess.high - found.excess.low)
        chosen = look_alike_share(nearest) <= 0.05
        listed.append(chosen.sum() / max(1, copies.sum()))
        false.append((chosen & ~copies).sum() / max(1, chosen.sum()))
    error = proportion_interval(rejected, repeats)
    return {
        "coverage": covered / repeats, "too_high": above / repeats, "too_low": below / repeats,
        "rejected": error.value, "rejected_low": error.low, "rejected_high": error.high,
        "mean_excess": float(np.mean(excess)), "mean_width": float(np.mean(widths)),
        "false_on_list": float(np.mean(false)), "copies_on_list": float(np.mean(listed)),
    }  # fmt: skip


def main() -> None:
    """Run all settings and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="reference_coverage.json")
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = []
    for setting in SETTINGS:
        rows.append({**asdict(setting), "repeats": given.repeats, **measure(setting, given.repeats, given.seed)})
        numbers = {name: round(value, 3) for name, value in rows[-1].items() if isinstance(value, float)}
        print(f"{setting.training}:{setting.heldout} {numbers}", flush=True)
    Path(given.out).write_text(json.dumps({"seed": given.seed, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

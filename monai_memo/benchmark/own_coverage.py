# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Do calls hold for samples that are near to everybody? Simulated audits with and without their own references.

``python -m monai_memo.benchmark.own_coverage`` prints the table of ``docs/statistics.md``.
"""

from __future__ import annotations

import argparse

import numpy as np

from monai_memo.statistics.hubs import best_without_hubs, usual_nearness
from monai_memo.statistics.own_references import OwnReferences
from monai_memo.statistics.rates import audit_rates
from monai_memo.statistics.similarities import Floats, Integers, Similarities

TRAINING, HELDOUT, SAMPLES = 120, 150, 200
RATIOS, NEARNESS, COPIES, HUBS = (1, 2, 4, 10), (0.0, 0.3), (0, 40), (0.0, 0.15)
CANDIDATES = 5  # as a search scores


def simulated(
    rng: np.random.Generator, ratio: int, nearness: float, copies: int = 0, hubs: float = 0.0
) -> tuple[Similarities, OwnReferences]:
    """An audit of samples that are nearer to everybody than held-out images are.

    Args:
        rng: what is drawn from.
        ratio: training images for each held-out image that the samples are looked up among.
        nearness: mean shift of the samples' similarities, on Fisher's scale; each sample has its own.
        copies: how many of the samples are copies.
        hubs: how much nearer some patients are to all samples than others, standard deviation on Fisher's scale.
    """

    def looked_up(count: int, gallery: int, nearer: Floats | float, spread: float = 0.0) -> Floats:
        patients = spread * rng.standard_normal((gallery, 1))
        return np.asarray(np.tanh(0.2 * rng.standard_normal((gallery, count)) + nearer + patients), dtype=np.float64)

    nearer = nearness * (1 + 0.5 * rng.standard_normal(SAMPLES))
    to_training = looked_up(SAMPLES, TRAINING, nearer, hubs)
    to_training[np.arange(copies) % TRAINING, np.arange(copies)] = 0.999
    unseen = looked_up(SAMPLES, TRAINING // ratio, nearer, hubs)
    images, similarity = nearest_of(to_training)
    usual = usual_nearness(similarity)
    found = best_without_hubs(images, similarity, np.arange(TRAINING))
    heldout = nearest_of(looked_up(HELDOUT, TRAINING, 0.0))
    sims = Similarities.from_candidates(found, heldout, np.arange(TRAINING), np.arange(HELDOUT))
    return sims, OwnReferences.among(nearest_of(unseen), np.arange(len(unseen)), TRAINING, usual=usual)


def nearest_of(similarity: Floats) -> tuple[Integers, Floats]:
    """Candidates of each query, ``(gallery, queries)`` to ``(queries, candidates)`` twice."""
    images = np.argsort(-similarity, axis=0)[:CANDIDATES].T
    return images, np.take_along_axis(similarity.T, images, axis=1)


def row(ratio: int, nearness: float, copies: int, hubs: float, audits: int, seed: int) -> str:
    """One row of the table."""
    rng, found = np.random.default_rng([seed, ratio, int(100 * nearness), copies, int(100 * hubs)]), []
    for _ in range(audits):
        sims, own = simulated(rng, ratio, nearness, copies, hubs)
        rates = audit_rates(sims, n_bootstrap=200, own=own)
        above, excess = sims.synthetic_to_training > rates.tau.value, rates.excess_copies
        by_control = sims.synthetic_to_training > rates.tau_control
        held = excess.low <= copies / SAMPLES <= excess.high
        others = SAMPLES - copies
        found.append((
            above[copies:].sum() / others, by_control[copies:].sum() / others,
            above[:copies].mean() if copies else np.nan, excess.low > 0, held,
        ))  # fmt: skip
    called, control, detected, shown, covered = 100 * np.mean(found, axis=0)
    share = "-" if np.isnan(detected) else f"{detected:.1f}"
    return (
        f"| {ratio} | {nearness:g} | {hubs:g} | {100 * copies / SAMPLES:g} | {control:.1f} | {called:.1f} | {share} "
        f"| {shown:.1f} | {covered:.1f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--audits", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(
        "| training images for each held-out one | nearness | hubs | copies, % "
        "| others called by held-out images alone, % | others called, % | copies called, % "
        "| excess shown in audits, % | interval of the excess covers it, % |"
    )
    print("| --- " * 9 + "|")
    for copies in COPIES:
        for ratio in RATIOS:
            for nearness in NEARNESS:
                for hubs in HUBS if nearness else (0.0,):
                    print(row(ratio, nearness, copies, hubs, given.audits, given.seed), flush=True)


if __name__ == "__main__":
    main()

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The control on held-out images and the reference control on samples of generators whose copies are known.

    python -m monai_memo.benchmark.reference_generators IMAGES.npy PATIENTS.npy --out FILE.json

``IMAGES.npy`` holds ``(n, 1, height, width)`` in [0, 1], ``PATIENTS.npy`` the patient of each. Generators in closed
form, fitted to the training images: Gaussians of their principal components copy nothing, soft with few components and
less so with many; a memorizer copies everything, soft or under noise; mixtures copy a known share; unseen images are
what a perfect generator would draw, all sharp or some of them blurred; means of unseen images are near to everybody.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from monai_memo.audit.comparison import Comparison, patient_codes, with_soft_part
from monai_memo.audit.parts import Count, Estimate
from monai_memo.audit.record import estimate_of
from monai_memo.audit.reference import describe_reference, joint_patients, nearest_patients
from monai_memo.audit.sharpness import match_sharpness, soft_part
from monai_memo.audit.verdict import verdict_for, weighed
from monai_memo.progress import following
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.gallery import Gallery
from monai_memo.search.runner import Runner
from monai_memo.search.shape_retriever import ShapeRetriever
from monai_memo.statistics.discoveries import discover
from monai_memo.statistics.hubs import best_without_hubs, usual_nearness
from monai_memo.statistics.own_references import OwnReferences, rows_looked_through
from monai_memo.statistics.rates import audit_rates, thresholds
from monai_memo.statistics.reference import look_alike_share, reference_control
from monai_memo.statistics.similarities import Similarities

Images = NDArray[np.float32]
FDR = 0.05


def gaussian(training: Images, components: int) -> Callable[[int, np.random.Generator], Images]:
    """Draws from a Gaussian of some principal components."""
    flat = training.reshape(len(training), -1).astype(np.float64)
    mean = flat.mean(axis=0)
    _, scale, axes = np.linalg.svd(flat - mean, full_matrices=False)
    components = min(components, len(training) - 1)

    def draw(n: int, rng: np.random.Generator) -> Images:
        weights = rng.normal(size=(n, components)) * scale[:components] / len(training) ** 0.5
        drawn = (mean + weights @ axes[:components]).clip(0, 1)
        return drawn.reshape(n, *training.shape[1:]).astype(np.float32)

    return draw


def blurred(images: Images, sigma: float) -> Images:
    """Each image, softer."""
    return gaussian_filter(images, (0, 0, sigma, sigma)).astype(np.float32)


def samples_of(
    name: str, training: Images, unseen: Images, n: int, rng: np.random.Generator
) -> tuple[Images, NDArray[np.bool_]]:
    """Samples of one generator, and which of them are copies."""
    copies = np.zeros(n, dtype=bool)
    chosen = np.sort(rng.choice(len(training), n))
    new = unseen[rng.permutation(len(unseen))[:n]]
    if name.startswith("gaussian"):
        return gaussian(training, int(name.split()[1]))(n, rng), copies
    if name == "memorizer, soft":
        return blurred(training[chosen], 0.8), ~copies
    if name == "memorizer, noise":
        return (training[chosen] + 0.05 * rng.normal(size=new.shape)).clip(0, 1).astype(np.float32), ~copies
    if name.startswith("mixture"):
        copies[: round(float(name.split()[1]) / 100 * n)] = True
        drawn = gaussian(training, 40)(n, rng)
        drawn[copies] = blurred(training[chosen], 0.8)[copies]
        return drawn, copies
    if name.startswith("means"):
        each = rng.choice(len(unseen), (n, int(name.split()[1])))
        return np.stack([unseen[rows].mean(axis=0) for rows in each]).astype(np.float32), copies
    if name.startswith("unseen"):
        soft = np.arange(n) < round(float(name.split()[1]) / 100 * n)
        return np.where(soft[:, None, None, None], blurred(new, 1.5), new).astype(np.float32), copies
    raise ValueError(f"no generator {name}")


GENERATORS = (
    "gaussian 10", "gaussian 40", "gaussian 150", "memorizer, soft", "memorizer, noise", "mixture 10", "mixture 30",
    "means 2", "means 4", "unseen 0", "unseen 10", "unseen 30", "unseen 100",
)  # fmt: skip


def look(search: CopySearch, images: Images) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Candidates and similarities."""
    found = search.search(images.astype(np.float32))
    return found.candidates, found.similarity


def fitted(pixels: Images, patients: NDArray[np.int64]) -> CopySearch:
    """A search that needs no detector: by shape, then by registration and as a whole."""
    return CopySearch([ShapeRetriever()]).fit(Gallery(pixels, patients), Runner(progress=False))


def measure(
    images: Images, patients: NDArray[Any], sizes: tuple[int, int], n: int, seed: int, generators: Sequence[str]
) -> list[dict[str, Any]]:
    """Some generators of one split: what both controls say of their samples.

    Args:
        sizes: training and held-out patients.
        n: samples of each generator.
    """
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.unique(patients))
    parts = np.split(ids, np.cumsum(sizes))
    training, heldout, unseen = (np.flatnonzero(np.isin(patients, part)) for part in parts)
    real = {name: np.asarray(images[rows], dtype=np.float32) for name, rows in
            (("training", training), ("heldout", heldout), ("unseen", unseen))}  # fmt: skip
    names = patients[training].astype(str).tolist(), patients[heldout].astype(str).tolist()
    codes = joint_patients(*names)
    alone = fitted(real["training"], codes[: len(training)])
    both = fitted(np.concatenate([real["training"], real["heldout"]]), codes)
    others = rows_looked_through(patient_codes(names[1]), len(training), seed)
    strangers = fitted(real["heldout"][others], patient_codes(names[1])[others])
    as_they_are, rows = look(alone, real["heldout"]), []
    for name in following(generators, f"split {seed}"):
        samples, copies = samples_of(name, real["training"], real["unseen"], n, rng)
        softening = match_sharpness(samples, real["heldout"])
        control = as_they_are if softening is None else look(alone, softening(real["heldout"]))
        as_it_is = look(alone, samples)
        own = best_without_hubs(*as_it_is, alone.gallery.patients)
        sims = Similarities.from_candidates(own, control, patient_codes(names[0]), patient_codes(names[1]))
        comparison = Comparison(sims, own[0][:, 0])
        references = OwnReferences.among(
            look(strangers, samples), strangers.gallery.patients, len(training), usual=usual_nearness(as_it_is[1])
        )
        one_tau = float((sims.synthetic_to_training > thresholds(sims)[0]).mean())
        part = None if softening is not None else soft_part(samples, real["heldout"])
        if part is not None:
            theirs = look(alone, part.softening(real["heldout"]))[1][:, 0]
            references = references.moved(part.which, theirs, sims.heldout_to_training, 0.95)
            comparison = with_soft_part(comparison, part.which, theirs, 0.95)
            sims = comparison.sims
        rates = audit_rates(sims, n_bootstrap=400, seed=seed, own=references)
        by_control = float((sims.synthetic_to_training > rates.tau_control).mean())
        found = discover(
            sims.synthetic_to_training, sims.heldout_to_training, FDR, sims.heldout_patients, comparison.p_values,
            references,
        )  # fmt: skip
        candidates, similarity = best_without_hubs(*look(both, samples), codes)
        nearest = nearest_patients(similarity[:, 0], candidates[:, 0], codes, len(training))
        reference = reference_control(nearest, rates.tau.value, seed=seed)
        by_reference = look_alike_share(nearest) <= FDR
        excess, interval = estimate_of(rates.excess_copies), rates.copies
        count = Count(rates.n_copies, 0, 0, n, Estimate(interval.value, interval.low, interval.high))
        before = verdict_for(count, estimate_of(rates.control_copies), excess, None)
        record = describe_reference(reference, nearest.ratio, int(by_reference.sum()), True, rates.tau_control, 0)
        row = {
            "generator": name, "seed": seed, "softened": softening is not None, "truth": float(copies.mean()),
            "above_tau": rates.n_copies / n, "above_one_tau": one_tau, "above_control": by_control,
            "soft": 0 if part is None else int(part.which.sum()),
            "excess_control": [excess.value, excess.low, excess.high],
            "excess_reference": [reference.excess.value, reference.excess.low, reference.excess.high],
            "p_value": reference.p_value, "to_training": reference.to_training, "to_unseen": reference.to_unseen,
            "verdict_control": before["level"], "verdict": weighed(before, excess, record)["level"],
        }  # fmt: skip
        for kind, listed in (
            ("control", found.listed),
            ("reference", by_reference),
            ("both", found.listed & by_reference),
        ):
            row[f"list_{kind}"] = [int(listed.sum()), int((listed & ~copies).sum())]
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    """Measure some splits and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images")
    parser.add_argument("patients")
    parser.add_argument("--out", default="reference_generators.json")
    parser.add_argument("--training", type=int, default=150)
    parser.add_argument("--heldout", type=int, default=150)
    parser.add_argument("--samples", type=int, default=150)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--generators", nargs="*", default=GENERATORS)
    given = parser.parse_args()
    images, patients = np.load(given.images, mmap_mode="r"), np.load(given.patients)
    rows = []
    for seed in given.seeds:
        rows += measure(images, patients, (given.training, given.heldout), given.samples, seed, given.generators)
        Path(given.out).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

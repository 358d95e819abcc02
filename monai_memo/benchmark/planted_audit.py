# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Audits with known truth on real images: one real cohort is split by patient, copies are planted, the audit is run.

The synthetic cohort consists of planted copies of training images and, as its novel images, real images of patients
that are in no other cohort. A fourth part of the patients, unseen, measures the specificity at tau.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_memo.audit.audit import Audit
from monai_memo.audit.record import software_versions
from monai_memo.audit.verified_comparison import search_in
from monai_memo.benchmark.settings import PlantedAuditSettings
from monai_memo.data.cohort import Cohort, split_by_patient
from monai_memo.data.loading import Preprocessing, guess_preprocessing
from monai_memo.data.planting import plant_mixture
from monai_memo.data.prepared import prepare
from monai_memo.data.sources import require_sources
from monai_memo.data.writing import save_image, write_cohort
from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError
from monai_memo.files import write_json, write_text
from monai_memo.search.embedding_index import EmbeddingIndex
from monai_memo.statistics.intervals import proportion_interval
from monai_memo.text import cell
from monai_memo.workspace.output_folder import OutputFolder

logger = logging.getLogger(__name__)

RESULT = ("planted_audit.json", "planted_audit.md")
PARTS = ("training", "heldout", "novel", "unseen")


def plant_cohorts(
    cohort: Cohort, folder: Path, shares: Sequence[float], copy_share: float, seed: int, planting: Preprocessing
) -> dict[str, Any]:
    """Split a cohort by patient and plant copies of its training part among the novel images.

    Args:
        shares: share of patients in the training, held-out, novel and unseen part.
        copy_share: share of the synthetic cohort that are planted copies.
        planting: how originals are read before copies are made of them, at about their own resolution.

    Returns:
        ``cohorts`` (name: CSV) and ``truth``: number of ``planted`` copies, of ``synthetic`` images, of distinct
        ``originals``, of ``training`` images.
    """
    parts = split_by_patient(cohort, dict(zip(PARTS, shares, strict=True)), seed)
    n_copies = round(copy_share / (1 - copy_share) * len(parts["novel"]))
    rng = np.random.default_rng([seed, 11])
    training = parts["training"]
    chosen = np.sort(rng.choice(len(training), n_copies, replace=n_copies > len(training)))
    originals = np.stack([planting(training.images[i]) for i in chosen])
    copies, kinds = plant_mixture(originals, seed=seed)
    ending = "png" if planting.spatial_dims == 2 else "nii.gz"
    planted: list[tuple[Path, str]] = []
    table = io.StringIO()
    truth = csv.writer(table, lineterminator="\n")
    truth.writerow(["synthetic", "copied_from", "kind"])
    for number, (copy, kind, index) in enumerate(zip(copies, kinds, chosen, strict=True)):
        path = folder / "planted" / f"copy_{number:04d}.{ending}"
        save_image(path, copy)
        planted.append((path, f"planted-{number:04d}"))
        truth.writerow([path.name, cell(training.images[index].image_id), kind])
    write_text(folder / "truth.csv", table.getvalue())
    sources = {name: write_cohort(parts[name], folder / f"{name}.csv") for name in ("training", "heldout", "unseen")}
    sources["synthetic"] = write_cohort(parts["novel"], folder / "synthetic.csv", planted)
    counts = {
        "planted": n_copies,
        "synthetic": len(parts["novel"]) + n_copies,
        "originals": len(np.unique(chosen)),
        "training": len(training),
    }
    return {"cohorts": sources, "truth": counts}


def planted_audit(**arguments: Any) -> list[dict[str, Any]]:
    """Run one audit with planted copies per seed; write ``planted_audit.json`` and ``planted_audit.md``.

    Args:
        arguments: see ``PlantedAuditSettings``.
    """
    settings = PlantedAuditSettings(**arguments)
    with OutputFolder(settings.out, "planted-audit", {"cohort": settings.cohort}, RESULT) as output:
        rows = _audits(output, settings)
        output.clear()
    return rows


def _audits(output: OutputFolder, settings: PlantedAuditSettings) -> list[dict[str, Any]]:
    out, seeds = output.out, list(settings.seeds)
    require_sources({"cohort": settings.cohort})
    whole = Cohort.from_source(settings.cohort, "training", settings.patient_pattern)
    if not whole.patients_known:
        raise ConfigurationError(
            f"{settings.cohort} names no patients, and a split by image would put some on both sides: give patient_id "
            "in a CSV or datalist, or --patient_pattern"
        )
    dims = guess_preprocessing([whole]).spatial_dims
    planting = guess_preprocessing([whole], size=settings.planting_size or (224 if dims == 2 else 48))
    rows = []
    for seed in seeds:
        folder = out / f"seed_{seed}"
        planted = plant_cohorts(whole, folder, settings.shares, settings.copy_share, seed, planting)
        ready = {}
        if settings.detectors is not None:
            ready = {"detector": str(Path(settings.detectors) / f"seed_{seed}" / "audit" / "detector.pt")}
        rows.append(_one(folder, planted, seed, {**settings.audit_options(), **ready}))
        logger.info("seed %d: %s", seed, rows[-1])
    asked = {"copy_share": settings.copy_share, "shares": list(settings.shares), "seeds": seeds}
    record = {"arguments": {**asked, **settings.audit_options()}, "audits": rows, "software": software_versions()}
    staging = output.staging()
    write_json(staging / "planted_audit.json", record)
    write_text(staging / "planted_audit.md", _markdown(rows))
    output.publish()
    return rows


def _one(folder: Path, planted: dict[str, Any], seed: int, arguments: dict[str, Any]) -> dict[str, Any]:
    sources = planted["cohorts"]
    audit = Audit(
        train=str(sources["training"]),
        heldout=str(sources["heldout"]),
        synthetic=str(sources["synthetic"]),
        out=str(folder / "audit"),
        seed=seed,
        **{"limit_copies": 0, **arguments},  # asked of each audit's own images, and these are planted anyway
    )
    result = audit.run()
    detector = Detector.load(folder / "audit" / "detector.pt")
    prepared = {
        name: prepare(
            Cohort.from_source(sources[name], name), detector.preprocessing, folder / "pixels", progress=False
        )
        for name in ("training", "unseen")
    }
    training, pixels = prepared["training"], prepared["unseen"].pixels
    embeddings = detector.embed(training.pixels, progress=False)
    if result.verification is None:
        unseen = EmbeddingIndex(embeddings).search(detector.embed(pixels, progress=False))[0][:, 0]
    else:
        unseen = search_in(training, embeddings, detector).search(pixels).similarity[:, 0]
    truth = planted["truth"]
    planted_names = {f"copy_{number:04d}" for number in range(truth["planted"])}
    found = [match.copy for match in result.matches if Path(match.synthetic).name.split(".")[0] in planted_names]
    passed = int((unseen > result.tau.value).sum())
    false_positives = proportion_interval(passed, len(unseen))
    return {
        "seed": seed,
        "n_train": result.n_train,
        "n_heldout": result.n_heldout,
        "n_synthetic": result.n_synthetic,
        "planted": truth["planted"],
        "originals": truth["originals"],
        "n_copies": [result.n_copies.value, result.n_copies.low, result.n_copies.high],
        "n_mem": [result.n_mem.value, result.n_mem.low, result.n_mem.high],
        "excess": [result.excess_copies.value, result.excess_copies.low, result.excess_copies.high],
        "planted_found": int(sum(found)),
        "share_in_interval": bool(result.n_copies.low <= truth["planted"] <= result.n_copies.high),
        "excess_in_interval": bool(
            result.excess_copies.low <= truth["planted"] / truth["synthetic"] <= result.excess_copies.high
        ),
        "unseen": len(unseen),
        "unseen_above_tau": passed,
        "false_positive_rate": [false_positives.value, false_positives.low, false_positives.high],
        "seconds": result.timing["seconds"].get("total"),
    }


def _markdown(rows: list[dict[str, Any]]) -> str:
    header = [
        "seed", "training / held-out / synthetic", "planted", "N_copies", "originals", "N_mem", "planted found",
        "true share (%)", "excess over control (%)", "unseen above tau (%)",
    ]  # fmt: skip
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    for row in rows:
        share = 100 * row["planted"] / row["n_synthetic"]
        copies, memorized = (
            f"{value:.0f} ({low:.0f}-{high:.0f})" for value, low, high in (row["n_copies"], row["n_mem"])
        )
        excess, unseen = (
            f"{100 * value:.1f} ({100 * low:.1f}-{100 * high:.1f})"
            for value, low, high in (row["excess"], row["false_positive_rate"])
        )
        cells = [
            str(row["seed"]), f"{row['n_train']} / {row['n_heldout']} / {row['n_synthetic']}", str(row["planted"]),
            copies, str(row["originals"]), memorized, str(row["planted_found"]), f"{share:.1f}", excess, unseen,
        ]  # fmt: skip
        lines.append(" | ".join(cells))
    total = sum(row["unseen"] for row in rows)
    passed = sum(row["unseen_above_tau"] for row in rows)
    interval = proportion_interval(passed, total)
    lines_text = "\n".join(f"| {line} |" for line in lines)
    return (
        f"{lines_text}\n\nUnseen patients above tau, all seeds: {passed} of {total}, {100 * interval.value:.2f} % "
        f"({100 * interval.low:.2f}-{100 * interval.high:.2f}).\n"
    )

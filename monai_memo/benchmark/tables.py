# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""From the scores of a benchmark to its record, tables and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from monai_memo.audit.detection_limit import limits_of_detection
from monai_memo.audit.figures import write_figure
from monai_memo.audit.parts import KindLimit
from monai_memo.benchmark.baselines import Found
from monai_memo.benchmark.fdr import simulated_fdr
from monai_memo.benchmark.planted import APART
from monai_memo.benchmark.scores import KindScore, kind_score
from monai_memo.data.ladder import Planted
from monai_memo.files import write_json, write_text, write_with
from monai_memo.statistics.calibration import threshold_copies
from monai_memo.statistics.intervals import proportion_interval


def _summary(scores: Sequence[KindScore], levels: Sequence[Planted]) -> dict[str, Any]:
    """Means over kinds and strengths (without those listed apart) and the weakest of them."""
    kept = [score for score, level in zip(scores, levels, strict=True) if level not in APART]
    kept = kept or list(scores)
    result: dict[str, Any] = {
        "auc": float(np.mean([score.auc.value for score in kept])),
        "retrieval": float(np.mean([score.retrieval.value for score in kept])),
    }
    for rate in kept[0].tpr:
        values = [interval.value for score in kept if (interval := score.tpr[rate]) is not None]
        result[f"tpr_{rate}"] = float(np.mean(values)) if values else None
        result[f"weakest_{rate}"] = float(np.min(values)) if values else None
    return result


def _limits(found: Mapping[str, Found], levels: Sequence[Planted], tau: float) -> list[KindLimit]:
    return limits_of_detection({level: found[level.name][0] > tau for level in levels})


def _copies(found: Mapping[str, Found], levels: Sequence[Planted]) -> NDArray[np.float64]:
    """Scores of the copies behind the means; of those apart if there are no others."""
    kept = [level for level in levels if level not in APART] or levels
    return np.concatenate([found[level.name][0] for level in kept])


def _tau(found: Mapping[str, Found]) -> tuple[float, NDArray[np.float64]]:
    """Tau as an audit sets it, and the unseen images that did not set it."""
    negatives = found["negatives"][0]
    if "heldout" in found:
        return float(threshold_copies(found["heldout"][0])[0]), negatives
    return float(threshold_copies(negatives[::2])[0]), negatives[1::2]


def summarise_benchmark(
    results: Mapping[str, Mapping[str, Found]],
    originals: Mapping[str, NDArray[np.int64]],
    levels: Sequence[Planted],
    seed: int,
    n_bootstrap: int = 100,
) -> dict[str, Any]:
    """The numbers of every detector.

    Args:
        results: detector to query set to similarity and nearest training image.
        originals: of each level, which training images were planted.

    Returns:
        ``detectors``: for each detector ``scores`` by kind and strength, ``summary``, shares of unseen images and of
        other images of training patients above tau, ``limits`` of detection and ``fdr`` of simulated audits.
    """
    detectors: dict[str, Any] = {}
    for name, found in results.items():
        negatives = found["negatives"][0]
        scores = [
            kind_score(
                level.name,
                found[level.name][0],
                negatives,
                found[level.name][1] == originals[level.name],
                n_bootstrap,
                seed,
            )
            for level in levels
        ]
        tau, unseen = _tau(found)
        passed = proportion_interval(int((unseen > tau).sum()), len(unseen))
        entry: dict[str, Any] = {
            "summary": _summary(scores, levels),
            "tau": tau,
            "unseen_above_tau": [passed.value, passed.low, passed.high],
            "limits": _limits(found, levels, tau),
            "scores": [score.to_dict() for score in scores],
        }
        if "same patient" in found:
            same = found["same patient"][0]
            entry["same_patient_above_tau"] = float((same > tau).mean())
            entry["same_patient_images"] = len(same)
        mixed = _copies(found, levels)
        if len(negatives) >= 100:
            entry["fdr"] = [simulated_fdr(mixed, negatives, rate, seed=seed) for rate in (0.05, 0.1)]
        detectors[name] = entry
    return {"detectors": detectors}


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def markdown(record: Mapping[str, Any], levels: Sequence[Planted]) -> str:
    """The record as Markdown tables: all detectors in short, then each kind and strength."""
    detectors = record["detectors"]
    lines = [
        "| detector | AUC | TPR at 1 % FPR (%) | weakest | TPR at 0.1 % FPR (%) | original nearest (%) "
        "| unseen above tau (%) | same patient above tau (%) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, entry in detectors.items():
        summary = entry["summary"]
        cells = [
            f"{summary['auc']:.3f}",
            *(_percent(summary[key]) for key in ("tpr_0.01", "weakest_0.01", "tpr_0.001", "retrieval")),
            _percent(entry["unseen_above_tau"][0]),
            _percent(entry.get("same_patient_above_tau")),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    first = next(iter(detectors))
    lines += [
        "",
        f"TPR at 1 % FPR (%) by kind and strength; in brackets for {first}: at 0.1 % FPR. (apart): not in the means.",
        "",
        "| kind and strength | " + " | ".join(detectors) + " |",
        "| --- |" + " --- |" * len(detectors),
    ]
    for row, level in enumerate(levels):
        cells = []
        for name, entry in detectors.items():
            tpr = entry["scores"][row]["tpr"]
            value = [None if tpr[rate] is None else tpr[rate]["value"] for rate in ("0.01", "0.001")]
            cells.append(f"{_percent(value[0])} ({_percent(value[1])})" if name == first else _percent(value[0]))
        lines.append(f"| {level.name}{' (apart)' if level in APART else ''} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Limit of detection of {first}: nine of ten copies above tau.",
        "",
        "| kind | found up to | missed from |",
    ]
    lines.append("| --- | --- | --- |")
    for limit in detectors[first]["limits"]:
        cells = ["-" if limit[key] is None else f"{limit[key]:g}" for key in ("found_up_to", "missed_from")]
        lines.append(f"| {limit['kind']} | " + " | ".join(cells) + " |")
    if "fdr" in detectors[first]:
        lines += ["", "| false discovery rate asked for | realised, mean of the simulated audits | copies listed |"]
        lines.append("| --- | --- | --- |")
        for row in detectors[first]["fdr"]:
            realised = f"{row['false_discovery_proportion']:.3f} (standard error {row['standard_error']:.3f})"
            lines.append(f"| {row['rate']:g} | {realised} | {_percent(row['found'])} % |")
    return "\n".join(lines) + "\n"


def curves(results: Mapping[str, Mapping[str, Found]], levels: Sequence[Planted]) -> Figure:
    """ROC curves over all kinds in the means, false positive rate on a logarithmic axis."""
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for name, found in results.items():
        negatives = np.sort(found["negatives"][0])[::-1]
        copies = _copies(found, levels)
        rate = np.arange(len(negatives)) / len(negatives)  # share that lies above each of them
        axes.plot(rate, [(copies > threshold).mean() for threshold in negatives], label=name)
    axes.set_xscale("log")
    axes.set_ylim(0, 1.01)
    axes.set_xlabel("share of unseen patients above the threshold")
    axes.set_ylabel("share of planted copies found")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


def write_benchmark(
    folder: Path, record: Mapping[str, Any], results: Mapping[str, Mapping[str, Found]], levels: Sequence[Planted]
) -> None:
    """Write ``benchmark.json``, ``benchmark.md``, ``scores.npz`` and ``curves.png``."""
    write_json(folder / "benchmark.json", record)
    write_text(folder / "benchmark.md", markdown(record, levels))
    arrays: dict[str, Any] = {
        f"{name}|{query}": values[0] for name, found in results.items() for query, values in found.items()
    }
    write_with(folder / "scores.npz", lambda temporary: np.savez_compressed(temporary, **arrays))
    write_figure(folder / "curves.png", curves(results, levels))

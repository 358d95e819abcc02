# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Figures of a study: each factor, both calibrations on the same samples, and sampling curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from monai_memo.audit.figures import CONTROL, LINE, SYNTHETIC, write_figure
from monai_memo.study.configuration import StudyConfiguration

LABELS = {"n_patients": "training patients", "steps": "training steps", "network": "network (parameters)"}
COLOURS = (SYNTHETIC, CONTROL, "#009E73", "#CC79A7", "#E69F00")


def _finished(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [record for record in records if record["status"] == "finished"]


def _levels(records: Sequence[Mapping[str, Any]], factor: str, levels: Sequence[Any]) -> list[list[Mapping[str, Any]]]:
    """Finished runs of each level."""
    return [[record for record in _finished(records) if (factor, level) in record["levels"]] for level in levels]


def _tick(factor: str, level: Any, found: Sequence[Mapping[str, Any]]) -> str:
    if factor == "network" and found:
        return f"{level}\n{found[0]['result']['parameters'] / 1e6:.2g} M"
    return f"{level:,}" if isinstance(level, int) else str(level).replace(" and ", "\nand ")


def factor_figure(records: Sequence[Mapping[str, Any]], factor: str, levels: Sequence[Any]) -> Figure:
    """Excess over the control of copies (also by embeddings) and of memorized images, and FID; one point a seed."""
    groups = _levels(records, factor, levels)
    panels: list[tuple[str, Callable[[Mapping[str, Any]], Sequence[float] | None]]] = [
        ("copies, excess (%)", lambda result: _scaled(result["rates"]["size_matched"]["excess_copies"])),
        (
            "the same by embeddings (%)",
            lambda result: _scaled(result["rates"]["size_matched_embeddings"]["excess_copies"]),
        ),
        ("memorized, excess (%)", lambda result: _scaled(result["rates"]["size_matched"]["excess_memorized"])),
        ("FID against held-out images", lambda result: [result["quality"]["fid"]] * 3),
    ]
    figure = Figure(figsize=(11, 2.8), layout="constrained")
    for axes, (title, value_of) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for place, group in enumerate(groups):
            for number, record in enumerate(group):
                found = value_of(record["result"])
                if found is None:
                    continue
                x, colour = place + 0.12 * (number - (len(group) - 1) / 2), COLOURS[number % len(COLOURS)]
                axes.plot([x, x], found[1:], color=colour, lw=2, alpha=0.5)
                axes.plot(x, found[0], "o", color=colour, ms=5)
        axes.set_xticks(range(len(levels)))
        axes.set_xticklabels([_tick(factor, *pair) for pair in zip(levels, groups, strict=True)], fontsize=8)
        axes.set_xlim(-0.5, len(levels) - 0.5)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel(LABELS.get(factor, factor), fontsize=9)
        if "(%)" in title:
            axes.axhline(0, color=LINE, lw=0.8, ls=":")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _scaled(interval: Sequence[float] | None) -> list[float] | None:
    return None if interval is None else [100 * value for value in interval]


def calibration_figure(records: Sequence[Mapping[str, Any]]) -> Figure:
    """The paper's calibration against the size-matched one, by embeddings and on the same samples: one point a run."""
    finished = _finished(records)
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    panels = (("copies", "copies (%)"), ("memorized", "memorized (%)"), ("excess_copies", "copies, excess (%)"))
    sizes = sorted({record["run"]["n_patients"] for record in finished})
    for axes, (name, title) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for number, size in enumerate(sizes):
            chosen = [record["result"]["rates"] for record in finished if record["run"]["n_patients"] == size]
            pairs = np.array(
                [[100 * rates[a][name][0] for a in ("size_matched_embeddings", "paper")] for rates in chosen]
            )
            axes.plot(*pairs.T, "o", ms=5, alpha=0.8, color=COLOURS[number % len(COLOURS)], label=f"{size} patients")
        low, high = min(0, *axes.get_xlim(), *axes.get_ylim()), max(*axes.get_xlim(), *axes.get_ylim())
        axes.plot([low, high], [low, high], color=LINE, lw=0.8, ls=":")
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("size-matched", fontsize=9)
        axes.set_ylabel("paper", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        if name == "copies":
            axes.legend(fontsize=8, frameon=False)
    return figure


def sampling_figure(records: Sequence[Mapping[str, Any]], factors: Mapping[str, Sequence[Any]]) -> Figure:
    """Share of the training images copied over the number of samples, of the first seed; dashed: extrapolated."""
    figure = Figure(figsize=(2.6 * max(2, len(factors)), 2.8), layout="constrained")
    for axes, (factor, levels) in zip(figure.subplots(1, len(factors), squeeze=False)[0], factors.items(), strict=True):
        for number, (level, group) in enumerate(zip(levels, _levels(records, factor, levels), strict=True)):
            if not group:
                continue
            result, colour = group[0]["result"], COLOURS[number % len(COLOURS)]
            curve, n = result["sampling_curve"], result["n_synthetic"]
            drawn, copied = np.array(curve["drawn"]), 100 * np.array(curve["copied"]) / result["n_training_images"]
            axes.plot(drawn[drawn <= n], copied[drawn <= n], color=colour, label=str(level))
            axes.plot(drawn[drawn >= n], copied[drawn >= n], color=colour, ls="--")
        axes.set_title(LABELS.get(factor, factor), fontsize=9, loc="left")
        axes.set_xlabel("samples drawn", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supylabel("training images copied (%)", fontsize=8)
    return figure


def write_figures(folder: Path, records: Sequence[Mapping[str, Any]], configuration: StudyConfiguration) -> None:
    """One PNG for each factor, ``calibration.png`` and ``sampling.png``; none before a run has finished."""
    if not _finished(records):
        return
    for factor, levels in configuration.factors.items():
        write_figure(folder / f"{factor}.png", factor_figure(records, factor, levels))
    write_figure(folder / "calibration.png", calibration_figure(records))
    if configuration.factors:
        write_figure(folder / "sampling.png", sampling_figure(records, configuration.factors))

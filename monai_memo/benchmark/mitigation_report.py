# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Tables and figure of the mitigation benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from monai_memo.benchmark.mitigation_rule import PLAIN, SCORES, Unit, mean_excess
from monai_memo.files import csv_text

matplotlib.use("Agg")
VERDICT = {True: "**passes**", False: "fails", None: "-"}


def unit_row(unit: Unit) -> dict[str, Any]:
    """One line of the CSV."""
    row = {name: unit[name] for name in ("arm", "n_patients", "seed", "sanity", "n_training_images", "n_synthetic")}
    for name in ("excess_reference", "excess_control"):
        row |= {f"{name}{end}": part for end, part in zip(("", "_low", "_high"), unit[name], strict=True)}
    row |= {name: unit[name] for name in ("reference_p_value", "n_copies", "n_memorized", "embedding_copies")}
    row |= {f"similarity_{name}": unit["similarity"][name] for name in ("p99", "max")}
    row |= {f"called_by_{name}": value for name, value in unit["called_by"].items()}
    row |= {name: unit["scores"].get(name) for name in SCORES}
    for name, interval in unit["usefulness"].items():
        row |= {f"{name}_low": interval[1], f"{name}_high": interval[2]}
    return row | {name: unit[name] for name in ("seconds_per_image", "seconds_training", "run")}


def to_csv(units: Sequence[Unit]) -> str:
    """Every unit with every number."""
    rows = [unit_row(unit) for unit in units]
    columns = list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))
    return csv_text(columns, rows)


def _percent(interval: Sequence[float]) -> str:
    value, low, high = (100 * part for part in interval)
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def _mean(units: Sequence[Unit], name: str) -> float | None:
    values = [unit["scores"].get(name) for unit in units]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def _kid(value: float) -> str:
    """The cubic kernel of features far from those of real images grows without bound."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"


def verdict_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rule, part by part."""
    lines = [
        "| patients | arm | seeds | excess over the reference control, % | over the held-out control, % | halved "
        "| KID minus plain's | at most | as good | gradient energy of plain's | verdict |",
        "| ---: | --- | --- | --- | --- | --- | --- | ---: | --- | ---: | --- |",
    ]
    yes = {True: "yes", False: "no", None: "-"}
    for row in rows:
        if "halved" not in row:
            lines.append(f"| {row['n_patients']} | {row['arm']} | 0 of {row['of']} " + "| - " * 8 + "|")
            continue
        plain = row["arm"] == PLAIN
        value, low, high = row["kid_difference"]
        cells = [
            row["n_patients"], row["arm"], f"{len(row['seeds'])} of {row['of']}", _percent(row["excess_reference"]),
            _percent(row["excess_control"]), "-" if plain else yes[row["halved"]],
            "-" if plain else f"{_kid(value)} ({_kid(low)} to {_kid(high)})", _kid(row["kid_margin"]),
            "-" if plain else yes[row["as_good"]], f"{row['gradient_of_plain']:.2f}",
            VERDICT[row["passed"]] if row["passed"] or plain else f"{VERDICT[row['passed']]}: {row['why']}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def score_table(units: Sequence[Unit], real: Mapping[int, Mapping[str, float]]) -> str:
    """Means over seeds of every number, with those of real images."""
    names = {
        "kid": "KID", "fid": "FID", "precision": "precision", "recall": "recall", "density": "density",
        "coverage": "coverage", "ms_ssim": "MS-SSIM of pairs", "gradient_ratio": "gradient energy of real",
        "balanced_accuracy": "classifier: balanced accuracy", "auc": "AUC",
    }  # fmt: skip
    lines = [
        "| patients | arm | called, % | memorized, % | similarity: 99th percentile | by embeddings, % | by SIFT, % "
        "| by SSIM, % | " + " | ".join(names.values()) + " | seconds an image |",
        "| ---: | --- " + "| ---: " * (7 + len(names)) + "|",
    ]

    def cells_of(values: Mapping[str, float | None]) -> list[str]:
        found = {name: values.get(name) for name in names}
        kid = found.pop("kid")
        texts = ["-" if kid is None else _kid(kid), _number(found.pop("fid"), ",.1f")]
        return texts + [_number(value) for value in found.values()]

    for size in sorted({int(unit["n_patients"]) for unit in units}):
        here = [unit for unit in units if unit["n_patients"] == size]
        for name in dict.fromkeys(unit["arm"] for unit in here):
            chosen = [unit for unit in here if unit["arm"] == name]
            scores = {score: _mean(chosen, score) for score in names}
            called = 100 * np.mean([unit["n_copies"] / unit["n_synthetic"] for unit in chosen])
            memorized = 100 * np.mean([unit["n_memorized"] / unit["n_training_images"] for unit in chosen])
            embedded = 100 * np.mean([unit["embedding_copies"] / unit["n_synthetic"] for unit in chosen])
            others = [
                _number(100 * float(np.mean([unit["called_by"][kind] for unit in chosen])), ".0f")
                if all(kind in unit["called_by"] for unit in chosen)
                else "-"
                for kind in ("keypoints (SIFT)", "SSIM")
            ]
            times = [unit["seconds_per_image"] for unit in chosen if unit["seconds_per_image"] is not None]
            percentile = np.mean([unit["similarity"]["p99"] for unit in chosen])
            cells = [
                size, name, f"{called:.0f}", f"{memorized:.0f}", f"{percentile:.3f}", f"{embedded:.0f}", *others,
                *cells_of(scores), _number(float(np.mean(times)) if times else None, ".3f"),
            ]  # fmt: skip
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
        if size in real:
            cells = [size, "*real training images*", *"------", *cells_of(real[size]), "-"]
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def sanity_text(found: Mapping[str, Any], refused: Mapping[str, str] | None = None) -> str:
    """What the sanity arm shows.

    Args:
        found: of ``mitigation_rule.sanity``.
        refused: switches that gave no samples of the memorizer, and what they said.
    """
    lines = [f"- {name}: gives no samples, which is right: {words}" for name, words in (refused or {}).items()]
    for name, one in found["switches"].items():
        if not one["halved"]:
            lines.append(f"- {name}: the excess of the perfect memorizer is not halved, so no score is asked.")
            continue
        let = ", ".join(one["let_pass"]) or "none"
        rule = "catches it" if one["rule_holds"] else "LETS IT PASS"
        lines.append(f"- {name}: the excess is halved. Scores that let it pass: {let}. The rule {rule}.")
    lines.append(f"- Not used: {', '.join(found['not_used']) or 'none of the scores has to be left out'}.")
    return "\n".join(lines) + "\n"


def copies_and_quality(units: Sequence[Unit], rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Excess against KID, a panel for each number of patients; bars reach over the seeds."""
    sizes = sorted({int(unit["n_patients"]) for unit in units})
    figure = Figure(figsize=(1.2 + 4.6 * len(sizes), 4.2))
    margins = {row["n_patients"]: row.get("kid_margin", 0.0) for row in rows}
    for panel, size in enumerate(sizes, 1):
        axes = figure.add_subplot(1, len(sizes), panel)
        here = [unit for unit in units if unit["n_patients"] == size]
        for number, name in enumerate(dict.fromkeys(unit["arm"] for unit in here)):
            chosen = [unit for unit in here if unit["arm"] == name]
            excess = np.array([100 * unit["excess_reference"][0] for unit in chosen])
            kid = np.array([unit["scores"]["kid"] for unit in chosen])
            reach = [[[part.mean() - part.min()], [part.max() - part.mean()]] for part in (excess, kid)]
            colour, marker = f"C{number % 10}", "s" if name == PLAIN else "o"
            axes.errorbar(
                excess.mean(), kid.mean(), xerr=reach[0], yerr=reach[1], fmt=marker, color=colour, label=name,
                lw=0.8, ms=6,
            )  # fmt: skip
        plain = [unit for unit in here if unit["arm"] == PLAIN]
        if plain:
            half = 50 * mean_excess(plain, "excess_reference").value
            axes.axvline(half, color="0.6", ls="--", lw=0.8)
            level = np.mean([unit["scores"]["kid"] for unit in plain]) + margins.get(size, 0.0)
            axes.axhline(level, color="0.6", ls="--", lw=0.8)
        axes.set(title=f"{size} patients", xlabel="excess over the reference control, %", ylabel="KID")
        kids = [unit["scores"]["kid"] for unit in here]
        if max(kids) > 10:  # samples far from real images would hide the others
            if min(kids) > 0:
                axes.set_yscale("log")
            else:
                axes.set_yscale("symlog", linthresh=1.0)
        axes.legend(frameon=False, fontsize=7)
    figure.tight_layout()
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG without the time, so that the same numbers give the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The table of a study, as CSV with every number and as Markdown with those that are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_memo.files import csv_text, write_text

RUN = ("generator", "n_patients", "augmentation", "network", "steps", "seed")
SIZES = ("parameters", "n_training_images", "n_heldout_images", "n_synthetic", "n_unusable", "softened")
QUALITY = ("fid", "fid_training", "ms_ssim", "ms_ssim_heldout")
AUDITS = ("size_matched", "size_matched_embeddings", "paper")


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the CSV: run, status, sizes, and of each audit its counts and intervals."""
    row = {name: record["run"][name] for name in RUN} | {"status": record["status"], "error": record.get("error", "")}
    result = record.get("result")
    if result is None:
        return row
    row |= {name: result[name] for name in SIZES} | {name: result["quality"][name] for name in QUALITY}
    for audit in AUDITS:
        for name, value in result["rates"][audit].items():
            if isinstance(value, list):
                row |= {f"{audit}_{name}{end}": part for end, part in zip(("", "_low", "_high"), value, strict=True)}
            else:
                row[f"{audit}_{name}"] = value
    if "reference" in result:  # not in results of earlier versions
        excess = result["reference"]["excess"]
        row |= {f"reference_excess{end}": part for end, part in zip(("", "_low", "_high"), excess, strict=True)}
        row |= {"reference_p_value": result["reference"]["p_value"]}
        row |= {f"similarity_{name}": value for name, value in result["similarity"].items()}
    row |= {f"paper_floor_{name}": value for name, value in result["paper_floor"].items()}
    curve = result["sampling_curve"]
    return row | {f"sampling_{name}": curve[name] for name in ("copies", "seen", "once", "twice", "limit")}


def percent(interval: Sequence[float] | None) -> str:
    """``"12.3 (8.0 to 17.1)"``; a dash for what the cohorts do not allow."""
    if interval is None:
        return "-"
    value, low, high = (100 * part for part in interval)
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """The table, then what has failed and what has not been run."""
    lines = [
        "Counts by the size-matched calibration with verification, then by the paper's on the same samples.",
        "Excess over the control in percentage points, with 95 % interval. Embeddings: size-matched, not verified.",
        "",
        "| generator | patients (images) | augmentation | network | steps | seed | N_copies | excess | N_mem | excess "
        "| embeddings: N_copies | excess | paper: N_copies | excess | paper: N_mem | FID | MS-SSIM |",
        "| --- | ---: | --- | --- | ---: | ---: | ---: | --- | ---: | --- "
        "| ---: | --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for record in records:
        if record["status"] != "finished":
            continue
        run, result = record["run"], record["result"]
        ours, paper, quality = result["rates"]["size_matched"], result["rates"]["paper"], result["quality"]
        images, embedded = result["n_training_images"], result["rates"]["size_matched_embeddings"]
        cells = [
            run["generator"], f"{run['n_patients']} ({images})", run["augmentation"], run["network"],
            f"{run['steps']:,}", run["seed"],
            f"{ours['n_copies']} of {result['n_synthetic']}", percent(ours["excess_copies"]),
            f"{ours['n_memorized']} of {images}", percent(ours["excess_memorized"]),
            embedded["n_copies"], percent(embedded["excess_copies"]),
            paper["n_copies"], percent(paper["excess_copies"]), paper["n_memorized"],
            f"{quality['fid']:,.0f}", f"{quality['ms_ssim']:.3f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    for status, title in (("failed", "Failed"), ("not run", "Not run")):
        chosen = [record for record in records if record["status"] == status]
        if chosen:
            lines += ["", f"{title}:", ""]
            lines += [
                f"- {record['name']}" + (f": {record['error']}" if status == "failed" else "") for record in chosen
            ]
    return "\n".join(lines) + "\n"


def write_tables(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write ``study.csv`` and ``study.md``."""
    rows = [flat(record) for record in records]
    columns = list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))
    write_text(folder / "study.csv", csv_text(columns, rows))
    write_text(folder / "study.md", markdown(records))

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The table of a study, as CSV with every number and as Markdown with those that are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_memo.files import csv_text, write_text

RUN = ("generator", "n_patients", "augmentation", "network", "steps", "seed")
CONDITIONS = {"conditioning": "none", "guidance": 1.0}  # of runs; columns where some run has others
SIZES = ("parameters", "n_training_images", "n_heldout_images", "n_synthetic", "n_unusable", "softened")
QUALITY = ("fid", "fid_training", "ms_ssim", "ms_ssim_heldout")
AUDITS = ("size_matched", "size_matched_embeddings", "paper")


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the CSV: run, status, sizes, and of each audit its counts and intervals."""
    run = {**CONDITIONS, **record["run"]}
    told = {name: run[name] for name in CONDITIONS} if run["conditioning"] != "none" else {}
    row = {name: run[name] for name in RUN} | told | {"status": record["status"], "error": record.get("error", "")}
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
    for group in result.get("groups", {}).get("groups", ()):
        row |= {f"group_{group['name']}_{name}": group[name] for name in ("n_synthetic", "n_copies", "n_train")}
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


def conditions(records: Sequence[Mapping[str, Any]]) -> str:
    """What a generator was told, and copies by all three counts; then copies by class. Empty where none was told."""
    finished = [record for record in records if record["status"] == "finished"]
    if all({**CONDITIONS, **record["run"]}["conditioning"] == "none" for record in finished):
        return ""
    lines = [
        "", "Conditions. Excess over the control, and over the reference control (look-alikes taken off), in "
        "percentage points.", "",
        "| conditioning | guidance | seed | N_copies | excess | reference | N_mem | embeddings: N_copies | FID |",
        "| --- | ---: | ---: | ---: | --- | --- | ---: | ---: | ---: |",
    ]  # fmt: skip
    for record in finished:
        run, result = {**CONDITIONS, **record["run"]}, record["result"]
        ours = result["rates"]["size_matched"]
        cells = [
            run["conditioning"], f"{run['guidance']:g}" if run["conditioning"] != "none" else "-", run["seed"],
            f"{ours['n_copies']} of {result['n_synthetic']}", percent(ours["excess_copies"]),
            percent(result["reference"]["excess"]), f"{ours['n_memorized']} of {result['n_training_images']}",
            result["rates"]["size_matched_embeddings"]["n_copies"], f"{result['quality']['fid']:,.0f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    grouped = [record for record in finished if "groups" in record["result"]]
    if grouped:
        lines += [
            "", "Copies by class, rarest first; p: whether the classes differ.", "",
            "| guidance | seed | class | training images | N_copies | rate (%) | N_mem | held-out above tau (%) | p |",
            "| ---: | ---: | --- | ---: | ---: | --- | ---: | --- | ---: |",
        ]  # fmt: skip
    for record in grouped:
        found = record["result"]["groups"]
        p_value = "-" if found["p_value"] is None else f"{found['p_value']:.2g}"
        for group in found["groups"]:
            cells = [
                f"{record['run'].get('guidance', 1.0):g}", record["run"]["seed"], group["name"] or "(not given)",
                group["n_train"], f"{group['n_copies']} of {group['n_synthetic']}", percent(_bounds(group["copies"])),
                f"{group['n_memorized']} of {group['n_train']}", percent(_bounds(group["control"])), p_value,
            ]  # fmt: skip
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _bounds(interval: Mapping[str, float] | None) -> list[float] | None:
    return None if interval is None else [interval["value"], interval["low"], interval["high"]]


def write_tables(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write ``study.csv`` and ``study.md``."""
    rows = [flat(record) for record in records]
    columns = list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))
    write_text(folder / "study.csv", csv_text(columns, rows))
    write_text(folder / "study.md", markdown(records) + conditions(records))

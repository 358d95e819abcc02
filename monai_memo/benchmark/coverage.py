# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Do the floor and the intervals of an audit hold? Simulated audits with known truth, as a table."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from monai_memo.audit.record import software_versions
from monai_memo.benchmark.settings import CoverageSettings
from monai_memo.files import write_json, write_text
from monai_memo.progress import following
from monai_memo.statistics.calibration import MODES, expected_floor
from monai_memo.statistics.simulation import World, coverage, null_rates
from monai_memo.workspace.output_folder import OutputFolder

FLOOR_SIZES = (
    (400, 40, 400),
    (400, 100, 400),
    (300, 150, 300),
    (200, 200, 200),
    (150, 300, 150),
    (100, 400, 100),
    (40, 400, 40),
)
COVERAGE_WORLDS = {
    "400 training, 200 held-out, 200 synthetic, 20 % copies": World(),
    "the same, nothing copied": World(copy_share=0.0),
    "300 / 100 / 300": World(n_train=300, n_heldout=100, n_synthetic=300),
    "200 / 400 / 100": World(n_train=200, n_heldout=400, n_synthetic=100),
    "two images per patient": World(images_per_patient=2),
    "64 dimensions, uniform": World(dim=64, decay=0.0),
}


def floor_table(audits: int, seed: int, progress: bool = True) -> list[dict[str, float]]:
    """Mean rates with nothing copied, for ratios of held-out to candidate images from 1:10 to 10:1."""
    rows = []
    for n_train, n_heldout, n_synthetic in following(FLOOR_SIZES, "floor", shown=progress):
        world = World(n_train, n_heldout, n_synthetic, copy_share=0.0, dim=64, decay=0.0)
        row: dict[str, float] = {"n_train": n_train, "n_heldout": n_heldout, "n_synthetic": n_synthetic}
        row["expected_paper"] = expected_floor(n_train, n_heldout)
        for mode in MODES:
            row[f"{mode}_copies"], row[f"{mode}_memorized"] = null_rates(world, mode, audits, seed)
        rows.append(row)
    return rows


def coverage_study(**arguments: Any) -> dict[str, Any]:
    """Write ``coverage.json`` and ``coverage.md`` to ``out``: floors of both calibrations, coverage of the intervals.

    Args:
        arguments: see ``CoverageSettings``.
    """
    settings = CoverageSettings(**arguments)
    with OutputFolder(settings.out, "coverage", writes=["coverage.json", "coverage.md"]) as output:
        record = _record(settings.audits, settings.seed, settings.progress)
        staging = output.staging()
        write_json(staging / "coverage.json", record)
        write_text(staging / "coverage.md", _markdown(record))
        output.publish()
        output.clear()
    return record


def _record(audits: int, seed: int, progress: bool) -> dict[str, Any]:
    floors = floor_table(audits, seed, progress)
    rows = []
    cases = [(mode, name, world) for mode in MODES for name, world in COVERAGE_WORLDS.items()]
    for mode, name, world in following(cases, "coverage", shown=progress):
        for quantity, row in coverage(world, mode, audits, seed).items():
            rows.append({"mode": mode, "world": name, "quantity": quantity, **row})
    return {
        "audits": audits,
        "seed": seed,
        "worlds": {name: asdict(world) for name, world in COVERAGE_WORLDS.items()},
        "floors": floors,
        "coverage": rows,
        "software": software_versions(),
    }


def _markdown(record: dict[str, Any]) -> str:
    lines = [
        f"Nothing copied, mean rates over {record['audits']} simulated audits (percent).",
        "",
        "| training | held-out | synthetic | paper, expected | paper N_copies | paper N_mem "
        "| matched N_copies | matched N_mem |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in record["floors"]:
        names = ("expected_paper", "paper_copies", "paper_memorized", "size_matched_copies", "size_matched_memorized")
        rates = " | ".join(f"{100 * row[name]:.1f}" for name in names)
        lines.append(f"| {row['n_train']:.0f} | {row['n_heldout']:.0f} | {row['n_synthetic']:.0f} | {rates} |")
    lines += [
        "",
        f"Coverage of the 95 % intervals over {record['audits']} simulated audits.",
        "",
        "| calibration | audits with | quantity | truth | mean estimate | coverage (%) | mean width |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in record["coverage"]:
        numbers = f"{row['truth']:.4f} | {row['mean']:.4f} | {100 * row['coverage']:.1f} | {row['width']:.4f}"
        lines.append(f"| {row['mode']} | {row['world']} | {row['quantity']} | {numbers} |")
    return "\n".join(lines) + "\n"

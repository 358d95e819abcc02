# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""``python -m monai_memo.reliability``: the fault harness. Its results stand in ``docs/reliability.md``."""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monai_memo.files import write_json
from monai_memo.sealing import NUMERIC, READERS, package_version

PARTS = ("kills", "disk", "pairs", "readers")


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen parts, print a table, and write ``reliability.json``; 0 where nothing was found."""
    parser = argparse.ArgumentParser("python -m monai_memo.reliability", description="Faults on purpose.")
    parser.add_argument("--out", required=True, type=Path, help="folder for inputs, runs and reliability.json")
    parser.add_argument("--bundles", default=Path("bundles"), type=Path, help="folder of the generator bundles")
    parser.add_argument("--part", choices=PARTS, action="append", help="by default all")
    parser.add_argument("--kills", default=200, type=int)
    parser.add_argument("--writes", default=40, type=int, help="full disks of each kind of run, at most")
    parser.add_argument("--files", default=2000, type=int, help="mutated files")
    parser.add_argument("--only", default="", help="kinds of runs with these words in their name")
    parser.add_argument("--seed", default=0, type=int)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("monai_memo").setLevel(logging.WARNING)
    logging.getLogger("monai_memo.reliability").setLevel(logging.INFO)

    import torch

    import monai_memo.__main__  # noqa: F401  everything is imported before the first fork
    from monai_memo.reliability.disk import fill_all
    from monai_memo.reliability.jobs import all_jobs, needed, write_inputs
    from monai_memo.reliability.kills import kill_all, reference
    from monai_memo.reliability.pairs import TOGETHER, pair_all
    from monai_memo.reliability.readers import read_mutants

    torch.set_num_threads(1)
    parts, inputs = given.part or list(PARTS), given.out / "inputs"
    if not (inputs / "detector.pt").is_file():
        write_inputs(inputs)
    jobs = [job for job in all_jobs(given.bundles) if given.only in job.name]
    record_path = given.out / "reliability.json"
    record: dict[str, Any] = json.loads(record_path.read_text(encoding="utf-8")) if record_path.is_file() else {}
    record |= {
        "seed": given.seed,
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in ("monai-memo", *NUMERIC, *READERS)},
    }
    if "kills" in parts:
        record["kills"] = kill_all(jobs, inputs, given.out, given.kills, given.seed)
    if {"disk", "pairs"} & set(parts):
        chosen = jobs if "disk" in parts else [job for job in jobs if job.name in TOGETHER]
        for job in needed(chosen, all_jobs(given.bundles)):
            if not (inputs / "jobs" / job.name).is_dir():
                reference(job, inputs)
    if "disk" in parts:
        record["disk"] = fill_all(jobs, inputs, given.out, given.writes)
    if "pairs" in parts:
        record["pairs"] = pair_all(jobs, inputs, given.out)
    if "readers" in parts:
        record["readers"] = read_mutants(given.out / "mutants", given.files, given.seed)
    write_json(record_path, record)
    print(table(record))
    return int(any(row["differences"] for part in PARTS for row in record.get(part, [])))


def table(record: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = ["| fault | run | faults | found |", "| --- | --- | --- | --- |"]
    for part in PARTS:
        for row in record.get(part, []):
            faults = row.get("kills", row.get("faults"))
            found = "; ".join(row["differences"][:3]).replace("\n", " ").replace("|", "/") or "nothing"
            lines.append(f"| {part} | {row['job']} | {faults} | {found} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

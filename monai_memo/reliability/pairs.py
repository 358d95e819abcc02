# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Two runs into one output folder at once: one of them does its work, the other is refused or waits."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from monai_memo.reliability.jobs import Job, digest
from monai_memo.reliability.process import Outcome, run
from monai_memo.workspace.manifest import MANIFEST
from monai_memo.workspace.place import EARLIER

logger = logging.getLogger(__name__)

TOGETHER = ("audit", "train detector")  # commands with a folder of their own
DELAYS = (0.0, 0.3, 0.8)


@dataclass
class Pairs:
    """What came of running two commands into one folder."""

    job: str
    faults: int = 0
    refused: int = 0
    differences: list[str] = field(default_factory=list)


def pair(first: Job, second: Job, inputs: Path, out: Path, delay: float) -> tuple[Outcome, Outcome]:
    """Start both, the second one a little later, and wait for both."""
    shutil.rmtree(out, ignore_errors=True)
    outcomes: dict[int, Outcome] = {}

    def start(number: int, job: Job) -> None:
        time.sleep(delay * number)
        outcomes[number] = run(partial(job.run, inputs, out))

    threads = [Thread(target=start, args=item) for item in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes[0], outcomes[1]


def pair_all(jobs: list[Job], inputs: Path, folder: Path, delays: Sequence[float] = DELAYS) -> list[dict[str, Any]]:
    """Each command against itself and against the other; each has run alone before, see ``kills.reference``."""
    known = [job for job in jobs if job.name in TOGETHER]
    found = []
    for first in known:
        for second in known:
            result = Pairs(f"{first.name} against {second.name}")
            for delay in delays:
                out = folder / "pairs" / f"{first.name} {second.name} {delay}".replace(" ", "_")
                ends = pair(first, second, inputs, out, delay)
                result.faults += 1
                result.refused += sum(end.status == 2 for end in ends)
                result.differences += [f"delay {delay}: {text}" for text in judge((first, second), ends, inputs, out)]
            logger.info("%s: %s", result.job, result)
            found.append(asdict(result))
    return found


def judge(jobs: tuple[Job, Job], ends: tuple[Outcome, Outcome], inputs: Path, out: Path) -> list[str]:
    """What is wrong after two runs: at most one may be refused, by the other's name, and results are of whole runs."""
    wrong = []
    for job, end, other in zip(jobs, ends, reversed(ends), strict=True):
        if end.status not in (0, 2, 3) or "Traceback" in end.text:
            wrong.append(f"{job.name} ends with status {end.status}: {end.text[-300:]}")
        if end.status == 2 and not re.search(rf"process {other.pid} \(.*\), started \d{{4}}-\d\d-\d\dT", end.text):
            wrong.append(f"{job.name} is refused without the other's process and start: {end.text[-300:]}")
    if all(end.status == 2 for end in ends):
        wrong.append("both are refused")
    left = [path.name for path in out.glob(".*") if path.name != MANIFEST]
    if left:
        wrong.append(f"work in progress or a lock is left: {', '.join(sorted(left))}")
    finished = {job.name for job, end in zip(jobs, ends, strict=True) if end.status in (0, 3)}
    whole = [digest(inputs / "jobs" / name) for name in sorted(finished)]
    found = {name: value for name, value in digest(out).items() if not name.startswith(f"{EARLIER}/")}
    # One after the other, they may both have ended: then each file is of one of them, and one of them is there as a
    # whole (the last one).
    strange = [name for name, value in found.items() if all(value != files.get(name) for files in whole)]
    if strange:
        wrong.append(f"not as in an undisturbed run: {', '.join(strange)}")
    if whole and not any(files.items() <= found.items() for files in whole):
        wrong.append("no result is there as a whole")
    return wrong

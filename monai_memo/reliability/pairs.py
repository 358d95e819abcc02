# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Two runs into one output folder at once: one of them does its work, the other is refused or waits."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from monai_memo.reliability.jobs import Job, digest
from monai_memo.reliability.process import Outcome, run

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


def pair_all(jobs: list[Job], inputs: Path, folder: Path) -> list[dict[str, Any]]:
    """Each command against itself and against the other."""
    known = [job for job in jobs if job.name in TOGETHER]
    found = []
    for first in known:
        for second in known:
            result = Pairs(f"{first.name} against {second.name}")
            for delay in DELAYS:
                out = folder / "pairs" / f"{first.name} {second.name} {delay}".replace(" ", "_")
                ends = pair(first, second, inputs, out, delay)
                result.faults += 1
                result.refused += sum(end.status == 2 for end in ends)
                _judge(result, first, second, ends, inputs, out)
            found.append(asdict(result))
    return found


def _judge(result: Pairs, first: Job, second: Job, ends: tuple[Outcome, Outcome], inputs: Path, out: Path) -> None:
    for job, end in zip((first, second), ends, strict=True):
        if end.status not in (0, 2, 3) or "Traceback" in end.text:
            result.differences.append(f"{job.name} ends with status {end.status}: {end.text[-300:]}")
        if end.status == 2 and "process" not in end.text:
            result.differences.append(f"{job.name} is refused without the other's process: {end.text[-300:]}")
    if all(end.status == 2 for end in ends):
        result.differences.append("both are refused")
    names = {job.name for job, end in zip((first, second), ends, strict=True) if end.status in (0, 3)}
    if len(names) == 1 and digest(out) != digest(inputs / "jobs" / names.pop()):
        result.differences.append("the result is not that of an undisturbed run")

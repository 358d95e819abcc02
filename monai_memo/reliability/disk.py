# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Fill the disk at every write of a run: each has to end with a message, and with everything before as it was."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from monai_memo.reliability.jobs import Job, digest
from monai_memo.reliability.process import run


@dataclass
class Fills:
    """What came of full disks in one kind of run."""

    job: str
    faults: int = 0
    differences: list[str] = field(default_factory=list)


def fill_at_write(number: int) -> None:
    """Set up: from the n-th file on that is opened for writing, the kernel refuses every byte of this process.

    The limit on a file's size stands for the disk: it meets Python, NumPy and PyTorch's C++ alike.
    """
    count = [0]
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            count[0] += 1
            if count[0] == number:
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    sys.addaudithook(hook)


def fill_job(job: Job, inputs: Path, folder: Path, most: int = 1000) -> Fills:
    """Fill the disk at the first write, at the second, and so on until a run ends without meeting the fault.

    Args:
        most: faults; a step is chosen so that they reach over the whole run.
    """
    expected, result = digest(inputs / "jobs" / job.name), Fills(job.name)
    number, step = 1, 1
    while result.faults < most:
        out = folder / f"{job.name} {number}"
        shutil.rmtree(out, ignore_errors=True)
        outcome = run(partial(job.run, inputs, out), prepare=partial(fill_at_write, number))
        if outcome.status in (0, 3):
            break
        result.faults += 1
        where = f"write {number}"
        if outcome.status != 2 or "Traceback" in outcome.text:
            result.differences.append(f"{where}: no message (status {outcome.status}): {outcome.text[-400:]}")
        again = run(partial(job.run, inputs, out))
        if again.status not in (0, 3):
            result.differences.append(f"{where}: does not go on: {again.text[-400:]}")
        elif digest(out) != expected:
            result.differences.append(f"{where}: ends with something else")
        shutil.rmtree(out, ignore_errors=True)
        number += step
    return result


def fill_over(job: Job, inputs: Path, folder: Path, faults: list[int]) -> Fills:
    """Fill the disk while a result that is there already is replaced: it has to stay whole."""
    expected, result = digest(inputs / "jobs" / job.name), Fills(f"{job.name}, again")
    for number in faults:
        out = folder / f"{job.name} over"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(inputs / "jobs" / job.name, out)
        outcome = run(partial(job.run, inputs, out), prepare=partial(fill_at_write, number))
        result.faults += outcome.status not in (0, 3)
        if digest(out) != expected:
            result.differences.append(f"write {number}: the earlier result is not whole")
    return result


def fill_all(jobs: list[Job], inputs: Path, folder: Path, most: int) -> list[dict[str, Any]]:
    """All kinds of runs, each at every write."""
    found = [asdict(fill_job(job, inputs, folder / "full", most)) for job in jobs]
    found += [asdict(fill_over(job, inputs, folder / "full", list(range(1, 20, 3)))) for job in jobs[:2]]
    return found

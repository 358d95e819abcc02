# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Fill the disk at every write of a run: each has to end with a message, and with everything before as it was."""

from __future__ import annotations

import mmap
import os
import resource
import shutil
import signal
import sys
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.reliability.jobs import Job, digest
from monai_memo.reliability.process import run


@dataclass
class Fills:
    """What came of full disks in one kind of run.

    Attributes:
        writes: files that an undisturbed run opens for writing.
        faults: full disks that runs met, spread over these writes.
        borne: of these, runs that ended with the whole result (what they could not write was for people alone).
    """

    job: str
    writes: int = 0
    faults: int = 0
    borne: int = 0
    differences: list[str] = field(default_factory=list)


def counter() -> NDArray[np.int64]:
    """A number that a run and all processes it forks count up, and that is read here."""
    return np.frombuffer(mmap.mmap(-1, 8), dtype=np.int64)


def fill_at_write(number: int, count: NDArray[np.int64] | None = None) -> None:
    """Set up: from the n-th file on that is opened for writing, the kernel refuses every byte of the run.

    The limit on a file's size stands for the disk: it meets Python, NumPy and PyTorch's C++ alike.

    Args:
        number: of the write; 0 counts only.
        count: of ``counter``.
    """
    opened = counter() if count is None else count
    made: list[str | None] = [None]
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            # A temporary file is opened twice in a row: made, then written.
            opened[0] += str(arguments[0]) != made[0]
            made[0] = str(arguments[0]) if arguments[2] & os.O_EXCL else None
            if 0 < number <= opened[0]:
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    sys.addaudithook(hook)


def spread(writes: int, most: int) -> list[int]:
    """Every write, or where they are more than the faults as many as those, from the first to the last."""
    if writes <= most:
        return list(range(1, writes + 1))
    return sorted({round(number) for number in np.linspace(1, writes, most)}) if most > 1 else [1][:most]


def fill_job(job: Job, inputs: Path, folder: Path, most: int = 1000) -> Fills:
    """Fill the disk at every write of a run, in a run of its own each.

    Args:
        most: faults; where the run has more writes they reach evenly from the first to the last.
    """
    expected, result = digest(inputs / "jobs" / job.name), Fills(job.name)
    result.writes = _count(job, inputs, folder)
    for number in spread(result.writes, most):
        out, count, where = folder / f"{job.name} {number}", counter(), f"write {number}"
        shutil.rmtree(out, ignore_errors=True)
        outcome = run(partial(job.run, inputs, out), prepare=partial(fill_at_write, number, count))
        if count[0] >= number:
            result.faults += 1
            if outcome.status in (0, 3):
                result.borne += 1
                if digest(out) != expected:
                    result.differences.append(f"{where}: nothing is said (status {outcome.status}), not all is there")
            elif outcome.status != 2 or "Traceback" in outcome.text:
                result.differences.append(f"{where}: no message (status {outcome.status}): {outcome.text[-400:]}")
        again = run(partial(job.run, inputs, out))
        if again.status not in (0, 3):
            result.differences.append(f"{where}: does not go on: {again.text[-400:]}")
        elif digest(out) != expected:
            result.differences.append(f"{where}: ends with something else")
        shutil.rmtree(out, ignore_errors=True)
    return result


def _count(job: Job, inputs: Path, folder: Path) -> int:
    """Files that an undisturbed run opens for writing."""
    out, count = folder / f"{job.name} counted", counter()
    shutil.rmtree(out, ignore_errors=True)
    outcome = run(partial(job.run, inputs, out), prepare=partial(fill_at_write, 0, count))
    if outcome.status not in (0, 3):
        raise RuntimeError(f"{job.name} does not even end undisturbed:\n{outcome.text[-3000:]}")
    shutil.rmtree(out, ignore_errors=True)
    return int(count[0])


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

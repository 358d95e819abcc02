# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Kill runs at random moments, let them go on, and compare what they end with to an uninterrupted run."""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from monai_memo.files import write_text
from monai_memo.reliability.jobs import Job, digest
from monai_memo.reliability.process import run

logger = logging.getLogger(__name__)

MOST_IN_A_ROW = 6  # kills of one run before it is let end


@dataclass
class Kills:
    """What came of killing one kind of run."""

    job: str
    kills: int = 0
    at_writes: int = 0
    runs: int = 0
    seconds: float = 0.0
    differences: list[str] = field(default_factory=list)


def kill_at_write(number: int) -> None:
    """Set up: this process ends itself by SIGKILL right before or after its n-th change of a file's name.

    That is where a file that was written comes into its place, and a moment that chance would hardly hit.
    """
    original, count = os.replace, [0]

    def replace(*arguments: Any, **named: Any) -> None:
        count[0] += 1
        if count[0] == (number + 1) // 2 and number % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        original(*arguments, **named)
        if count[0] == (number + 1) // 2:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace  # type: ignore[assignment]


def reference(job: Job, inputs: Path) -> float:
    """The uninterrupted run, in ``<inputs>/jobs``, where other jobs find it; seconds that it took."""
    folder, imported = inputs / "jobs" / job.name, inputs / "imported" / f"{job.name}.txt"

    def work() -> None:
        job.run(inputs, folder)
        write_text(imported, "\n".join(sorted(sys.modules)))

    if not imported.is_file():
        outcome = run(work)
        if outcome.status not in (0, 3):
            raise RuntimeError(f"{job.name} does not even end undisturbed:\n{outcome.text[-3000:]}")
    # What every run imports is imported once, before it is forked; then a clean run says how long one takes.
    for name in imported.read_text(encoding="utf-8").splitlines():
        with suppress(Exception):
            importlib.import_module(name)
    shutil.rmtree(folder, ignore_errors=True)
    outcome = run(work)
    if outcome.status not in (0, 3):
        raise RuntimeError(f"{job.name} does not even end undisturbed:\n{outcome.text[-3000:]}")
    return outcome.seconds


def kill_job(job: Job, inputs: Path, folder: Path, kills: int, seed: int, seconds: float) -> Kills:
    """Kill runs of one kind, and compare each when it has ended.

    Args:
        seconds: of the uninterrupted run.
    """
    rng = np.random.default_rng([seed, *job.name.encode()])
    expected = digest(inputs / "jobs" / job.name)
    result = Kills(job.name, seconds=round(seconds, 2))
    while result.kills < kills:
        out, number = folder / f"{job.name} {result.runs}", 0
        work, in_a_row = partial(job.run, inputs, out), int(rng.integers(1, MOST_IN_A_ROW + 1))
        while number < in_a_row and result.kills < kills:
            at_write = bool(rng.integers(2))
            if at_write:
                outcome = run(work, prepare=partial(kill_at_write, int(rng.integers(1, 17))))
            else:
                outcome = run(work, kill_after=float(rng.uniform(0, seconds)))
            if outcome.status != -signal.SIGKILL:
                if outcome.status not in (0, 3):
                    result.differences.append(f"run {result.runs} fails after {number} kills: {outcome.text[-400:]}")
                break  # it ended before its hour had come
            number += 1
            result.kills += 1
            result.at_writes += at_write
        outcome = run(work)
        if outcome.status not in (0, 3):
            result.differences.append(f"run {result.runs} fails after {number} kills: {outcome.text[-400:]}")
        else:
            found = digest(out)
            different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            if different:
                result.differences.append(f"run {result.runs} after {number} kills: {', '.join(different)}")
        result.runs += 1
    return result


def kill_all(jobs: list[Job], inputs: Path, folder: Path, kills: int, seed: int) -> list[dict[str, Any]]:
    """Share out kills over all kinds. What is done is kept in ``<folder>/kills.json``, and gone on with."""
    kept = folder / "kills.json"
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for number, job in enumerate(jobs):
        share = kills // len(jobs) + (number < kills % len(jobs))
        seconds = reference(job, inputs)
        if job.name not in found:
            found[job.name] = asdict(kill_job(job, inputs, folder / "killed", share, seed, seconds))
            logger.info("%s: %s", job.name, found[job.name])
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return [found[job.name] for job in jobs]

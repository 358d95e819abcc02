# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Whole audits of files, timed from the command to the report: ``performance --part audit``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from monai_memo.data.planting import plant_mixture
from monai_memo.errors import ConfigurationError
from monai_memo.sealing import fingerprint

EVERY = 2.0  # seconds between two looks at the memory
PER_FOLDER = 1000


def write_cohort(images: NDArray[np.floating], folder: Path) -> Path:
    """``(n, 1, height, width)`` images in [0, 1] as PNG files, a thousand in each folder."""
    for start in range(0, len(images), PER_FOLDER):
        part = folder / f"{start // PER_FOLDER:04d}"
        part.mkdir(parents=True, exist_ok=True)
        grey = np.round(255 * np.clip(np.asarray(images[start : start + PER_FOLDER, 0], dtype=np.float32), 0, 1))
        for row, image in enumerate(grey.astype(np.uint8), start=start):
            Image.fromarray(image).save(part / f"{row:07d}.png")
    return folder


def write_cohorts(training: NDArray[np.floating], unseen: NDArray[np.floating], folder: Path) -> dict[str, Path]:
    """Held-out and synthetic images are the two halves of the unseen ones; a tenth of the latter becomes copies."""
    half = len(unseen) // 2
    synthetic = np.asarray(unseen[half:], dtype=np.float32).copy()
    chosen = np.sort(np.random.default_rng(0).choice(len(training), max(1, len(synthetic) // 10), replace=False))
    synthetic[: len(chosen)] = plant_mixture(np.asarray(training[chosen], dtype=np.float32), seed=1)[0]
    cohorts = {"train": training, "heldout": unseen[:half], "synthetic": synthetic}
    return {name: write_cohort(images, folder / name) for name, images in cohorts.items()}


@dataclass
class Run:
    """What a command took.

    Attributes:
        seconds: by the clock.
        cpu_seconds: processor time of all its processes.
        peak_gib: most memory that all of them held at once, shared pages counted once; None where it cannot be read.
    """

    seconds: float
    cpu_seconds: float
    peak_gib: float | None


def timed(command: Sequence[str], log: Path, environment: dict[str, str]) -> Run:
    """Run a command and look at the memory of its processes every two seconds.

    Raises:
        ConfigurationError: it failed; its last lines.
    """
    before, start, peak = _cpu(), time.perf_counter(), 0.0
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        while process.poll() is None:
            peak = max(peak, _memory(process.pid))
            time.sleep(EVERY if time.perf_counter() - start > 2 * EVERY else 0.05)
    seconds = time.perf_counter() - start
    if process.returncode not in (0, 3):
        raise ConfigurationError(f"{' '.join(command)} failed:\n{log.read_text(encoding='utf-8')[-2000:]}")
    return Run(round(seconds, 1), round(_cpu() - before, 1), round(peak / 2**30, 2) if peak else None)


def _cpu() -> float:
    spent = os.times()
    return spent.children_user + spent.children_system


def _memory(pid: int) -> float:
    """Bytes in memory of a process and all that it started, pages that several share counted once; 0 if unknown."""
    total, waiting = 0, [pid]
    while waiting:
        place = Path(f"/proc/{waiting.pop()}")
        try:
            for line in (place / "smaps_rollup").read_text(encoding="ascii").splitlines():
                total += 1024 * int(line.split()[1]) if line.startswith("Pss:") else 0
            for task in (place / "task").iterdir():
                waiting += map(int, (task / "children").read_text(encoding="ascii").split())
        except OSError:  # it has ended, or this is not Linux
            continue
    return total


def audit_command(cohorts: dict[str, Path], out: Path, options: Sequence[str], ranks: int) -> list[str]:
    """The command of an audit by so many ranks."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *torchrun, "-m", "monai_memo", "audit"]
    for name, folder in cohorts.items():
        command += [f"--{name}", str(folder)]
    return [*command, "--out", str(out), *options]


def time_audit(cohorts: dict[str, Path], folder: Path, options: Sequence[str], ranks: int) -> dict[str, Any]:
    """One audit by so many ranks, on as many cores; ``options`` as on the command line."""
    out = folder / f"audit-{ranks}"
    shutil.rmtree(out, ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = timed(audit_command(cohorts, out, options, ranks), folder / f"audit-{ranks}.log", environment)
    record = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    matches = (out / "matches.csv").read_text(encoding="utf-8")
    return {
        "ranks": ranks, "seconds": run.seconds, "cpu_seconds": run.cpu_seconds, "peak_gib": run.peak_gib,
        "steps": record["timing"]["seconds"], "forecast": record["timing"].get("forecast"),
        "n_copies": record["n_copies"]["value"], "matches": fingerprint("matches.csv", matches, packages=())[:16],
    }  # fmt: skip

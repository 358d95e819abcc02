# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Damaged files of every kind: a reader names them or reads them; it does not crash, hang or fill the memory."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from monai_memo.errors import MemoError
from monai_memo.reliability.mutants import mutated, seeds_of_files
from monai_memo.reliability.process import run

LIMIT_S, LIMIT_BYTES = 10.0, 1 << 30  # per file: time, and memory beyond what the process had before
BATCH = 100  # files read by one process, unless one of them ends it


@dataclass
class Readings:
    """What came of damaged files of one format."""

    job: str
    faults: int = 0
    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    most_mb: float = 0.0
    differences: list[str] = field(default_factory=list)


def read(path: Path) -> None:
    """Read a file as the library would, by its ending."""
    from monai_memo.data.cohort import Cohort
    from monai_memo.data.loading import Preprocessing
    from monai_memo.data.reading import spatial_dims_of
    from monai_memo.detector.detector import Detector
    from monai_memo.generators.weights import read_record
    from monai_memo.training.checkpoints import last_checkpoint

    name = path.name
    if name.endswith((".csv", "datalist.json")):
        Cohort.from_source(path, "training")
    elif name.endswith("detector.pt"):
        Detector.load(path)
    elif name.endswith("weights.pt"):
        read_record(path)
    elif name.endswith(".pt"):
        last_checkpoint(path.parent, "a" * 64)
    else:
        dims = spatial_dims_of(path)
        if dims in (2, 3):
            Preprocessing(dims, (16,) * dims)(path)


def _read_all(paths: list[Path], report: Path) -> None:
    """In a process of its own: read one after the other, and say what came of each as soon as it is known."""
    import time

    base = _memory()
    resource.setrlimit(resource.RLIMIT_AS, (_mapped() + 2 * LIMIT_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open(report, "a", encoding="utf-8") as stream:
        for path in paths:
            stream.write(json.dumps({"start": path.parent.name}) + "\n")
            stream.flush()
            start, outcome = time.perf_counter(), "read"
            try:
                read(path)
            except MemoError as error:
                outcome = "refused"
                if not str(error).strip():
                    outcome = "an empty message"
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"[:300]
            grown = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - base)
            seconds = time.perf_counter() - start
            stream.write(
                json.dumps({"end": path.parent.name, "outcome": outcome, "seconds": seconds, "grown": grown}) + "\n"
            )
            stream.flush()


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _mapped() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 16 << 30


def _watch(paths: list[Path], folder: Path, note: Callable[[Path, dict[str, Any]], None]) -> None:
    """Read files in forked processes; one that ends a process is noted, and the next begins behind it."""
    left = list(paths)
    while left:
        report = folder / "report.jsonl"
        report.unlink(missing_ok=True)
        outcome = run(partial(_read_all, left, report), limit=LIMIT_S * 3 + 0.5 * len(left))
        lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
        ends = {line["end"]: line for line in lines if "end" in line}
        done = 0
        for path in left:
            if path.parent.name not in ends:
                break
            note(path, ends[path.parent.name])
            done += 1
        if done < len(left):
            fate = "hangs" if outcome.timed_out else f"ends the process (status {outcome.status})"
            note(left[done], {"outcome": fate, "seconds": outcome.seconds if outcome.timed_out else 0, "grown": 0})
            done += 1
        left = left[done:]


def read_mutants(folder: Path, n: int, seed: int) -> list[dict[str, Any]]:
    """Mutate files of every format, and read them.

    Args:
        n: files, shared out over the formats. What is found is kept in ``folder/kept``.
    """
    shutil.rmtree(folder, ignore_errors=True)
    originals = seeds_of_files(folder / "originals")
    found = []
    for number, (name, original) in enumerate(sorted(originals.items())):
        share = n // len(originals) + (number < n % len(originals))
        rng, result = np.random.default_rng([seed, number]), Readings(name)
        place = folder / "files"
        for start in range(0, share, BATCH):
            shutil.rmtree(place, ignore_errors=True)
            paths = [mutated(original, place / f"{i:05d}", rng) for i in range(start, min(share, start + BATCH))]
            named = {path.parent.name: path for path in paths}

            def note(path: Path, line: dict[str, Any], result: Readings = result, name: str = name) -> None:
                result.faults += 1
                result.slowest = max(result.slowest, round(line["seconds"], 2))
                result.most_mb = max(result.most_mb, round(line["grown"] / 1e6, 1))
                outcome = line["outcome"]
                result.read += outcome == "read"
                result.refused += outcome == "refused"
                if outcome not in ("read", "refused") or line["seconds"] > LIMIT_S or line["grown"] > LIMIT_BYTES:
                    kept = folder / "kept" / f"{name}-{path.parent.name}-{path.name}"
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    if path.is_file():
                        shutil.copyfile(path, kept)
                    result.differences.append(f"{kept.name}: {outcome} ({line['seconds']:.1f} s)")

            _watch(list(named.values()), folder, note)
        found.append(asdict(result))
        print(f"{name}: {result.faults} files, {len(result.differences)} findings", file=sys.stderr)
    return found

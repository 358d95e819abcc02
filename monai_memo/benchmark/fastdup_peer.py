# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""``fastdup`` for comparison: a closed program for duplicates in image collections.

It wants another NumPy than this package, so it runs in an environment of its own, whose Python is given. Nothing leaves
the machine as far as its own switch goes (``SENTRY_OPT_OUT``); whoever wants to be sure cuts the network off.
"""

from __future__ import annotations

import csv
import os
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_memo.benchmark.audit_cost import write_cohort
from monai_memo.benchmark.baselines import Found
from monai_memo.errors import ConfigurationError

NEIGHBOURS = 30  # of each image, queries among them
SCRIPT = """
import sys
import fastdup
images, work, neighbours = sys.argv[1:]
fastdup.run(input_dir=images, work_dir=work, nearest_neighbors_k=int(neighbours), threshold=0.0, lower_threshold=0.0,
            num_threads=1)
"""


class Fastdup:
    """Similarity by fastdup of each query to its nearest training image, both as PNG files in one folder.

    Args:
        training: ``(n, 1, height, width)`` in [0, 1].
        python: of an environment with fastdup.
        folder: for files; earlier ones there are used again.
    """

    name = "fastdup"

    def __init__(self, training: NDArray[np.floating], python: str | Path, folder: Path) -> None:
        self.training, self.python, self.folder, self.runs = training, str(python), folder, 0

    def __call__(self, queries: NDArray[np.floating]) -> Found:
        """Similarity and index of the nearest training image of each query; 0 and -1 where it names none.

        Raises:
            ConfigurationError: the program failed; its last lines.
        """
        self.runs += 1
        images, work = self.folder / f"images-{self.runs}", self.folder / f"work-{self.runs}"
        write_cohort(self.training, images / "training")
        write_cohort(queries, images / "queries")
        done = subprocess.run(
            [self.python, "-c", SCRIPT, str(images), str(work), str(NEIGHBOURS)],
            capture_output=True,
            text=True,
            env={**os.environ, "SENTRY_OPT_OUT": "1", "OMP_NUM_THREADS": "1"},
        )
        if done.returncode or not (work / "similarity.csv").exists():
            raise ConfigurationError(f"fastdup by {self.python} failed:\n{(done.stderr or done.stdout)[-1000:]}")
        similarity, nearest = np.zeros(len(queries)), np.full(len(queries), -1, dtype=np.int64)
        with open(work / "similarity.csv", encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                pair = {Path(row[end]).parts[-3]: int(Path(row[end]).stem) for end in ("from", "to")}
                if len(pair) < 2 or float(row["distance"]) <= similarity[pair["queries"]]:
                    continue
                similarity[pair["queries"]], nearest[pair["queries"]] = float(row["distance"]), pair["training"]
        return similarity, nearest


def processor_time() -> float:
    """Seconds of this process and of those that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system

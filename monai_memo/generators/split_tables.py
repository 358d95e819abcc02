# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Which images a generator was trained on: two tables beside it, and the audit that they are for.

A split that is guessed later puts held-out patients among the training ones, and an audit then says too little.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

import ignite.distributed as idist

from monai_memo.data.writing import write_cohort
from monai_memo.generators.cohorts import GeneratorCohorts

logger = logging.getLogger(__name__)

TRAINING, HELDOUT = "training.csv", "heldout.csv"


def write_split(cohorts: GeneratorCohorts, folders: Sequence[str | Path]) -> None:
    """Write ``training.csv`` and ``heldout.csv`` (``image``, ``patient_id``; absolute paths) into each folder.

    Rank 0 writes. A table that is itself what a cohort was read from is left as it is.

    Args:
        cohorts: as the generator is trained on them.
        folders: of the training's output and of the weights, for example; may be the same one.
    """
    if idist.get_rank() != 0:
        return
    read = {Path(cohort.source).resolve() for cohort in (cohorts.training, cohorts.heldout) if cohort.source}
    for folder in dict.fromkeys(Path(one).resolve() for one in folders):
        for cohort, name in ((cohorts.training, TRAINING), (cohorts.heldout, HELDOUT)):
            if folder / name in read:
                logger.warning("%s was read and is not written: it holds the cohort before the split", folder / name)
                continue
            folder.mkdir(parents=True, exist_ok=True)
            write_cohort(cohort, folder / name)


class NextStep:
    """Says how the samples of a generator are audited.

    Args:
        folder: that has the tables of ``write_split``, beside the weights.
        manifest: table of the samples.
    """

    def __init__(self, folder: str | Path, manifest: str | Path) -> None:
        self.folder, self.manifest = Path(folder), Path(manifest)

    @property
    def known(self) -> bool:
        """Whether both tables are there."""
        return all((self.folder / name).is_file() for name in (TRAINING, HELDOUT))

    def command(self) -> str:
        """The command of the audit; names in capitals have to be filled in."""
        tables = (str(self.folder / TRAINING), str(self.folder / HELDOUT))
        train, heldout = tables if self.known else ("TRAINING", "HELDOUT")
        words = ["monai-memo", "audit", "--train", train, "--heldout", heldout]
        return shlex.join([*words, "--synthetic", str(self.manifest), "--out", "AUDIT"])

    def run(self) -> None:
        """Print it, once."""
        if idist.get_rank() != 0:
            return
        if not self.known:
            print(f"Which patients this generator was trained on is not known here: {self.folder} has no {TRAINING}.")
        print(f"audit these samples:  {self.command()}", flush=True)

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Which images a generator was trained on: two tables beside it, and the audit that they are for.

A split that is guessed later puts held-out patients among the training ones, and an audit then says too little.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import ignite.distributed as idist

from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.dicom import series_of
from monai_memo.data.writing import cohort_table
from monai_memo.errors import ConfigurationError, OutputError
from monai_memo.files import write_text
from monai_memo.generators.cohorts import GeneratorCohorts
from monai_memo.generators.condition_columns import column_names
from monai_memo.workspace.place import EARLIER

logger = logging.getLogger(__name__)

TRAINING, HELDOUT = "training.csv", "heldout.csv"


def write_split(cohorts: GeneratorCohorts, folders: Sequence[str | Path], conditions: object = None) -> None:
    """Write ``training.csv`` and ``heldout.csv`` (``image``, ``patient_id``; absolute paths) into each folder.

    Rank 0 writes. A table of another split that is in the way is moved to ``earlier/<time>``.

    Args:
        cohorts: as the generator is trained on them.
        folders: of the training's output and of the weights, for example; may be the same one.
        conditions: columns that the generator is told, which the tables have as well: see ``condition_columns``.

    Raises:
        ConfigurationError: a cohort was read from such a table, and only a part of it is trained on: the table would
            be taken for the split, with held-out patients among the training ones.
        OutputError: a folder cannot be written.
    """
    tables = {TRAINING: cohorts.training, HELDOUT: cohorts.heldout}
    places = list(dict.fromkeys(Path(one).resolve() for one in folders))
    read = {Path(cohort.source).resolve() for cohort in tables.values() if cohort.source}
    for path, cohort in ((folder / name, cohort) for folder in places for name, cohort in tables.items()):
        if path in read and not _same_images(path, cohort):  # all ranks look, so that none goes on alone
            raise ConfigurationError(
                f"{path} was read as a cohort, and the split belongs there: an audit would take all of its images for "
                f"the {cohort.name} ones, which are {len(cohort)}. Name another folder with --output_dir and "
                "--model_dir."
            )
    if idist.get_rank() != 0:
        return
    named = [_told_apart(image) for cohort in tables.values() for image in cohort.images]
    twice = {path for path, number in Counter(path for path, _ in named).items() if number > 1}
    if len(set(named)) < len(named) or any(path in twice and not series for path, series in named):
        logger.warning(
            "no %s and %s are written: several DICOM series lie in one folder, and a table cannot tell them apart by "
            "their UID. Give each series a folder of its own, and an audit can be told what this generator was trained "
            "on",
            *tables,
        )
        return
    for folder in places:
        for name, cohort in tables.items():
            if folder / name not in read:
                _write_table(cohort, folder / name, [column for column, _ in column_names(conditions)])


def _same_images(path: Path, cohort: Cohort) -> bool:
    known = Cohort.from_source(path, cohort.name)
    return {_told_apart(image) for image in known.images} == {_told_apart(image) for image in cohort.images}


def _told_apart(image: CohortImage) -> tuple[Path, str]:
    """What a table names an image by."""
    return image.path.resolve(), series_of(image)


def _write_table(cohort: Cohort, path: Path, columns: Sequence[str]) -> None:
    """Put a table in place, unless it is there already; what is there instead may be somebody's work."""
    text = cohort_table(cohort, columns=columns)
    if path.is_file() and path.read_bytes() == text.encode(errors="backslashreplace"):
        return
    if os.path.lexists(path):
        aside = path.parent / EARLIER / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ") / path.name
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, aside)
        except OSError as error:
            raise OutputError(f"cannot move {path} to {aside}: {error.strerror or error}") from error
        logger.warning(
            "%s was of another split and now lies in %s. If weights here were trained with it (an autoencoder, say), "
            "its training images belong to the training cohort of an audit too",
            path,
            aside,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


class NextStep:
    """Says how the samples of a generator are audited.

    Args:
        weights: file of the diffusion model. The tables of ``write_split`` are looked for beside it, and in the folder
            above for what a training keeps in a folder of its own.
        manifest: table of the samples.
        other_bundle: folder of the bundle that is sampled instead: its own ``models`` are looked at then.
    """

    def __init__(self, weights: str | Path, manifest: str | Path, other_bundle: str | Path | None = None) -> None:
        beside = Path(weights).resolve().parent
        self.folders = (beside, beside.parent) if other_bundle is None else (Path(other_bundle).resolve() / "models",)
        self.manifest = Path(manifest).resolve()

    @property
    def tables(self) -> tuple[Path, Path] | None:
        """Both tables, if both are there."""
        for folder in self.folders:
            if (folder / TRAINING).is_file() and (folder / HELDOUT).is_file():
                return folder / TRAINING, folder / HELDOUT
        return None

    def command(self) -> str:
        """The command of the audit, ready to be pasted from any folder; names in capitals have to be filled in."""
        train, heldout = self.tables or ("TRAINING", "HELDOUT")
        out = self.manifest.parent.with_name(f"{self.manifest.parent.name}_audit") if self.tables else "AUDIT"
        words = ["monai-memo", "audit", "--train", train, "--heldout", heldout, "--synthetic", self.manifest]
        return shlex.join([*map(str, words), "--out", str(out)])

    def run(self) -> None:
        """Print it, once."""
        if idist.get_rank() != 0:
            return
        if self.tables is None:
            print(
                f"which patients this generator was trained on is not known here: there is no {TRAINING} with a "
                f"{HELDOUT} in {' or '.join(map(str, self.folders))}. Name both cohorts yourself, nobody in both."
            )
        print(f"audit these samples:\n{self.command()}", flush=True)

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A step of training bundles: leave images out that stand twice, since these are copied first."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ignite.distributed as idist

from monai_memo.data.cohort import Cohort
from monai_memo.duplicates.duplicates import Duplicates
from monai_memo.errors import ConfigurationError, OutputError
from monai_memo.files import sha256_of
from monai_memo.sealing import fingerprint, read_sealed_json, write_sealed_json

logger = logging.getLogger(__name__)

DONE = "before_training.json"


@dataclass(frozen=True)
class Sources:
    """Where a training takes its cohorts from.

    Attributes:
        dataset: training images (or those that are split).
        heldout: held-out images; None where they are split off.
    """

    dataset: str
    heldout: str | None


def sources(
    dataset: str | Path,
    heldout: str | Path | None,
    remove: bool,
    folder: str | Path,
    patient_pattern: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Sources:
    """The cohorts as they are, or the cleaned tables of ``monai-memo duplicates``, which is run where it was not yet.

    It is run again where images have come, gone or changed. Rank 0 does it; all ranks have to see the folder.

    Args:
        dataset, heldout: folder, CSV or datalist.
        remove: take images out that stand twice or nearly twice, and held-out images of training patients.
        folder: for its result.
        patient_pattern: regular expression that finds the patient in a relative path.
        seed: of its search.
    """
    if not remove:
        return Sources(str(dataset), None if heldout is None else str(heldout))
    place = Path(folder)
    given = {"train": str(dataset), "heldout": None if heldout is None else str(heldout)}
    tables = {name: place / f"clean_{name}.csv" for name, source in given.items() if source is not None}
    with idist.one_rank_first():
        identity = _identity([source for source in given.values() if source is not None], patient_pattern, seed)
        if idist.get_rank() == 0 and not _is_done(place, identity):
            found = Duplicates(
                **{name: source for name, source in given.items() if source is not None}, out=str(place),
                patient_pattern=patient_pattern, seed=seed, progress=progress,
            ).run()  # fmt: skip
            for sentence in found.sentences():
                logger.info("%s", sentence)
            if found.untold:
                raise ConfigurationError(f"duplicates cannot be left out: {'; '.join(found.unwritten())}.")
            hashes = {table.name: sha256_of(table) for table in tables.values()}
            write_sealed_json(place / DONE, {"identity": identity, "tables": hashes})
    if not all(table.is_file() for table in tables.values()):
        raise OutputError(f"{place} has no cleaned tables: do all ranks see this folder?")
    return Sources(str(tables["train"]), str(tables["heldout"]) if "heldout" in tables else None)


def _identity(given: Sequence[str], patient_pattern: str | None, seed: int) -> str:
    stamps = []
    for source in given:
        for image in Cohort.from_source(source, "training", patient_pattern).images:
            status = [(part.stat().st_size, part.stat().st_mtime_ns) for part in image.parts if part.exists()]
            stamps.append([image.image_id, image.patient_id, str(image.path.resolve()), dict(image.columns), status])
    return fingerprint("duplicates before a training", [stamps, seed])


def _is_done(folder: Path, identity: str) -> bool:
    record = read_sealed_json(folder / DONE)
    if record is None or record.get("identity") != identity:
        return False
    hashes = record["tables"]
    return all((folder / name).is_file() and sha256_of(folder / name) == value for name, value in hashes.items())

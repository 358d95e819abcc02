# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""All images of a cohort, preprocessed once, on disk, and still there after a kill."""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_memo.data.cohort import Cohort, SkippedImage, by_reason
from monai_memo.data.loading import Preprocessing
from monai_memo.data.store import PixelStore
from monai_memo.data.workers import blocks_of, load
from monai_memo.errors import CohortError, OutputError
from monai_memo.files import rows_at_once
from monai_memo.progress import Progress
from monai_memo.sealing import NUMERIC, READERS, fingerprint, require_space

logger = logging.getLogger(__name__)

BLOCK = 256  # images that are read, written and hashed together, at most
VERSION = 6  # raise it when the same file and settings come to give other pixels: older caches are then not reused


@dataclass(frozen=True)
class PreparedCohort:
    """The usable images of a cohort.

    Attributes:
        cohort: only the usable images, in order.
        pixels: ``(n, channels, *size)`` float16 in [0, 1], memory-mapped, read only.
        skipped: images that could not be used, those of the cohort's own list first.
        notes: what was done to some images, with counts.
        content_sha256: hash of ids and pixels.
    """

    cohort: Cohort
    pixels: NDArray[np.float16]
    skipped: tuple[SkippedImage, ...]
    notes: tuple[str, ...]
    content_sha256: str


def _fingerprint(cohort: Cohort, preprocessing: Preprocessing) -> str:
    settings = fingerprint("pixels", [VERSION, preprocessing.to_dict()], packages=(*NUMERIC, *READERS))
    digest = hashlib.sha256(settings.encode())
    for image in cohort.images:
        stamps = []
        # The time of a DICOM series' folder stays when a slice is overwritten.
        for path in image.parts:
            status = path.stat() if path.exists() else None
            # The time of the last change cannot be set back, as that of the last writing can.
            stamps.append((path.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns) if status else None)
        digest.update(f"{image.image_id}|{image.path.resolve()}|{stamps}|{image.reading}\n".encode())
    return digest.hexdigest()


def _fill(store: PixelStore, cohort: Cohort, preprocessing: Preprocessing, workers: int | None, progress: bool) -> None:
    blocks = blocks_of(preprocessing, cohort.images, store.seen, min(BLOCK, rows_at_once(store.shape)), workers, load)
    with Progress(len(cohort), f"read {cohort.name}", store.seen, progress) as bar:
        try:
            for block in blocks:
                store.append(block)
                bar.update(len(block.remarks))
        except BaseException:
            with suppress(OutputError):
                store.save()
            raise
        store.save()


def prepare(
    cohort: Cohort,
    preprocessing: Preprocessing,
    folder: str | Path,
    workers: int | None = None,
    progress: bool = True,
) -> PreparedCohort:
    """Preprocess all images of a cohort into one file, skipping what cannot be used.

    A call that was interrupted, even by ``kill -9``, continues with the first block of images that is missing. A file
    made from other images or with another preprocessing is replaced.

    Args:
        folder: for ``<cohort.name>.f16`` and ``<cohort.name>.json``.
        workers: threads, or processes where there are many files; by default one per core.
        progress: show a progress bar.

    Raises:
        CohortError: no image can be used.
        OutputError: the folder cannot be written or the disk is full.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from error
    shape = (preprocessing.channels, *preprocessing.size)
    store = PixelStore(folder, cohort.name, _fingerprint(cohort, preprocessing), shape)
    if store.seen < len(cohort):
        left = (len(cohort) - store.seen) * store.row_bytes
        require_space(folder, left, f"the {cohort.name} cohort of {len(cohort)} images, preprocessed,")
        _fill(store, cohort, preprocessing, workers, progress)
    skipped = (*cohort.skipped, *(SkippedImage(cohort.images[at].image_id, why) for at, why in store.skipped.items()))
    if not len(store):
        text = by_reason(f"none of the {len(cohort)} images of the {cohort.name} cohort can be used", skipped)
        raise CohortError(str(text), text.plain)
    if skipped:
        some, are = ("", "is") if len(skipped) == 1 else ("s", "are")
        logger.warning(by_reason(f"{len(skipped)} image{some} of the {cohort.name} cohort {are} skipped", skipped))
    left_out = store.skipped
    usable = cohort.subset(position for position in range(len(cohort)) if position not in left_out)
    return PreparedCohort(
        cohort=usable,
        pixels=store.read(),
        skipped=skipped,
        notes=(
            *cohort.notes,
            *(f"{number} image{'s' if number > 1 else ''} {note}" for note, number in sorted(store.notes.items())),
        ),
        content_sha256=store.content_sha256([image.image_id for image in usable.images]),
    )

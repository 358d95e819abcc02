# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""All images of a cohort, preprocessed once, on disk, and still there after a kill."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from monai_memo.data.cohort import Cohort, CohortImage, SkippedImage, by_reason
from monai_memo.data.loading import NOTE_SEPARATOR, Preprocessing
from monai_memo.errors import CohortError, OutputError, UnusableImageError
from monai_memo.sealing import NUMERIC, READERS, fingerprint, read_sealed_json, require_space, write_sealed_json

logger = logging.getLogger(__name__)

BLOCK = 256
VERSION = 4  # raise it when the same file and settings come to give other pixels: older caches are then not reused


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


class _Store:
    """Pixels in a flat file and a small JSON beside it that says how much of the file counts.

    Plain writes and not a memory map: a full disk then raises an error, where a map would end the process. The JSON
    holds the hash of every block of pixels: a file that was damaged since is made again.
    """

    def __init__(self, folder: Path, name: str, identity: str, shape: tuple[int, ...]) -> None:
        self.pixels, self.state_path = folder / f"{name}.f16", folder / f"{name}.json"
        self.shape, self.row_bytes = shape, int(np.prod(shape)) * 2
        self.state: dict[str, Any] = {
            "fingerprint": identity, "seen": 0, "kept": [], "skipped": {}, "notes": {}, "blocks": [],
        }  # fmt: skip
        found = read_sealed_json(self.state_path)
        if found is None or found.get("fingerprint") != identity:
            return  # nothing there yet, or not ours
        if self._is_whole(found["blocks"]):
            self.state = found
        else:
            logger.warning("%s is damaged: its images are read again", self.pixels)

    def _is_whole(self, blocks: list[list[Any]]) -> bool:
        """``blocks``: number of images and hash of each."""
        try:
            with open(self.pixels, "rb") as stream:
                return all(
                    hashlib.sha256(stream.read(number * self.row_bytes)).hexdigest() == digest
                    for number, digest in blocks
                )
        except OSError:
            return False

    def append(self, block: list[tuple[int, str, np.ndarray | None, str | None]]) -> None:
        """Add one block of (position, image id, pixels or None, reason or note)."""
        kept = len(self.state["kept"])
        arrays = []
        for position, image_id, array, remark in block:
            if array is None:
                self.state["skipped"][image_id] = remark
                continue
            self.state["kept"].append(position)
            arrays.append(array.astype(np.float16))
            if remark:
                self.state["notes"][image_id] = remark
        self.state["seen"] += len(block)
        content = b"".join(array.tobytes() for array in arrays)
        self.state["blocks"].append([len(arrays), hashlib.sha256(content).hexdigest()])
        try:
            if self.state["seen"] == len(block):
                # A kill right after this must not leave another cache's state beside our pixels.
                self.state_path.unlink(missing_ok=True)
            with open(self.pixels, "r+b" if self.pixels.exists() else "wb") as stream:
                stream.seek(kept * self.row_bytes)
                stream.write(content)
                stream.truncate()
        except OSError as error:
            raise OutputError(
                f"cannot write {self.pixels}: {error.strerror or error}. Free some space and run the same command "
                "again: it continues where it stopped."
            ) from error
        write_sealed_json(self.state_path, self.state)

    def read(self) -> NDArray[np.float16]:
        shape = (len(self.state["kept"]), *self.shape)
        return np.memmap(self.pixels, dtype=np.float16, mode="r", shape=shape)

    def content_sha256(self, ids: list[str], pixels: NDArray[np.float16]) -> str:
        if "content_sha256" not in self.state:
            digest = hashlib.sha256("\n".join(ids).encode())
            for start in range(0, len(pixels), BLOCK):
                digest.update(np.ascontiguousarray(pixels[start : start + BLOCK]).tobytes())
            self.state["content_sha256"] = digest.hexdigest()
            write_sealed_json(self.state_path, self.state)
        return str(self.state["content_sha256"])


def _load(
    preprocessing: Preprocessing, position: int, image: CohortImage
) -> tuple[int, str, np.ndarray | None, str | None]:
    try:
        array, note = preprocessing.load(image)
    except UnusableImageError as error:
        return position, image.image_id, None, error.reason
    return position, image.image_id, array, note


def _blocks(start: int, end: int) -> Iterator[range]:
    for first in range(start, end, BLOCK):
        yield range(first, min(first + BLOCK, end))


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
        workers: threads; by default one per core.
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
    store = _Store(folder, cohort.name, _fingerprint(cohort, preprocessing), shape)
    if store.state["seen"] < len(cohort):
        left = (len(cohort) - store.state["seen"]) * store.row_bytes
        require_space(folder, left, f"the {cohort.name} cohort of {len(cohort)} images, preprocessed,")
    with (
        ThreadPoolExecutor(workers or cpu_count() or 1) as pool,
        tqdm(
            total=len(cohort),
            initial=store.state["seen"],
            desc=f"read {cohort.name}",
            disable=None if progress and store.state["seen"] < len(cohort) else True,
        ) as bar,
    ):
        for block in _blocks(store.state["seen"], len(cohort)):
            loaded = list(pool.map(lambda i: _load(preprocessing, i, cohort.images[i]), block))
            store.append(loaded)
            bar.update(len(loaded))
    skipped = (*cohort.skipped, *(SkippedImage(*item) for item in store.state["skipped"].items()))
    if not store.state["kept"]:
        text = by_reason(f"none of the {len(cohort)} images of the {cohort.name} cohort can be used", skipped)
        raise CohortError(str(text), text.plain)
    if skipped:
        some, are = ("", "is") if len(skipped) == 1 else ("s", "are")
        logger.warning(by_reason(f"{len(skipped)} image{some} of the {cohort.name} cohort {are} skipped", skipped))
    usable = cohort.subset(store.state["kept"])
    pixels = store.read()
    notes = Counter(note for notes in store.state["notes"].values() for note in notes.split(NOTE_SEPARATOR))
    return PreparedCohort(
        cohort=usable,
        pixels=pixels,
        skipped=skipped,
        notes=(
            *cohort.notes,
            *(f"{number} image{'s' if number > 1 else ''} {note}" for note, number in sorted(notes.items())),
        ),
        content_sha256=store.content_sha256([image.image_id for image in usable.images], pixels),
    )

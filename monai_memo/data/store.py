# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Preprocessed images of a cohort in one file, however many they are, and still there after a kill."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.data.loading import NOTE_SEPARATOR
from monai_memo.data.workers import Block
from monai_memo.errors import OutputError
from monai_memo.files import read_blocks
from monai_memo.sealing import read_sealed_json, write_sealed_json

logger = logging.getLogger(__name__)

PAUSE = 20  # times as long as writing the state took until it is written again: at most a twentieth of the run


class PixelStore:
    """Pixels in a flat float16 file and a small JSON beside it that says how much of the file counts.

    float16 rounds values in [0, 1] by at most 0.00025, a sixteenth of a step of an 8-bit picture, and takes half of the
    room of float32.

    Plain writes and not a memory map: a full disk then raises an error, where a map would end the process. The JSON
    holds the hash of every block of pixels: a file that was damaged since is made again. Neither the JSON nor the
    memory grows with the images that can be used.

    Args:
        folder: exists.
        name: of the files ``<name>.f16`` and ``<name>.json``.
        identity: fingerprint of the images and their preprocessing; what was made from others is made again.
        shape: of one image, ``(channels, *size)``.
    """

    def __init__(self, folder: Path, name: str, identity: str, shape: tuple[int, ...]) -> None:
        self.pixels, self.state_path = folder / f"{name}.f16", folder / f"{name}.json"
        self.shape, self.row_bytes = shape, int(np.prod(shape)) * 2
        self.state: dict[str, Any] = {"fingerprint": identity, "seen": 0, "skipped": [], "notes": {}, "blocks": []}
        self._written, self._next = 0, 0.0
        found = read_sealed_json(self.state_path)
        if found is None or found.get("fingerprint") != identity:
            return  # nothing there yet, or not ours
        if self._is_whole(found["blocks"]):
            self.state, self._written = found, found["seen"]
        else:
            logger.warning("%s is damaged: its images are read again", self.pixels)

    @property
    def seen(self) -> int:
        """Images that were read, usable or not."""
        return int(self.state["seen"])

    @property
    def skipped(self) -> dict[int, str]:
        """Positions of images that cannot be used, with the reason."""
        return {int(position): str(reason) for position, reason in self.state["skipped"]}

    @property
    def notes(self) -> dict[str, int]:
        """What was done to some images, and to how many."""
        counts: Counter[str] = Counter()
        for notes, number in self.state["notes"].items():
            for note in notes.split(NOTE_SEPARATOR):
                counts[note] += number
        return dict(counts)

    def __len__(self) -> int:
        """Images that can be used."""
        return self.seen - len(self.state["skipped"])

    def _is_whole(self, blocks: list[list[Any]]) -> bool:
        """``blocks``: number of images and hash of each."""
        try:
            with open(self.pixels, "rb") as stream:
                for number, digest in blocks:
                    found = hashlib.sha256()
                    for part in read_blocks(stream, number * self.row_bytes):
                        found.update(part)
                    if found.hexdigest() != digest:
                        return False
        except OSError:
            return False
        return True

    def append(self, block: Block) -> None:
        """Add one block of images."""
        skipped, notes = list(self.state["skipped"]), dict(self.state["notes"])
        for position, (usable, remark) in enumerate(block.remarks, self.seen):
            if not usable:
                skipped.append([position, remark])
            elif remark:
                notes[remark] = notes.get(remark, 0) + 1
        content = np.ascontiguousarray(block.pixels, dtype=np.float16).reshape(-1).view(np.uint8).data
        blocks = [*self.state["blocks"], [len(block.pixels), hashlib.sha256(content).hexdigest()]]
        try:
            if self.seen == 0:
                # A kill right after this must not leave another cache's state beside our pixels.
                self.state_path.unlink(missing_ok=True)
            with open(self.pixels, "r+b" if self.pixels.exists() else "wb") as stream:
                stream.seek(len(self) * self.row_bytes)
                stream.write(content)
                stream.truncate()
        except OSError as error:
            raise OutputError(
                f"cannot write {self.pixels}: {error.strerror or error}. Free some space and run the same command "
                "again: it continues where it stopped."
            ) from error
        seen = self.seen + len(block.remarks)
        # In one step: an interruption must not find half of a state, which would be saved.
        self.state = {**self.state, "seen": seen, "skipped": skipped, "notes": notes, "blocks": blocks}
        if time.monotonic() >= self._next:
            self.save()

    def save(self) -> None:
        """Write how much of the file counts, if that has changed."""
        if self._written == self.seen:
            return
        start = time.monotonic()
        write_sealed_json(self.state_path, self.state)
        end = time.monotonic()
        self._written, self._next = self.seen, end + PAUSE * (end - start)

    def read(self) -> NDArray[np.float16]:
        """``(n, channels, *size)``, memory-mapped, read only."""
        return np.memmap(self.pixels, dtype=np.float16, mode="r", shape=(len(self), *self.shape))

    def content_sha256(self, ids: Sequence[str]) -> str:
        """Hash of the ids of the usable images and of their pixels."""
        if "content_sha256" not in self.state:
            digest = hashlib.sha256("\n".join(ids).encode())
            with open(self.pixels, "rb") as stream:  # pages of a map would count as memory of this process
                for part in read_blocks(stream, len(self) * self.row_bytes):
                    digest.update(part)
            self.state["content_sha256"] = digest.hexdigest()
            write_sealed_json(self.state_path, self.state)
        return str(self.state["content_sha256"])

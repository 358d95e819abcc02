# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Work in progress of a run: a folder that is known by a marker file, and of which only our own parts are removed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monai_memo import __version__
from monai_memo.errors import OutputError
from monai_memo.files import write_json
from monai_memo.workspace.locking import not_writable
from monai_memo.workspace.place import WORK

logger = logging.getLogger(__name__)

MARKER, JOURNAL, KIND = "owner.json", "journal.json", "monai_memo working folder"
STAGING, BACKUP = "output", "replaced"
# Everything that any command puts into its working folder. What is not on the list is somebody else's and stays.
PARTS = (
    "pixels", "sources", "planted", "training", "paper", "generator", "embeddings", "verified", "reference", "unseen",
    "scores", "datastore", "ranks", "looks", "images", "trainings", STAGING, BACKUP,
)  # fmt: skip
TEMPORARY = re.compile(r"\.(owner|journal|probe)\..+")  # of a write that was killed, see files.replacing


class Workspace:
    """The folder ``.monai_memo_work`` in an output folder.

    A folder of that name without the marker file is not ours: it is refused and left as it is, and so is a link.

    Args:
        out: output folder; exists.
        command: for the marker.
        identity: settings of the run (JSON types); the marker holds their hash.
    """

    def __init__(self, out: str | Path, command: str, identity: Any = None) -> None:
        self.path, self.command = Path(out) / WORK, command
        self.fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()

    def open(self) -> Workspace:
        """Make the folder, or take up the one of an interrupted run.

        Raises:
            OutputError: not ours, or it cannot be written.
        """
        self.require_ours()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)  # preprocessed images of patients lie there
            probe = self.path / ".probe.x"
            probe.write_bytes(b"x" * 4096)
            probe.unlink()
        except OSError as error:
            raise not_writable(self.path.parent, error) from error
        marker = {
            "kind": KIND,
            "format": 1,
            "version": __version__,
            "command": self.command,
            "fingerprint": self.fingerprint,
            "pid": os.getpid(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(self.path / MARKER, marker)
        return self

    def require_ours(self) -> None:
        """Refuse a folder of this name that no run of ours has made.

        Raises:
            OutputError: it is left as it is.
        """
        if not self.path.is_symlink():
            if not self.path.exists():
                return
            if self.path.is_dir():
                try:
                    marker = json.loads((self.path / MARKER).read_text(encoding="utf-8"))
                except (OSError, ValueError):
                    marker = None
                if isinstance(marker, dict) and marker.get("kind") == KIND:
                    return
                if all(TEMPORARY.fullmatch(item.name) for item in self.path.iterdir()):
                    return  # killed between making the folder and its marker
        rest = f"{WORK} there is not a working folder of monai_memo and is left as it is. Move it away, or name "
        raise OutputError(
            f"cannot work in {self.path.parent}: {rest}another folder with --out.", f"{rest}another folder with --out."
        )

    def staging(self) -> Path:
        """An empty folder for a result, see ``transaction.publish``."""
        folder = self.path / STAGING
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        return folder

    @property
    def foreign(self) -> list[str]:
        """Names in the working folder that no command of ours gives."""
        if not self.path.is_dir():
            return []
        ours = {*PARTS, MARKER, JOURNAL}
        return sorted(
            item.name
            for item in self.path.iterdir()
            if not TEMPORARY.fullmatch(item.name) and (item.name not in ours or item.is_symlink())
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be lost with it."""
        names = {item.name for item in self.path.iterdir()} if self.path.is_dir() else set()
        return names <= {MARKER}

    def clear(self) -> None:
        """Remove what is ours, the marker last; the folder itself only if nothing is left in it.

        Nothing happens while the journal of an unfinished write is there.
        """
        if self.path.is_symlink() or not (self.path / MARKER).is_file() or (self.path / JOURNAL).exists():
            return
        foreign = self.foreign
        for name in PARTS:
            part = self.path / name
            if part.is_dir() and not part.is_symlink():
                shutil.rmtree(part, ignore_errors=True)
        if foreign:
            logger.warning("%d things in %s are not ours and were left there", len(foreign), WORK)
            return
        for item in self.path.iterdir():
            if TEMPORARY.fullmatch(item.name):
                item.unlink(missing_ok=True)
        if {item.name for item in self.path.iterdir()} == {MARKER}:
            (self.path / MARKER).unlink()
            self.path.rmdir()

    def discard(self, part: str) -> None:
        """Remove one part that is no longer needed; what cannot be removed goes with ``clear``."""
        folder = self.path / part
        if part in PARTS and folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder, ignore_errors=True)

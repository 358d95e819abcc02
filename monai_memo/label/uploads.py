# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Files that the review server makes while it answers: they do not outlast the request, nor the server.

MONAI Label writes every upload to the temporary folder, and removes it only where the request succeeds.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "monai-memo-review-"


class RequestFiles:
    """A temporary folder of one server, private to its user, that is emptied whenever no request is under way.

    What servers that were killed have left beside it is removed first.

    Args:
        parent: where to make it; the system's temporary folder by default.
    """

    def __init__(self, parent: str | Path | None = None) -> None:
        place = Path(tempfile.gettempdir() if parent is None else parent)
        remove_leftovers(place)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=place))
        self._lock, self._under_way = threading.Lock(), 0
        atexit.register(self.close)

    def use(self) -> None:
        """Let Python's ``tempfile`` write there from now on."""
        tempfile.tempdir = str(self.folder)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Around each request. Requests overlap: the last one to end empties the folder."""
        with self._lock:
            self._under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1
                if not self._under_way:
                    self._empty()

    def _empty(self) -> None:
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()

    def close(self) -> None:
        """Remove the folder."""
        if tempfile.tempdir == str(self.folder):
            tempfile.tempdir = None
        shutil.rmtree(self.folder, ignore_errors=True)


def remove_leftovers(place: Path) -> None:
    """Remove folders of servers that do not run any more; those of other users are left alone."""
    for path in place.glob(f"{PREFIX}*"):
        found = re.match(rf"{PREFIX}(\d+)-", path.name)
        with suppress(OSError):
            if found and path.is_dir() and path.stat().st_uid == os.getuid() and not _runs(int(found[1])):
                shutil.rmtree(path, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""One run at a time in a folder. The lock ends with the process that holds it, however that ends."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from monai_memo.errors import OutputError

LOCK = ".monai_memo.lock"
SERVER = "review-server"  # it goes on until somebody ends it
READ_SECONDS = 2.0  # the holder writes who it is right after it has the lock


def not_writable(folder: Path, error: OSError) -> OutputError:
    """What a run says whose output folder cannot be written, with and without its name."""
    reason = error.strerror or str(error)
    return OutputError(
        f"cannot write to {folder}: {reason}. Name a writable folder with --out.",
        f"cannot write to the output folder: {reason}. Name a writable folder with --out.",
    )


class FolderLock:
    """Holds a folder for this process, from ``acquire`` to ``release`` or as a context.

    The operating system drops the lock of a process that has died, so that a file left behind blocks nobody. The file
    lies in the folder and not in a temporary one: two machines that share the folder then see the same file.

    Args:
        folder: exists.
        command: what holds it, for the message that the second one gets.
    """

    def __init__(self, folder: str | Path, command: str) -> None:
        self.path, self.command = Path(folder) / LOCK, command
        self._lock = FileLock(str(self.path), timeout=0, thread_local=False)

    def acquire(self) -> FolderLock:
        """Take the folder, or refuse at once.

        Raises:
            OutputError: another run has it (its process and start are named), or the folder cannot be written.
        """
        try:
            self._lock.acquire()
        except Timeout:
            raise _in_use(self.path) from None
        except OSError as error:
            raise not_writable(self.path.parent, error) from error
        holder = {
            "command": self.command,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with suppress(OSError):  # who holds it is for people: a full disk shows itself at the next write
            self.path.write_text(json.dumps(holder), encoding="utf-8")
        return self

    def release(self) -> None:
        """Give the folder back and remove the lock's file."""
        if self._lock.is_locked:
            # Removed while it is held: who opened it meanwhile finds that the file is gone, and opens a new one.
            with suppress(OSError):
                self.path.unlink()
            self._lock.release()

    def __enter__(self) -> FolderLock:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _holder(path: Path) -> dict[str, Any]:
    end = time.monotonic() + READ_SECONDS
    while True:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(found, dict) and isinstance(found.get("pid"), int):
                return found
        except (OSError, ValueError):
            pass
        if time.monotonic() > end:
            return {}
        time.sleep(0.05)


def _in_use(path: Path) -> OutputError:
    holder = _holder(path)
    if holder:
        elsewhere = "" if holder.get("host") == socket.gethostname() else f" on {holder.get('host')}"
        who = (
            f"process {holder['pid']}{elsewhere} (monai-memo {holder.get('command')}), started {holder.get('started')}"
        )
    else:
        who = "another process"
    remedy = f"{who}, is writing there. Wait until it has finished, end it, or name another folder with --out."
    if holder.get("command") == SERVER:
        remedy = f"{who}, is serving it to raters. End it first, with Ctrl+C where it was started."
    return OutputError(f"{path.parent} is in use: {remedy}", f"the output folder is in use: {remedy}")


def require_free(folder: Path, command: str) -> None:
    """Refuse a folder that another process holds; one that nobody has ever held is left as it is.

    Raises:
        OutputError: see ``FolderLock.acquire``.
    """
    if (folder / LOCK).is_file():
        FolderLock(folder, command).acquire().release()


_held: dict[Path, FolderLock] = {}


def hold(folder: str | Path, command: str) -> None:
    """Hold a folder until ``let_go`` or the end of the process; once more by the same process is no conflict.

    For trainings that a configuration file puts together, which have no place for a context. Of the processes of one
    distributed training only the first one holds.

    Raises:
        OutputError: another process has it, or a redacted result is there or in a folder above.
    """
    from monai_memo.workspace.manifest import require_unredacted  # it knows of locks

    folder = Path(folder)
    if _rank() != 0:
        return
    require_unredacted(folder)
    folder.mkdir(parents=True, exist_ok=True)
    key = folder.resolve()
    if key not in _held:
        _held[key] = FolderLock(key, command).acquire()


def let_go(folder: str | Path) -> None:
    """Give a folder back that ``hold`` has taken; nothing happens if it has not."""
    lock = _held.pop(Path(folder).resolve(), None)
    if lock is not None:
        lock.release()


def let_go_all(command: str) -> None:
    """Give back every folder that ``hold`` has taken for this command."""
    for folder in [folder for folder, lock in _held.items() if lock.command == command]:
        let_go(folder)


def _rank() -> int:
    distributed: Any = sys.modules.get("torch.distributed")  # nobody is in a group before it is imported
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    return int(os.environ.get("RANK", "0") or 0)

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The output folder of one run, from the first check to the last rename."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from monai_memo.errors import OutputError
from monai_memo.workspace.locking import FolderLock, not_writable, require_free
from monai_memo.workspace.manifest import (
    MANIFEST,
    Written,
    hash_of,
    leftovers,
    read_manifest,
    require_own,
    require_redacted,
    require_unredacted,
    write_manifest,
)
from monai_memo.workspace.place import EARLIER, WORK, check_place, check_targets
from monai_memo.workspace.transaction import move_all, recover
from monai_memo.workspace.working_folder import BACKUP, STAGING, Workspace

logger = logging.getLogger(__name__)

PATIENTS_LEFT = (
    f"{WORK} in the output folder holds images of patients, so that the run can go on. The same command removes it at "
    "its end; otherwise delete it before the folder is handed on."
)


class OutputFolder:
    """An output folder that this run alone may write to.

    On entering it is checked and locked, and a write that was killed is undone. Work in progress lies in ``work``
    until ``clear``, so that an interrupted run goes on. ``publish`` puts a whole result in place, or nothing.

    Args:
        out: as the user named it.
        command: of ``monai-memo``.
        cohorts: source of each cohort by the name of its option; ``out`` may not lie in one.
        writes: files of the result, relative to ``out``; refused early if something is in the way.
        identity: settings of the run (JSON types).
        redacted: refuse a folder that holds anything but redacted results; a folder with one is refused without it.
        shared: of ``writes``, those that belong to another command's result and are brought up to date.

    Example:
        >>> with OutputFolder("result", "audit") as output:  # doctest: +SKIP
        ...     (output.staging() / "numbers.txt").write_text("1 2 3")
        ...     output.publish()
        ...     output.clear()
    """

    def __init__(
        self,
        out: str | Path,
        command: str,
        cohorts: Mapping[str, str | Path | None] | None = None,
        writes: Sequence[str] = (),
        identity: Any = None,
        redacted: bool = False,
        shared: Sequence[str] = (),
    ) -> None:
        self.shared = tuple(shared)
        self.out, self.command, self.redacted = Path(str(out)), command, redacted
        self.given, self.cohorts, self.writes = str(out), cohorts, tuple(writes)
        self._workspace = Workspace(self.out, command, identity)
        self._lock = FolderLock(self.out, command)
        self._made = False

    @property
    def work(self) -> Path:
        """Folder for work in progress."""
        return self._workspace.path

    def __enter__(self) -> OutputFolder:
        check_place(self.given, self.cohorts)
        if not self.redacted:
            require_unredacted(self.out)
        self._made = not self.out.exists()
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_writable(self.out, error) from error
        try:
            self._lock.acquire()
            self._workspace.require_ours()
            if recover(self.out):
                logger.info("a result that was only half written was taken back; the earlier one is whole")
            require_own(self.out, self.command, self.writes, self.shared)
            check_targets(self.out, self.writes)
            for name in leftovers(self.out, self.command, read_manifest(self.out), self.writes):
                require_free(self.out / name, self.command)  # a review that is being served cannot move away
            if self.redacted:
                require_redacted(self.out)
            self._workspace.open()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._workspace.is_empty:  # refused before any work
            self.clear()
        elif error is not None and self.redacted:
            logger.warning(PATIENTS_LEFT)
        self._leave()

    def _leave(self) -> None:
        self._lock.release()
        if self._made:
            with suppress(OSError):
                self.out.rmdir()  # only if nothing was written

    def staging(self) -> Path:
        """An empty folder for the files of the result."""
        try:
            return self._workspace.staging()
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"cannot write to {self.work}: {reason}", f"cannot write to {WORK}: {reason}") from error

    def publish(self, of_others: Mapping[str, str] | None = None, last: str | None = None) -> list[str]:
        """Put everything from the staging folder in place: all of it, or nothing.

        A file that an earlier run of the same command has written, and nobody has changed since, is replaced. Anything
        else that is in the way, and files of the earlier result that the new one does not have, are moved to
        ``earlier/<time>``: they may be somebody's work.

        Args:
            of_others: staged files that belong to another command's result and are brought up to date, with it.
            last: staged file by which people know a whole result: it is put in place after all others.

        Returns:
            What was moved away, relative to the output folder.

        Raises:
            OutputError: nothing was changed, see ``transaction.move_all``.
        """
        staging, others = self.work / STAGING, dict(of_others or {})
        new = sorted(path.relative_to(staging).as_posix() for path in staging.rglob("*") if path.is_file())
        new.sort(key=lambda name: name == last)
        check_targets(self.out, new)
        results = read_manifest(self.out)
        hashes = {name: hash_of(staging / name) for name in new}
        aside = leftovers(self.out, self.command, results, new)
        replaced = [name for name in new if os.path.lexists(self.out / name)]
        aside += [name for name in replaced if not self._ours(name, hashes[name], results, others)]
        place = _free_place(self.out)
        if aside:
            moved = {
                command: Written(
                    item.created, item.redacted, {name: item.files[name] for name in item.files if _under(name, aside)}
                )
                for command, item in results.items()
            }
            write_manifest(staging / EARLIER / MANIFEST, {c: item for c, item in moved.items() if item.files} or moved)
        write_manifest(staging / MANIFEST, self._results(results, hashes, others, aside))
        moves = [(name, f"{place}/{name}") for name in aside]
        moves += [
            (name, f"{WORK}/{BACKUP}/{name}")
            for name in [*replaced, MANIFEST]
            if name not in aside and os.path.lexists(self.out / name)
        ]
        moves += [(f"{WORK}/{STAGING}/{name}", name) for name in [*new, MANIFEST]]
        if aside:
            moves.append((f"{WORK}/{STAGING}/{EARLIER}/{MANIFEST}", f"{place}/{MANIFEST}"))
        self._workspace.discard(BACKUP)
        move_all(self.out, moves)
        self._workspace.discard(BACKUP)
        if aside:
            outdated = [name for name in aside if name not in replaced]
            foreign = [name for name in aside if name in replaced]
            if outdated:
                logger.warning("moved to %s, since the new result does not hold them: %s", place, ", ".join(outdated))
            if foreign:
                text = "moved to %s, since they were not written by monai-memo or have been changed: %s"
                logger.warning(text, place, ", ".join(foreign))
        return aside

    def _ours(self, name: str, new: str, results: Mapping[str, Written], others: Mapping[str, str]) -> bool:
        path = self.out / name
        if path.is_symlink() or not path.is_file():
            return False
        found = hash_of(path)
        owner = results.get(others.get(name, self.command))
        return found == new or name in others or (owner is not None and owner.files.get(name) == found)

    def _results(
        self, results: Mapping[str, Written], hashes: Mapping[str, str], others: Mapping[str, str], aside: Sequence[str]
    ) -> dict[str, Written]:
        found = {}
        for command, item in results.items():
            files = {
                name: value for name, value in item.files.items() if not _under(name, aside) and name not in hashes
            }
            files |= {name: hashes[name] for name, owner in others.items() if owner == command and name in hashes}
            if files and command != self.command:
                found[command] = Written(item.created, item.redacted, files)
        mine = {name: value for name, value in hashes.items() if name not in others}
        found[self.command] = Written(datetime.now(UTC).isoformat(timespec="seconds"), self.redacted, mine)
        return found

    def clear(self) -> None:
        """Remove the work in progress."""
        self._workspace.clear()


def _under(name: str, places: Sequence[str]) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in places)


def _free_place(out: Path) -> str:
    """``earlier/<time>``, which nothing is at."""
    base = next(
        name
        for name in (EARLIER, *(f"{EARLIER}.{number}" for number in range(2, 1000)))
        if not os.path.lexists(out / name) or ((out / name).is_dir() and not (out / name).is_symlink())
    )
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    names = (f"{base}/{stamp}", *(f"{base}/{stamp}-{number}" for number in range(2, 10_000)))
    return next(name for name in names if not os.path.lexists(out / name))

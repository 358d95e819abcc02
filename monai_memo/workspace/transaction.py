# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Many files change as one: a list of renames, written down before the first one, and undone if one fails.

A process that is killed between two renames leaves the list (the journal); the next run in the folder undoes what was
done of it, and so finds the earlier result whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from monai_memo.errors import ConfigurationError, MemoError, OutputError
from monai_memo.files import write_json
from monai_memo.workspace.place import WORK
from monai_memo.workspace.working_folder import JOURNAL

Moves = Sequence[tuple[str, str]]


def move_all(out: Path, moves: Moves) -> None:
    """Rename files and folders below ``out``: all of them, or none.

    Args:
        out: output folder with a working folder, in which the journal is kept.
        moves: (from, to) relative to ``out``, in order; nothing may be at ``to`` when its turn comes.

    Raises:
        OutputError: one of them failed. Everything is where it was, unless the message says otherwise.
    """
    journal = out / WORK / JOURNAL
    made = _missing_parents(out, moves)
    try:
        write_json(journal, {"moves": [list(move) for move in moves], "made": made})
        _sync(journal.parent)
        for source, target in moves:
            (out / target).parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(out / target):
                raise FileExistsError(17, "something of that name has just appeared", target)
            os.replace(out / source, out / target)
        _sync(out)
        journal.unlink()
    except BaseException as error:
        _undo(out, moves, made, error)
        if isinstance(error, OSError | MemoError):
            reason = error.strerror or str(error) if isinstance(error, OSError) else error.__cause__ or "write failed"
            rest = (
                f"{getattr(reason, 'strerror', None) or reason}. Earlier results there are unchanged. Free some space "
                "and run the same command again: it continues where it stopped."
            )
            raise OutputError(f"cannot write to {out}: {rest}", f"cannot write to the output folder: {rest}") from error
        raise


def recover(out: Path) -> bool:
    """Undo what a killed process had begun.

    Returns:
        Whether there was something to undo.

    Raises:
        OutputError: it cannot be undone.
    """
    journal = out / WORK / JOURNAL
    if not journal.is_file() or (out / WORK).is_symlink():
        return False
    try:
        record = json.loads(journal.read_text(encoding="utf-8"))
        moves = [(str(source), str(target)) for source, target in record["moves"]]
        made = [str(name) for name in record["made"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{journal} is damaged: it says how to restore an earlier result. Look at {journal.parent}, and move it "
            "away when nothing in it is needed.",
            f"the journal in {WORK} is damaged: it says how to restore an earlier result. Look at that folder, and "
            "move it away when nothing in it is needed.",
        ) from error
    for name in [name for move in moves for name in move] + made:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise OutputError(f"{journal} names places outside of the folder: it is not ours and is left as it is")
    _undo(out, moves, made, None)
    return True


def require_settled(folder: str | Path) -> None:
    """Refuse to read a result that is only half in place.

    Raises:
        ConfigurationError: a run was killed while it wrote its result, or is just writing it.
    """
    if (Path(folder) / WORK / JOURNAL).exists():
        raise ConfigurationError(
            f"{folder} holds a result that is only half in place: a run writes there, or was killed while it did. Run "
            "its command again, which puts it in order."
        )


def _undo(out: Path, moves: Moves, made: Sequence[str], error: BaseException | None) -> None:
    try:
        for source, target in reversed(moves):
            if os.path.lexists(out / target) and not os.path.lexists(out / source):
                (out / source).parent.mkdir(parents=True, exist_ok=True)
                _move_back(out / target, out / source)
        for name in sorted(made, key=len, reverse=True):
            with suppress(OSError):
                (out / name).rmdir()
        _sync(out)
        (out / WORK / JOURNAL).unlink(missing_ok=True)
    except OSError as again:
        rest = (
            f"{again.strerror or again}. The result is only half in place, and the earlier one could not be put back; "
            f"nothing is lost, it lies in {WORK}. Run the same command again: it puts everything in order first."
        )
        raise OutputError(f"cannot write to {out}: {rest}", f"cannot write to the output folder: {rest}") from (
            error or again
        )


def _move_back(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError:  # once more: what made us come here may have passed
        os.rename(source, target)


def _missing_parents(out: Path, moves: Moves) -> list[str]:
    missing: dict[str, None] = {}
    for _, target in moves:
        for parent in [*Path(target).parents][:-1]:
            if not os.path.lexists(out / parent):
                missing[parent.as_posix()] = None
    return [*missing]


def _sync(folder: Path) -> None:
    """Renames reach the disk: they are kept in the folder, not in the file."""
    handle: Any = None
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
    if handle is not None:
        os.close(handle)

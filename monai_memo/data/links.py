# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Why a file that stands in a folder or a table is not there, as far as it can be told without a reader."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from monai_memo.files import data_files_of

DANGLING = "a link to a file that is not there (git-annex or DVC: fetch the data first)"
LOOP = "a link that leads back to itself"
POINTER = "a pointer of git-annex, and not the file (git annex get fetches it)"
LFS_POINTER = "a pointer of Git LFS, and not the file (git lfs pull fetches it)"
EMPTY = "an empty file of 0 bytes (a broken copy, or one that a cloud drive has not fetched yet)"
FORBIDDEN = "not readable (no permission)"
NOT_REGULAR = "not a file but a named pipe, socket or device"
BAD_NAME = "named in another encoding than UTF-8 (rename it: no record could name it)"
POINTERS = ((b"/annex/objects/", POINTER), (b"version https://git-lfs.github.com/spec", LFS_POINTER))
SMALL = 1024  # bytes; pointers have one to three lines


def failure_reason(path: str, error: OSError) -> str:
    """Why ``os.stat`` of a path failed."""
    if error.errno == errno.ELOOP:
        return LOOP
    if error.errno in (errno.EACCES, errno.EPERM):
        return FORBIDDEN
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return DANGLING if os.path.islink(path) else "missing"
    return f"not readable ({error.strerror or 'input/output error'})"


def status_reason(path: str, status: os.stat_result) -> str | None:
    """What is wrong with a file that is there, by its status and, if it is small, by its first bytes."""
    if not stat.S_ISREG(status.st_mode):
        return NOT_REGULAR
    if status.st_size == 0:
        return EMPTY
    if status.st_size > SMALL:
        return None
    try:
        with open(path, "rb") as stream:
            start = stream.read(64)
    except OSError:
        return None  # the reader says it
    return next((reason for mark, reason in POINTERS if start.startswith(mark)), None)


def absence_reason(path: Path) -> str | None:
    """Why an image of a table cannot be read, before any reader looks at it; None if it is there, or a folder.

    ``"missing"`` is what plainly is not there.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        return failure_reason(str(path), error)
    if stat.S_ISDIR(status.st_mode):
        return None
    return status_reason(str(path), status) or data_reason(path)


def data_reason(path: Path) -> str | None:
    """Why the other files of an image in several files cannot be read."""
    try:
        named = data_files_of(path)
    except OSError:
        return FORBIDDEN
    for item in named:
        part = "its header (.hdr)" if item.name.lower().endswith((".hdr", ".hdr.gz")) else "its data file"
        try:
            reason = status_reason(str(item), os.stat(item))
        except ValueError:
            reason = "missing"
        except OSError as error:
            reason = failure_reason(str(item), error)
        if reason is not None:
            return f"{part} is {reason}"
    return None

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The output folder of an audit: tried before the work, filled after it."""

from __future__ import annotations

import os
from pathlib import Path

from monai_memo.errors import OutputError


def require_writable(out: Path, work: Path) -> None:
    """Find out now, and not after an hour of training, that nothing can be written.

    Args:
        out: output folder, for the message.
        work: working folder in it, made if it is missing.

    Raises:
        OutputError: it cannot be made or written to.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        probe = work / ".probe"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write to {out}: {error.strerror or error}. Name a writable folder with --out."
        ) from error


def move_over(staging: Path, out: Path) -> None:
    """Move every file from a staging folder to the same place under ``out``, replacing older ones."""
    for path in sorted(staging.rglob("*")):
        if path.is_file():
            target = out / path.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)

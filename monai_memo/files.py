# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Atomic writes: a reader sees the old file or the whole new one, never half of one."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_memo.errors import OutputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on leaving without an error it replaces ``path`` in one step.

    Raises:
        OutputError: the folder is not writable or the disk is full. ``path`` is then as it was before.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix is kept because NumPy, nibabel and torch choose the format by it.
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; a report is meant to be read by colleagues
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. Earlier files there are unchanged. "
            "Free some space or name another folder with --out."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically and return the path."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: str | Path, record: Any) -> Path:
    """Write JSON atomically, keys in the order given. NaN and infinity are refused: they are not JSON."""
    return write_text(path, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_with(path: str | Path, writer: Callable[[Path], Any]) -> Path:
    """Let ``writer`` write a temporary file (``numpy.save``, ``torch.save``), then replace ``path`` with it."""
    with replacing(path) as temporary:
        writer(temporary)
    return Path(path)


def parts_of(path: str | Path) -> list[Path]:
    """The files that hold an image: those of a folder (a DICOM series) in name order, a MetaImage header and its data.

    A file stands for itself, whether it exists or not.
    """
    path = Path(path)
    if path.is_dir():
        return sorted(item for item in path.iterdir() if item.is_file())
    if path.suffix.lower() == ".mhd" and path.is_file():
        header = path.read_text(encoding="utf-8", errors="replace")
        named = [line.partition("=")[2].strip() for line in header.splitlines() if line.startswith("ElementDataFile")]
        return [path, *(path.parent / name for name in named if (path.parent / name).is_file())]
    return [path]


def sha256_of(path: str | Path) -> str:
    """Hash of a file's bytes; of an image in several files (``parts_of``), of their hashes."""
    return sha256_of_parts(parts_of(path))


def sha256_of_parts(parts: Sequence[Path]) -> str:
    """Hash of the one file, or of the hashes of several."""
    if len(parts) == 1:
        return _sha256_of_file(parts[0])
    digest = hashlib.sha256()
    for item in parts:
        digest.update(_sha256_of_file(item).encode())
    return digest.hexdigest()


def _sha256_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()

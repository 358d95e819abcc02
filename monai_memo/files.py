# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Atomic writes: a reader sees the old file or the whole new one, never half of one."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import math
import mmap
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

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
        raise _unwritable(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {path}: {error.strerror or error}. Earlier files there are unchanged. "
        "Free some space or name another folder with --out."
    )


@contextmanager
def writing_into(path: Path, size: int | None = None) -> Iterator[BinaryIO]:
    """Write anywhere into a working file that several processes fill.

    Args:
        size: bytes; makes the file, where an earlier one is given up.

    Raises:
        OutputError: the folder is not writable or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "r+b" if size is None else "wb") as stream:
            if size is not None:
                stream.truncate(size)
            yield stream
    except OSError as error:
        raise _unwritable(path, error) from error


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically and return the path.

    Names of files need not be UTF-8: what Python keeps of such a name (a lone surrogate) is written as an escape, which
    JSON reads back.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return Path(path)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object] | Mapping[str, object]]) -> str:
    r"""A table as text, with a line of column names.

    Args:
        rows: values in the order of the columns, or by their names; what a row does not have stays empty.

    Example:
        >>> csv_text(["image", "patient_id"], [["1.png", "p"], {"image": "2.png"}])
        'image,patient_id\n1.png,p\n2.png,\n'
    """
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(columns)
    for row in rows:
        table.writerow([row.get(name, "") for name in columns] if isinstance(row, Mapping) else row)
    return stream.getvalue()


def write_json(path: str | Path, record: Any) -> Path:
    """Write JSON atomically, keys in the order given. NaN and infinity are refused: they are not JSON."""
    return write_text(path, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_with(path: str | Path, writer: Callable[[Path], Any]) -> Path:
    """Let ``writer`` write a temporary file (``numpy.save``, ``torch.save``), then replace ``path`` with it."""
    with replacing(path) as temporary:
        writer(temporary)
    return Path(path)


PAIRS = {".hdr": (".img", ".img.gz", ".IMG", ".IMG.gz"), ".img": (".hdr", ".hdr.gz", ".HDR", ".HDR.gz")}
NUMBERED = re.compile(
    r"(?P<start>[^%]*)%0?(?P<digits>\d?)d(?P<end>[^%]*?)\s+(?P<from>\d+)\s+(?P<to>\d+)\s+(?P<step>\d+)(\s+\d+)?"
)


def parts_of(path: str | Path) -> list[Path]:
    """The files that hold an image, headers before their data.

    Those of a folder (a DICOM series) in name order; a NIfTI or Analyze pair (``.hdr`` and ``.img``, either may be
    named); a MetaImage or NRRD header and the data files that it names. Any other file stands for itself, whether it
    exists or not.
    """
    path = Path(path)
    if path.is_dir():
        return sorted(item for item in path.iterdir() if item.is_file())
    data = [item for item in data_files_of(path) if item.is_file()]
    return [*data, path] if _without_gz(path).lower() == ".img" else [path, *data]


def data_files_of(path: str | Path) -> list[Path]:
    """The other files that an image in several files consists of, whether they exist or not.

    Of ``.hdr`` the ``.img``, of ``.img`` the ``.hdr``; of a MetaImage or NRRD header what it names as its data
    (one file, a list, or a numbered series). Empty for files that hold all of the image.
    """
    path = Path(path)
    ending = _without_gz(path)
    if ending.lower() in PAIRS:
        stem = path.name[: path.name.lower().rindex(ending.lower())]
        partners = [path.with_name(stem + partner) for partner in PAIRS[ending.lower()]]
        return [next((partner for partner in partners if partner.is_file()), partners[0])]
    if ending.lower() in (".mhd", ".mha", ".nhdr", ".nrrd") and path.is_file():
        # With the pixels in the same file, the header is its first lines.
        most = 1 << 22 if ending.lower() in (".mhd", ".nhdr") else 1 << 14
        with open(path, "rb") as stream:
            lines = [os.fsdecode(line) for line in stream.read(most).splitlines()]
        named = _named_by_metaimage(lines) if ending.lower() in (".mhd", ".mha") else _named_by_nrrd(lines)
        return [path.parent / name for name in named]
    return []


def _without_gz(path: Path) -> str:
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix


def _named_by_metaimage(lines: Sequence[str]) -> list[str]:
    for number, line in enumerate(lines):
        key, _, value = line.partition("=")
        if key.strip() == "ElementDataFile":  # always the last field of the header
            return _names(value.strip(), lines[number + 1 :])
    return []


def _named_by_nrrd(lines: Sequence[str]) -> list[str]:
    for number, line in enumerate(lines):
        if not line:
            break  # the pixels begin
        field = re.fullmatch(r"data ?file\s*:\s*(.*)", line, re.IGNORECASE)
        if field:
            return _names(field.group(1).strip(), lines[number + 1 :])
    return []


def _names(value: str, following: Sequence[str]) -> list[str]:
    """A file's name, ``LOCAL``, ``LIST`` with one name a line below, or ``slice%03d.raw FIRST LAST STEP``."""
    if value.upper() in ("", "LOCAL"):
        return []
    if value.upper().split()[0] == "LIST":
        return [line.strip() for line in following if line.strip()]
    series = NUMBERED.fullmatch(value)
    if series is None:
        return [value]
    numbers = range(int(series["from"]), min(int(series["to"]), 100_000) + 1, max(int(series["step"]), 1))
    return [f"{series['start']}{str(number).zfill(int(series['digits'] or 0))}{series['end']}" for number in numbers]


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
        for block in read_blocks(stream):
            digest.update(block)
    return digest.hexdigest()


def read_blocks(stream: IO[bytes], most: int | None = None, size: int = 1 << 20) -> Iterator[bytes]:
    """The next bytes of a file, ``most`` of them or all, a block at a time."""
    left = most
    while block := stream.read(size if left is None else min(size, left)):
        yield block
        left = None if left is None else left - len(block)


AT_ONCE, BYTES_AT_ONCE = 256, 1 << 25  # images, and bytes of them in single precision, that are worked on together


def rows_at_once(shape: Sequence[int]) -> int:
    """How many images of this shape are worked on together: fewer where they are large."""
    return max(1, min(AT_ONCE, BYTES_AT_ONCE // (4 * max(math.prod(shape), 1))))


def blocks(array: Sized) -> Iterator[slice]:
    """Slices that go through an array of images which may be larger than the memory.

    Args:
        array: ``(n, ...)``, may be memory-mapped.

    Example:
        >>> import numpy as np
        >>> list(blocks(np.empty((20, 1, 1024, 1024), dtype=np.float16)))[1:]
        [slice(8, 16, None), slice(16, 20, None)]
    """
    step = rows_at_once(getattr(array, "shape", (0, 1))[1:])
    for start in range(0, len(array), step):
        yield slice(start, min(start + step, len(array)))


def release(array: Any) -> None:
    """Let go of the pages of a mapped file that were read: they count as memory of this process until then.

    What is not mapped, or could have been changed, stays as it is.
    """
    pages = getattr(array, "_mmap", None)
    if pages is not None and getattr(array, "mode", "") == "r" and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def quiet_threads() -> None:
    """Let threads (TensorBoard's writer) not print a traceback about a full disk: the main thread tells of it."""
    before = threading.excepthook

    def told(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is None or exhausted(arguments.exc_value) is None:
            before(arguments)

    threading.excepthook = told


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc")


def exhausted(error: BaseException) -> str | None:
    """What to say where the machine has run out of disk or memory; None for any other error.

    PyTorch tells of both by ``RuntimeError``, and threads of TensorBoard hand on a bare ``OSError``.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL:
            return (
                f"the disk is full ({seen.strerror}). What was finished before is whole: free some space and run the "
                "same command again, it continues where it stopped."
            )
        if isinstance(seen, FileNotFoundError) and "No usable temporary directory" in str(seen):
            return (
                "no temporary folder can be written: the disk may be full. What was finished before is whole: free "
                "some space or name a folder in TMPDIR, and run the same command again, it continues where it stopped."
            )
        if isinstance(seen, MemoryError) or any(words in str(seen).lower() for words in NO_MEMORY):
            return (
                "there is not enough memory. Nothing was lost: use smaller images (--size), smaller batches "
                "(--batch_size) or fewer --workers, or raise the limit, and run the same command again."
            )
        seen = seen.__cause__ or seen.__context__
    return None

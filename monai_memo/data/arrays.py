# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""npy and npz: arrays that do not say what their axes are."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from monai_memo.data.sniffing import truncated
from monai_memo.data.stored import LARGEST, Stored
from monai_memo.errors import UnusableImageError

PICKLED = "holds a pickled array, which could run code: save it with numpy.save(..., allow_pickle=False)"


def _header(path: Path, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type, from the bytes before the pixels."""
    version = np.lib.format.read_magic(stream)  # type: ignore[arg-type]
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)  # type: ignore[arg-type]
    if dtype.hasobject:
        raise UnusableImageError(path, PICKLED)
    return shape, dtype


def _stored(path: Path, kind: str, shape: tuple[int, ...], dtype: np.dtype[Any], read: Any) -> Stored:
    if dtype.names:
        raise UnusableImageError(path, f"holds records of {len(dtype.names)} fields instead of numbers")
    return Stored(kind, shape, dtype.name, lambda: (read(), ()), guess=True, rows_first=True)


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    count = dtype.itemsize
    for length in shape:
        count *= int(length)
    return count


def describe_npy(path: Path) -> Stored:
    """What the header of an npy file says."""
    with open(path, "rb") as stream:
        shape, dtype = _header(path, stream)
        wanted, found = _bytes(shape, dtype), path.stat().st_size - stream.tell()
    if found < wanted:
        raise UnusableImageError(path, truncated(found, wanted))
    return _stored(path, "npy", shape, dtype, lambda: np.load(path, allow_pickle=False))


def describe_npz(path: Path) -> Stored:
    """What the header of the one array of an npz file says."""
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if name.endswith(".npy")]
        if len(members) != 1:
            names = ", ".join(name.removesuffix(".npy")[:20] for name in members[:4]) + (", ..." if members[4:] else "")
            what = f"holds {len(members)} arrays ({names})" if members else "is a ZIP archive without NumPy arrays"
            raise UnusableImageError(path, f"{what}: save one array a file")
        with archive.open(members[0]) as stream:
            shape, dtype = _header(path, stream)
        wanted, found = _bytes(shape, dtype), archive.getinfo(members[0]).file_size
        if found < wanted or found > 8 * LARGEST:
            raise UnusableImageError(path, truncated(found, wanted))

    def read() -> np.ndarray:
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays[arrays.files[0]])

    return _stored(path, "npz", shape, dtype, read)

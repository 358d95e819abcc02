# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""NIfTI 1 and 2, Analyze 7.5 and MGH, with nibabel: the file's own word on its orientation, and no guess."""

from __future__ import annotations

import logging
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from monai_memo.data.sniffing import GZIP, gunzip, gunzipped_head, head_of, is_nifti, may_hold, truncated
from monai_memo.data.stored import LARGEST, Stored, by, orientation_of, refuse_unclear
from monai_memo.errors import UnusableImageError

# nibabel tells on stderr what it mends in headers; what matters here is told as a note.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)

COLOUR_INTENTS = (2003, 2004)  # NIFTI_INTENT_RGB_VECTOR, NIFTI_INTENT_RGBA_VECTOR
LIES_NOWHERE = "has an affine that gives no orientation"
QFORM_NOTE = "turned by the qform, because the sform is empty"
CONFLICT_NOTE = "turned by the sform, where the qform says otherwise"
LEADING_NOTE = "with leading axes of length 1, which were dropped"
PAIR = (".hdr", ".img", ".hdr.gz", ".img.gz")


def _class(path: Path, head: bytes) -> Any:
    if path.name.lower().endswith((".mgh", ".mgz")):
        return nibabel.MGHImage  # type: ignore[attr-defined]
    if not is_nifti(head):
        raise UnusableImageError(path, "does not begin with the header of a NIfTI file")
    if head[4:8] in (b"n+2\0", b"ni2\0"):
        return nibabel.Nifti2Image if head[4:8] == b"n+2\0" else nibabel.Nifti2Pair  # type: ignore[attr-defined]
    magic = {b"n+1\0": nibabel.Nifti1Image, b"ni1\0": nibabel.Nifti1Pair}  # type: ignore[attr-defined]
    return magic.get(head[344:348], nibabel.Spm2AnalyzeImage)  # type: ignore[attr-defined]


def _partner(path: Path, ending: str) -> Path | None:
    """The other file of a pair, compressed or not."""
    stem = path.name[: -len(".hdr.gz" if path.name.lower().endswith(".gz") else ".hdr")]
    for name in (stem + ending, stem + ending.upper(), stem + ending + ".gz"):
        if (found := path.with_name(name)).exists():
            return found
    return None


def _affine(path: Path, header: Any) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The sform goes before the qform, as in most programs; without either nibabel would guess a mirrored x."""
    if isinstance(header, nibabel.freesurfer.mghformat.MGHHeader):
        return header.get_affine(), ()
    if not isinstance(header, nibabel.Nifti1Header):  # type: ignore[attr-defined]
        return None, ()  # Analyze
    found = {}
    for name, code, get in (
        ("sform", "sform_code", header.get_sform),
        ("qform", "qform_code", header.get_qform),
    ):
        if int(header[code]) != 0:
            try:
                matrix = np.asarray(get(), dtype=np.float64)
            except Exception:  # a quaternion that is none
                matrix = np.full((4, 4), np.nan)
            found[name] = (matrix, orientation_of(matrix))
    if not found:
        return None, ()
    usable = {name: item for name, item in found.items() if item[1] is not None}
    if "sform" in usable:
        differ = "qform" in usable and usable["qform"][1] != usable["sform"][1]
        return usable["sform"][0], (CONFLICT_NOTE,) if differ else ()
    if "qform" in usable:
        return usable["qform"][0], (QFORM_NOTE,) if "sform" in found else ()
    if sum(1 for length in header.get_data_shape() if length > 1) < 3:
        return None, ()  # a picture does not need it
    raise UnusableImageError(path, LIES_NOWHERE)


def describe(path: Path, whole: bool = False) -> Stored:
    """What the header says.

    Args:
        path: a file, or one of the two of a pair.
        whole: unpack a compressed file to its end first, so that its checksum vouches for the header as well: nibabel
            stops before it, and a flipped bit would pass as intensity.
    """
    first = head_of(path)
    if path.name.lower().endswith(PAIR) and first[344:348] != b"n+1\0":
        header_file, image_file = _partner(path, ".hdr"), _partner(path, ".img")
        if header_file is None or image_file is None:
            raise UnusableImageError(path, f"its {'.hdr' if header_file is None else '.img'} file is missing")
    else:
        header_file = image_file = path
    head = head_of(header_file)
    if head[:2] == GZIP:
        head = gunzipped_head(header_file)
    kind = _class(path, head)
    stream = BytesIO(head.ljust(1024, b"\0"))
    header = kind.header_class(stream.read(kind.header_class.template_dtype.itemsize))
    shape = tuple(int(length) for length in header.get_data_shape())
    dtype = np.dtype(header.get_data_dtype())
    if any(length < 1 for length in shape):
        raise UnusableImageError(path, "empty")
    offset = int(header.get_data_offset()) if header_file == image_file else 0
    if header_file == image_file and offset < getattr(kind.header_class, "sizeof_hdr", 0):
        raise UnusableImageError(path, "damaged: its header says that its pixels begin within the header")
    wanted = offset + dtype.itemsize * int(np.prod([float(length) for length in shape]))
    packed = head_of(image_file)[:2] == GZIP
    size = image_file.stat().st_size
    if wanted > 16 * LARGEST or (packed and not may_hold(size, wanted)) or (not packed and size < wanted):
        if packed and whole:
            gunzip(image_file, 0)  # a broken checksum tells more than a header that makes no sense
        if wanted > 16 * LARGEST:
            raise UnusableImageError(path, f"needs {wanted / 1e9:,.0f} GB of memory ({by(shape)}): more than is read")
        raise UnusableImageError(path, truncated(size, wanted))
    raw = gunzip(image_file, wanted + 4096) if packed and whole else None
    if raw is not None and len(raw) < wanted:
        raise UnusableImageError(path, truncated(len(raw), wanted))

    def load() -> np.ndarray:
        content = raw if raw is not None else gunzip(image_file, wanted + 4096) if packed else image_file.read_bytes()
        holders = {"image": nibabel.FileHolder(fileobj=BytesIO(content))}  # type: ignore[attr-defined, no-untyped-call]
        if header_file != image_file:
            words = gunzip(header_file, 1 << 20) if head_of(header_file)[:2] == GZIP else header_file.read_bytes()
            holders["header"] = nibabel.FileHolder(fileobj=BytesIO(words))  # type: ignore[attr-defined, no-untyped-call]
        if kind is nibabel.Spm2AnalyzeImage:  # type: ignore[attr-defined]
            holders["mat"] = nibabel.FileHolder(fileobj=BytesIO())  # type: ignore[attr-defined, no-untyped-call]
        array = np.asanyarray(kind.from_file_map(holders).dataobj)
        if array.dtype.names:  # NIfTI's colours
            array = np.stack([array[name] for name in array.dtype.names], axis=-1)
        return array.reshape((*shape, array.shape[-1]) if dtype.names else shape)

    # nibabel puts a guess, and a flag that vouches for it, where an MGH file does not state its orientation.
    guessed = kind is nibabel.MGHImage and head[28:30] == b"\0\0"  # type: ignore[attr-defined]
    return _stored(path, header, kind.__name__, shape, dtype, load, guessed)


def _stored(
    path: Path, header: Any, kind: str, shape: tuple[int, ...], dtype: np.dtype[Any], read: Any, guessed: bool
) -> Stored:
    affine, notes = (None, ()) if guessed else _affine(path, header)
    lead = 0
    while len(shape) - lead > 3 and shape[lead] == 1:  # (1, x, y, z), as networks give volumes
        lead += 1
    volume = shape[lead:]
    if lead:
        notes = (*notes, LEADING_NOTE)
    if len(volume) == 4:
        refuse_unclear(path, volume)
    intent = int(header["intent_code"]) if isinstance(header, nibabel.Nifti1Header) else 0  # type: ignore[attr-defined]
    several = tuple(range(3, len(volume)))
    colour = None
    if dtype.names:
        colour = len(volume)
    elif intent in COLOUR_INTENTS and len(volume) > 3 and volume[-1] in (3, 4):
        colour, several = len(volume) - 1, several[:-1]
    zooms = tuple(float(mm) for mm in header.get_zooms()[lead : lead + 3])
    if affine is not None:
        zooms = tuple(float(mm) for mm in np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))
    name = "MGH" if kind == "MGHImage" else "Analyze" if kind.startswith("Spm") else "NIfTI"
    return Stored(
        format=name,
        shape=volume if not dtype.names else (*volume, len(dtype.names)),
        dtype="uint8" if dtype.names else dtype.name,
        load=lambda: (read().reshape(volume if not dtype.names else (*volume, len(dtype.names))), ()),
        colour=colour,
        several=several,
        affine=affine,
        spacing=zooms if zooms and not guessed and all(np.isfinite(zooms)) and min(zooms) > 0 else None,
        notes=notes,
    )

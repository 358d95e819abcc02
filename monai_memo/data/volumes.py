# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""NRRD and MetaImage, with ITK. Their text headers are looked at first: ITK takes their word for sizes and spaces."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_memo.data.sniffing import may_hold, truncated
from monai_memo.data.stored import LARGEST, PRESUMED_COLOUR_NOTE, Stored, by, refuse_unclear
from monai_memo.errors import UnusableImageError

HEADER = 1 << 16  # bytes that a text header may take
SPACE = re.compile(r"(right|left)-(anterior|posterior)-(superior|inferior)(-time)?|[RL][AP][SI]T?", re.I)
KNOWN_SPACE = re.compile(r"(right-anterior|left-anterior|left-posterior)-superior(-time)?|(RA|LA|LP)ST?", re.I)
ENDINGS = {"NRRD": (".nrrd", ".nhdr"), "MetaImage": (".mha", ".mhd")}
COLOUR_KINDS = ("rgb-color", "rgba-color", "3-color", "4-color")
NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4
    ),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t", "double"), 8),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), 8),
}
META_BYTES = {
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_LONG", "MET_ULONG", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"), 8),
}
DTYPES = {
    "unsigned_char": "uint8", "char": "int8", "short": "int16", "unsigned_short": "uint16", "int": "int32",
    "unsigned_int": "uint32", "long": "int64", "unsigned_long": "uint64", "long_long": "int64",
    "unsigned_long_long": "uint64", "float": "float32", "double": "float64",
}  # fmt: skip
# ITK's Python has images of these types only; others are read as double precision.
WRAPPED = {"uint8": "UC", "int16": "SS", "uint16": "US", "int32": "SI", "uint32": "UI", "float32": "F", "float64": "D"}


@dataclass(frozen=True)
class _Text:
    """What a text header says of sizes and space."""

    shape: tuple[int, ...]
    itemsize: int
    oriented: bool
    kinds: tuple[str, ...] = ()
    spaced: bool = True


def _lines(path: Path) -> tuple[str, bytes]:
    with open(path, "rb") as stream:
        raw = stream.read(HEADER)
    return raw.decode("latin-1"), raw


def _lengths(path: Path, words: str | None, dims: str | None) -> tuple[int, ...]:
    try:
        shape = tuple(int(word) for word in (words or "").split())
        if not 1 <= len(shape) <= 8 or len(shape) != int(dims or 0) or min(shape) < 0:
            raise ValueError
    except ValueError:
        raise UnusableImageError(path, "damaged: its header does not say how many values it has") from None
    return shape


def _check_data(path: Path, data: Path, start: int | None, packed: str, wanted: int) -> None:
    """Refuses, before anything is allocated, what cannot be there.

    Args:
        data: the file with the pixels.
        start: of the pixels in it; None where it is not known.
        packed: ``"raw"``, ``"deflate"`` (gzip or zlib), ``"text"`` or what else the header says.
        wanted: bytes that the pixels take.
    """
    if wanted > 8 * LARGEST:
        raise UnusableImageError(path, f"needs {wanted / 1e9:,.0f} GB of memory: more than is read")
    if not data.is_file():
        raise UnusableImageError(path, "the file with its pixels is missing")
    found = data.stat().st_size - (start or 0)
    if packed == "raw" and found < wanted:
        raise UnusableImageError(path, truncated(found, wanted))
    if packed == "deflate" and not may_hold(found, wanted):
        raise UnusableImageError(path, truncated(found, wanted))
    if packed == "text" and 8 * found < wanted:
        raise UnusableImageError(path, truncated(found, wanted))


def check_deflated(path: Path, data: Path, start: int, wanted: int) -> None:
    """Unpacks what a file holds from ``start``, for its checksum and its length."""
    unpack, found = zlib.decompressobj(wbits=47), 0  # gzip or zlib
    with open(data, "rb") as stream:
        stream.seek(start)
        while not unpack.eof and (chunk := stream.read(1 << 18)):
            while chunk and not unpack.eof:
                found += len(unpack.decompress(chunk, 1 << 22))
                chunk = unpack.unconsumed_tail
    if not unpack.eof or found < wanted:
        raise UnusableImageError(path, truncated(found, wanted))


def _nrrd(path: Path, whole: bool) -> _Text:
    text, raw = _lines(path)
    end = re.search(rb"\r?\n\r?\n", raw)
    fields = {}
    for line in text[: end.start() if end else len(text)].splitlines()[1:]:
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields[name.strip().lower()] = value.strip()
    shape = _lengths(path, fields.get("sizes"), fields.get("dimension"))
    size = NRRD_BYTES.get(fields.get("type", "").lower())
    if size is None:
        raise UnusableImageError(path, "holds values of a type that is not read")
    wanted = size * int(np.prod([float(length) for length in shape]))
    encoding = fields.get("encoding", "").lower()
    packed = {"raw": "raw", "gzip": "deflate", "gz": "deflate", "ascii": "text", "text": "text", "txt": "text"}
    detached = fields.get("data file", fields.get("datafile"))
    if encoding not in (*packed, "hex"):
        raise UnusableImageError(path, "is compressed in a way that is not read: save it with encoding gzip or raw")
    if detached is None:
        start = end.end() if end else len(raw)
        _check_data(path, path, start, packed.get(encoding, ""), wanted)
        plain = "byte skip" not in fields and "line skip" not in fields
        if whole and plain and packed.get(encoding) == "deflate":
            check_deflated(path, path, start, wanted)
    elif not re.match(r"LIST|.*%", detached):
        _check_data(path, path.parent / detached, None, packed.get(encoding, ""), wanted)
    elif wanted > 8 * LARGEST:
        raise UnusableImageError(path, f"needs {wanted / 1e9:,.0f} GB of memory: more than is read")
    space = fields.get("space", "")
    if SPACE.fullmatch(space) and not KNOWN_SPACE.fullmatch(space):
        raise UnusableImageError(path, "damaged: it names a space that NRRD does not have (RAS, LAS and LPS are known)")
    oriented = bool(SPACE.fullmatch(space) and "space directions" in fields)
    spaced = "spacings" in fields or "space directions" in fields
    kinds = re.findall(r"\S+", fields.get("kinds", "").lower())
    return _Text(shape, size, oriented, tuple(kinds), spaced)


def _meta(path: Path, whole: bool) -> _Text:
    text, _ = _lines(path)
    fields, start = {}, 0
    for line in text.splitlines(keepends=True):
        name, equals, value = line.partition("=")
        start += len(line)
        fields[name.strip()] = value.strip()
        if not equals or name.strip() == "ElementDataFile":
            break
    shape = _lengths(path, fields.get("DimSize"), fields.get("NDims"))
    size = META_BYTES.get(fields.get("ElementType", ""))
    channels = fields.get("ElementNumberOfChannels", "1")
    if size is None or not channels.isdigit() or not 1 <= int(channels) <= 10000:
        raise UnusableImageError(path, "holds values of a type that is not read")
    if not fields.get("ElementDataFile"):
        raise UnusableImageError(path, "damaged: its header does not say where its pixels are")
    wanted = size * int(channels) * int(np.prod([float(length) for length in shape]))
    packed = "raw"
    if fields.get("CompressedData", "").lower() in ("true", "1"):
        packed = "deflate"
    elif fields.get("BinaryData", "true").lower() in ("false", "0"):
        packed = "text"
    file = fields["ElementDataFile"]
    if file.upper() == "LOCAL":
        _check_data(path, path, start, packed, wanted)
        if whole and packed == "deflate":
            check_deflated(path, path, start, wanted)
    elif not re.match(r"LIST|.*%", file):
        data = path.parent / file
        _check_data(path, data, None, packed, wanted)
        if whole and packed == "deflate":
            check_deflated(path, data, 0, wanted)
    elif wanted > 8 * LARGEST:
        raise UnusableImageError(path, f"needs {wanted / 1e9:,.0f} GB of memory: more than is read")
    # AnatomicalOrientation alone is no help: programs do not agree whether its letters say from where or to where.
    oriented = any(name in fields for name in ("TransformMatrix", "Orientation", "Rotation"))
    spaced = "ElementSpacing" in fields or "ElementSize" in fields
    return _Text((*shape, int(channels)) if int(channels) > 1 else shape, size, oriented, spaced=spaced)


def describe(path: Path, kind: str, whole: bool = False) -> Stored:
    """What the header of a NRRD or MetaImage file says.

    Args:
        kind: ``"NRRD"`` or ``"MetaImage"``.
        whole: check compressed pixels to their end as well.
    """
    text = _nrrd(path, whole) if kind == "NRRD" else _meta(path, whole)
    import itk

    itk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if reader is None:
        if not path.name.lower().endswith(ENDINGS[kind]):
            raise UnusableImageError(
                path, f"holds {kind} under another name: give it the ending {' or '.join(ENDINGS[kind])}"
            )
        raise UnusableImageError(path, f"does not begin with the header of a {kind} file")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    dims = int(reader.GetNumberOfDimensions())
    shape = tuple(int(reader.GetDimensions(axis)) for axis in range(dims))
    components = int(reader.GetNumberOfComponents())
    dtype = DTYPES.get(reader.GetComponentTypeAsString(reader.GetComponentType()), "")
    if not dtype:
        raise UnusableImageError(path, "holds values of a type that is not read")
    colour = components in (3, 4) and any(kind in COLOUR_KINDS for kind in text.kinds)
    notes: tuple[str, ...] = ()
    if kind == "MetaImage" and components in (3, 4) and dtype == "uint8" and sum(n > 1 for n in shape) == 2:
        colour, notes = True, (PRESUMED_COLOUR_NOTE,)  # MetaImage has no word for colour
    if kind == "NRRD" and text.kinds and "complex" in text.kinds:
        raise UnusableImageError(path, "holds complex values instead of real numbers: save their magnitude")
    if dims == 4 and components == 1 and not text.kinds:
        refuse_unclear(path, shape)
    spacing = tuple(float(reader.GetSpacing(axis)) for axis in range(min(dims, 3)))
    affine = None
    if text.oriented and dims >= 3:
        affine = np.eye(4)
        for axis in range(3):
            direction = np.array([float(value) for value in list(reader.GetDirection(axis))[:3]])
            affine[:3, axis] = direction * spacing[axis]
        affine[:3, 3] = [float(reader.GetOrigin(axis)) for axis in range(3)]
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # ITK means LPS
    return Stored(
        format=kind,
        shape=shape if components == 1 else (*shape, components),
        dtype=dtype,
        load=lambda: (_load(path, shape, components, dtype), ()),
        colour=dims if colour else None,
        several=tuple(range(3, dims)) + (() if colour or components == 1 else (dims,)),
        affine=affine,
        spacing=spacing if text.spaced else None,
        notes=notes,
    )


def _load(path: Path, shape: tuple[int, ...], components: int, dtype: str) -> np.ndarray:
    """``(x, y[, z[, t]][, components])``."""
    import itk

    dims = len(shape)
    if dims > 4:
        raise UnusableImageError(path, f"has {by(shape)} values: save one volume a file")
    if components == 1:
        image = itk.imread(str(path), getattr(itk, WRAPPED.get(dtype, "D")))
        return np.asarray(itk.array_from_image(image)).transpose(range(dims)[::-1])
    kind: Any = itk.VectorImage[itk.F, dims]
    reader = itk.ImageFileReader[kind].New(FileName=str(path))
    reader.Update()
    found = np.asarray(itk.array_from_image(reader.GetOutput()))
    return found.transpose((*range(dims)[::-1], dims))

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What a file holds by its first bytes, and why it cannot be read: endings lie, and "unreadable" helps nobody."""

from __future__ import annotations

import gzip
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_memo.errors import UnusableImageError

HEAD = 1024  # bytes that tell every kind
GZIP = b"\x1f\x8b"
PICTURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    **{b"P%d" % number: "PNM" for number in range(1, 7)},
}
FOREIGN = {
    b"version https://git-lfs": "a Git LFS pointer, not the image itself: run 'git lfs pull'",
    b"%PDF": "a PDF document",
    b"\x80\x02": "pickled Python objects, which could run code: save the array with numpy.save",
    b"\x80\x03": "pickled Python objects, which could run code: save the array with numpy.save",
    b"\x80\x04": "pickled Python objects, which could run code: save the array with numpy.save",
    b"\x80\x05": "pickled Python objects, which could run code: save the array with numpy.save",
    b"\x89HDF": "an HDF5 file: save one image a file in a format that is read",
    b"MATLAB": "a MATLAB file: save one image a file in a format that is read",
    b"CDF\x01": "a NetCDF or MINC file: convert it to NIfTI",
    b"CDF\x02": "a NetCDF or MINC file: convert it to NIfTI",
    b"\0\0\x01\xba": "an MPEG video: save its frames as pictures",
    b"\0\0\x01\xb3": "an MPEG video: save its frames as pictures",
    b"\x1a\x45\xdf\xa3": "a Matroska or WebM video: save its frames as pictures",
    b"BZh": "data compressed with bzip2: unpack it first",
    b"\xfd7zXZ": "data compressed with xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "data compressed with Zstandard: unpack it first",
    b"7z\xbc\xaf": "a 7-Zip archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
}


def is_nifti(head: bytes) -> bool:
    """NIfTI 1 and 2 and Analyze 7.5, by the length that their header begins with."""
    lengths = {int.from_bytes(head[:4], order) for order in ("little", "big")}  # type: ignore[arg-type]
    return (348 in lengths and len(head) >= 348) or (540 in lengths and head[4:8] in (b"n+2\0", b"ni2\0"))


def kind_of(head: bytes) -> str | None:
    """The format by the first bytes, in the names of ``data.formats``. None: they do not tell."""
    if head[128:132] == b"DICM":  # what stands before it may look like TIFF
        return "DICOM"
    for start, name in PICTURES.items():
        if head.startswith(start) and (name != "PNM" or head[2:3].isspace()) and (name != "BMP" or _is_bitmap(head)):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PK\x03\x04"):
        return "npz"
    if is_nifti(head):
        return "NIfTI"
    if re.match(rb"NRRD000\d", head):
        return "NRRD"
    if re.match(rb"\s*(ObjectType|NDims|Comment|ObjectSubType)\s*=", head):
        return "MetaImage"
    return None


def _is_bitmap(head: bytes) -> bool:
    return len(head) > 26 and head[6:10] == b"\0\0\0\0" and int.from_bytes(head[14:18], "little") in range(12, 129)


def foreign(head: bytes) -> str | None:
    """What a file holds that is no image in a format that is read, and what to do. None: it is not known."""
    if not head:
        return "an empty file"
    for start, phrase in FOREIGN.items():
        if head.startswith(start):
            return "holds " + phrase if not phrase.startswith("a Git") else "is " + phrase
    if b"/annex/objects/" in head[:300]:
        return "is a git-annex pointer, not the image itself: run 'git annex get'"
    if head[4:8] == b"ftyp":
        still = head[8:12] in (b"heic", b"heix", b"mif1", b"avif")
        return "holds a HEIC or AVIF picture: save it as PNG" if still else "holds an MP4 video: save its frames"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "holds an AVI video: save its frames as pictures"
    if not head.strip(b"\0"):
        return "holds zeros only: perhaps a copy that did not finish"
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "holds a web page, not an image: perhaps a download that failed"
    if re.match(rb"<(\?xml|!--|!doctype|[a-z_][\x09-\x0d\x20-\x7e]*[\s/>])", start):  # one "<" may begin noise as well
        return "holds XML text, not an image: perhaps a download that failed"
    if not re.search(rb"[^\x09-\x0d\x20-\x7e\x80-\xff]", head) and sum(byte < 128 for byte in head) > 0.9 * len(head):
        return "holds text, not an image"
    return None


def head_of(path: Path) -> bytes:
    """The first bytes of a file."""
    with open(path, "rb") as stream:
        return stream.read(HEAD)


def gunzipped_head(path: Path, number: int = HEAD) -> bytes:
    """The first bytes of what is compressed in a file."""
    with gzip.open(path) as stream:
        return stream.read(number)


def gunzip(path: Path, wanted: int) -> bytes:
    """At most ``wanted`` bytes of what is compressed in a file; the rest is unpacked for its checksum and dropped."""
    with gzip.open(path) as stream:
        found = stream.read(wanted)
        while stream.read(1 << 20):
            pass
    return found


def may_hold(size: int, wanted: int) -> bool:
    """Whether a file of this size can hold so many bytes compressed: deflate gains at most a factor of 1032."""
    return wanted <= 1032 * size


def truncated(found: int, wanted: int) -> str:
    """The reason for a file that is shorter than its header says."""
    return f"truncated: {found:,} of {wanted:,} bytes"


def cause(error: BaseException, path: Path) -> str:
    """A reason without names and paths from an error of a library."""
    text = " ".join(str(error).split())
    if isinstance(error, PermissionError):
        return "permission to read it is denied"
    if isinstance(error, MemoryError):
        return "does not fit into memory"
    if isinstance(error, EOFError) or re.search(r"truncated|unexpected end|end of file|Unexpected EOF", text, re.I):
        return "truncated: the file ends before its image does"
    if isinstance(error, gzip.BadGzipFile | zlib.error | zipfile.BadZipFile):
        detail = "its checksum does not fit" if "crc" in text.lower() else "its compressed data are broken"
        return f"damaged: {detail}"
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return f"the system cannot read it: {error.strerror.lower()}"
    # What libraries say may hold a path; the type of the error does not.
    if path.name in text or path.stem in text or re.search(r"[/\\]|'[^']*'|\"[^\"]*\"", text):
        text = ""
    return f"damaged: {text[:100]} ({type(error).__name__})" if text else f"damaged ({type(error).__name__})"


@contextmanager
def causes_named(path: Path) -> Iterator[None]:
    """Turns every error of a library into one that names the cause."""
    try:
        yield
    except UnusableImageError:
        raise
    except (Exception, SystemError) as error:
        raise UnusableImageError(path, cause(error, path)) from error

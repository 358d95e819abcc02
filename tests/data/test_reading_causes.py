# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What cannot be read is named with its cause, without names, quickly and without filling the memory."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_memo.data.cohort import CohortImage, Reading
from monai_memo.data.formats import ENDINGS
from monai_memo.data.loading import Preprocessing
from monai_memo.data.reading import read_header, read_image
from monai_memo.errors import UnusableImageError

NAME = "Doe_Jane_1970"


def reason_of(path: Path) -> str:
    with pytest.raises(UnusableImageError) as error:
        read_image(path)
    reason = error.value.reason
    assert NAME not in reason and str(path.parent) not in reason and "unreadable" not in reason
    assert len(reason) < 250
    return reason


def picture(kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


def nifti() -> bytes:
    return bytes(nibabel.Nifti1Image(np.random.default_rng(0).random((9, 8, 7)), np.eye(4)).to_bytes())


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + picture()[33:]


def npy(shape: str, dtype: str = "<f8") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def arrays(**content: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **content)
    return stream.getvalue()


META = "ObjectType = Image\nNDims = 3\nDimSize = {}\nElementType = MET_FLOAT\nElementDataFile = {}\n"
NRRD = "NRRD0004\ntype: float\ndimension: 3\nsizes: {}\nencoding: {}\n\n"

CAUSES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("png", b"", "an empty file"),
    "lfs": ("nii.gz", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "is a Git LFS pointer"),
    "annex": ("png", b"../../.git/annex/objects/Xy/12/MD5E-s1--0.png\n", "is a git-annex pointer"),
    "page": ("dcm", b"\n<!DOCTYPE html><title>403</title>", "holds a web page, not an image"),
    "page nifti": ("nii", b"<html>", "holds a web page, not an image"),
    "xml": ("nrrd", b'<?xml version="1.0"?><Error/>', "holds XML text"),
    "xml bare": ("nrrd", b"\n<Error><Code>AccessDenied</Code></Error>", "holds XML text"),
    "svg": ("png", b'<svg xmlns="x"/>', "holds XML text"),
    "text": ("mha", b"patient Doe, not to be shown\n", "holds text, not an image"),
    "pdf": ("jpg", b"%PDF-1.7 ...", "holds a PDF document"),
    "video": ("png", b"\0\0\x01\xba" + bytes(40), "holds an MPEG video: save its frames as pictures"),
    "mp4": ("dcm", b"\0\0\0\x18ftypisom" + bytes(40), "holds an MP4 video"),
    "heic": ("jpg", b"\0\0\0\x18ftypheic" + bytes(40), "holds a HEIC or AVIF picture: save it as PNG"),
    "hdf": ("nii", b"\x89HDF\r\n\x1a\n" + bytes(40), "holds an HDF5 file"),
    "zeros": ("nii", bytes(2000), "holds zeros only: perhaps a copy that did not finish"),
    "pickle": ("npy", pickle.dumps(np.zeros(3)), "holds pickled Python objects, which could run code"),
    "several": ("npz", arrays(image=np.zeros((9, 9)), mask=np.zeros((9, 9))), "holds 2 arrays (image, mask): save one"),
    "zip": ("npz", b"PK\x03\x04" + bytes(60), "damaged: its compressed data are broken"),
    "records": (
        "npy",
        npy("(2,)").replace(b"'<f8'", b"[('a','<f8')]") + bytes(16),
        "holds records of 1 fields instead",
    ),
    "zipped picture": ("png", gzip.compress(picture()), "is PNG compressed with gzip: unpack it first"),
    "xz": ("nii", b"\xfd7zXZ\0" + bytes(40), "holds data compressed with xz: unpack it first"),
    "cut png": ("png", picture()[:-1500], "truncated: the file ends before its image does"),
    "cut jpeg": ("jpg", picture("JPEG")[:-900], "truncated: the file ends before its image does"),
    "cut tiff": ("tif", picture("TIFF")[:900], "truncated: the file ends before its image does"),
    "cut npy": ("npy", npy("(9, 9)") + bytes(100), "truncated: 100 of 648 bytes"),
    "cut nifti": ("nii", nifti()[:1000], "truncated: 1,000 of 4,384 bytes"),
    "cut nifti.gz": ("nii.gz", gzip.compress(nifti())[:900], "truncated: the file ends before its image does"),
    "short nifti.gz": ("nii.gz", gzip.compress(nifti()[:2000]), "truncated: 2,000 of 4,384 bytes"),
    "broken nifti.gz": ("nii.gz", gzip.compress(nifti())[:-8] + bytes(8), "damaged: its checksum does not fit"),
    "noise": ("nii", b"<\x81\x02 noise" + b"\xff\0\xfe" * 100, "does not begin with the header of a NIfTI file"),
    "noise png": ("png", b"\xfe\xff\0\1" * 40, "does not begin as a PNG file does"),
    "noise mha": ("mha", b"\xfe\xff\0\1" * 40, "does not begin as a MetaImage file does"),
    "noise unnamed": ("xyz", b"\xfe\xff\0\1" * 40, "is no kind of image that is read"),
    "hdr": ("hdr", nibabel.nifti1.Nifti1PairHeader().binaryblock, "its .img file is missing"),
    "bad png": ("png", picture()[:40] + bytes(500), "damaged"),
    "large png": ("png", png_header(200_000, 100_000), "has 20,000,000,000 pixels, more than the"),
    "large npy": ("npy", npy("(40000, 40000, 40000)"), "truncated: 0 of 512,000,000,000,000 bytes"),
    "large mha": ("mha", META.format("40000 40000 40000", "LOCAL").encode(), "needs 256,000 GB of memory"),
    "large nrrd": ("nrrd", NRRD.format("40000 40000 40000", "gzip").encode(), "needs 256,000 GB of memory"),
    "greedy nrrd": ("nrrd", NRRD.format("1000 1000 1000", "gzip").encode() + bytes(99), "truncated: 99 of 4,000,000,"),
    "cut nrrd": ("nrrd", NRRD.format("9 8 7", "raw").encode() + bytes(99), "truncated: 99 of 2,016 bytes"),
    "odd nrrd": ("nrrd", NRRD.format("9 8 7", "bzip2").encode() + bytes(99), "is compressed in a way that is not read"),
    "no sizes": ("nrrd", NRRD.format("9 8", "raw").encode(), "damaged: its header does not say how many values"),
    "cut mha": ("mha", META.format("9 8 7", "LOCAL").encode() + bytes(99), "truncated: 99 of 2,016 bytes"),
    "no raw": ("mhd", META.format("9 8 7", "nothing.raw").encode(), "the file with its pixels is missing"),
    "negative": ("mha", META.format("9 -8 7", "LOCAL").encode(), "damaged: its header does not say how many values"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_every_cause_is_named(tmp_path: Path, name: str) -> None:
    ending, content, reason = CAUSES[name]
    path = tmp_path / f"{NAME}.{ending}"
    path.write_bytes(content)
    assert reason_of(path).startswith(reason)
    try:
        read_header(path)
    except UnusableImageError as error:
        assert NAME not in error.reason


def test_pickled_arrays_are_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    np.save(tmp_path / "x.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", np.array([Trap()], dtype=object))
    (tmp_path / "y.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("x.npy", "x.npz"):
        assert reason_of(tmp_path / name).startswith("holds a pickled array, which could run code: save it with")
    assert "pickled" in reason_of(tmp_path / "y.npy")
    assert not (tmp_path / "ran").exists()


def test_links_folders_and_permissions_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "nothing.png")
    assert reason_of(tmp_path / "link.png") == "a link to a file that is not there"
    assert reason_of(tmp_path / "nothing.png") == "missing"
    (tmp_path / "x.png").mkdir()
    assert reason_of(tmp_path / "x.png") == "a folder without DICOM files"
    (tmp_path / "y.png").write_bytes(picture())

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "y.png"))

    monkeypatch.setattr("monai_memo.data.reading.head_of", denied)
    assert reason_of(tmp_path / "y.png") == "permission to read it is denied"


def test_an_error_that_nobody_foresaw_is_named_by_its_type_and_without_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"{NAME}.png"
    path.write_bytes(picture())
    for error, reason in (
        (ValueError(f"no idea what {path} is"), "damaged (ValueError)"),
        (KeyError("'Doe Jane'"), "damaged (KeyError)"),
        (RuntimeError("tile cannot extend outside image"), "damaged: tile cannot extend outside image (RuntimeError)"),
        (MemoryError(), "does not fit into memory"),
        (OSError(5, "Input/output error", str(path)), "the system cannot read it: input/output error"),
    ):

        def fails(*_: object, raised: Exception = error) -> None:
            raise raised

        monkeypatch.setattr("monai_memo.data.pictures.describe", fails)
        assert reason_of(path) == reason


def test_a_compressed_bomb_does_not_fill_the_memory(tmp_path: Path) -> None:
    """200 MB of zeros behind a small volume, and a header that claims more than is there."""
    (tmp_path / "long.nii.gz").write_bytes(gzip.compress(nifti() + bytes(200_000_000), 1))
    header = nibabel.Nifti1Header()
    header.set_data_shape((1000, 1000, 600))
    header["vox_offset"] = 352
    (tmp_path / "claim.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(200_000_000), 1))
    code = (
        "import resource, sys, time\n"
        "from monai_memo.data.reading import read_image\n"
        "before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()\n"
        "try: print(read_image(sys.argv[1]).array.shape)\n"
        "except Exception as error: print(error.reason)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
        "print(time.process_time() - start)\n"
    )
    for name, said in (("long.nii.gz", "(1, 9, 8, 7)"), ("claim.nii.gz", "truncated: ")):
        found = subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], capture_output=True, text=True)
        reason, megabytes, seconds = found.stdout.splitlines()
        assert reason.startswith(said) and int(megabytes) < 100 and not found.stderr
        assert float(seconds) < 30


@pytest.mark.parametrize("ending", ENDINGS)
def test_damaged_bytes_never_end_in_anything_but_a_reason(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(len(ending))
    volume = rng.random((9, 8, 7)).astype(np.float32)
    path = tmp_path / f"{NAME}{ending}"
    kinds = {".jpg": "JPEG", ".tif": "TIFF", ".bmp": "BMP", ".webp": "WEBP", ".gif": "GIF", ".jp2": "JPEG2000"}
    if ending in (".npy", ".npz"):
        stream = io.BytesIO()
        (np.save if ending == ".npy" else np.savez)(stream, volume)
        whole = stream.getvalue()
    elif ending.startswith(".mh"):
        whole = META.format("9 8 7", "LOCAL").encode() + volume.tobytes()
    elif ending in (".nrrd", ".nhdr"):
        whole = NRRD.format("9 8 7", "raw").encode() + volume.tobytes()
    elif ending.endswith((".gz", ".mgz")):
        whole = gzip.compress(nifti())
    elif ending in (".nii", ".hdr", ".img", ".mgh"):
        whole = nifti()
    else:
        whole = picture(kinds.get(ending, "PNG"))
    path.write_bytes(whole)
    with suppress(UnusableImageError):
        read_image(path)  # the first image of a format loads its library
    for _ in range(25):
        changed = bytearray(whole)
        for position in rng.integers(0, min(len(whole), 600), 3):
            changed[position] = rng.integers(0, 256)
        path.write_bytes(bytes(changed[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else changed))
        start = time.monotonic()
        for reader in (read_image, read_header):
            try:
                reader(path)
            except UnusableImageError as error:
                assert error.reason and NAME not in error.reason and "unreadable" not in error.reason
        assert time.monotonic() - start < 10


def test_a_window_clips_before_scaling_and_is_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    units = rng.normal(0, 600, (32, 32)).round()
    units[:6, :6] = 3000
    np.save(tmp_path / "raw.npy", units)
    np.save(tmp_path / "clipped.npy", units.clip(-160, 240))
    image = CohortImage(tmp_path / "raw.npy", "raw", "raw", reading=Reading(window=(-160, 240)))
    settings = Preprocessing(2, (32, 32))
    found, note = settings.load(image)
    np.testing.assert_allclose(found, settings(tmp_path / "clipped.npy"), atol=1e-6)
    np.testing.assert_allclose(found[0], (units.clip(-160, 240) + 160) / 400, atol=1e-6)
    assert note == "clipped to the window -160 to 240"
    for values, said in ((units / 3000 + 300, "299.* to 301"), (units.clip(-160, 3000) * 0 - 500, "-500 to -500")):
        np.save(tmp_path / "raw.npy", values)
        with pytest.raises(
            UnusableImageError, match=r"lies outside the window -160 to 240: its values reach from " + said
        ):
            settings.load(image)

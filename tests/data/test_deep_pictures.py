# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""PNG of 16 bits keep their values, whatever stands beside the grey: colours, transparency, a turn."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from monai_memo.data.loading import COLOUR_NOTE, Preprocessing
from monai_memo.data.pictures import TRANSPARENCY_NOTE, TURNED_NOTE
from monai_memo.data.reading import read_header, read_image
from monai_memo.errors import UnusableImageError

GREY, COLOUR, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 4, 6
LOW = np.arange(32 * 48, dtype=np.uint16).reshape(32, 48) // 6  # 0 to 255: 8 bits would leave nothing of it
TURNS = {2: LOW[:, ::-1], 3: LOW[::-1, ::-1], 4: LOW[::-1], 5: LOW.T, 6: np.rot90(LOW), 7: np.rot90(LOW, 2).T}
TURNS[8] = np.rot90(LOW, -1)


def write(path: Path, array: NDArray[np.uint16], kind: int, chunks: Sequence[tuple[bytes, bytes]] = ()) -> Path:
    """A PNG of 16 bits, which Pillow does not write with several channels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows, columns = array.shape[:2]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in array)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 16, kind, 0, 0, 0))
    body = b"".join(chunk(*item) for item in chunks) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body)
    return path


def layers(grey: NDArray[np.uint16], kind: int, alpha: int = 65535) -> NDArray[np.uint16]:
    opaque = np.full_like(grey, alpha)
    return np.stack([grey] * (1 if kind == GREY_ALPHA else 3) + [opaque] * (kind != COLOUR), axis=-1)


@pytest.mark.parametrize("kind", [COLOUR, GREY_ALPHA, COLOUR_ALPHA])
def test_colours_and_transparency_of_16_bits_do_not_cost_8(tmp_path: Path, kind: int) -> None:
    for name in ("x.png", "named.jpg"):
        path = write(tmp_path / name, layers(LOW, kind), kind)
        found = read_image(path)
        assert found.array.shape == (1 if kind == GREY_ALPHA else 3, 32, 48) and found.notes == ()
        np.testing.assert_array_equal(found.array[0], LOW)
        assert read_header(path).shape == (32, 48) and read_header(path).dtype == "uint16"
    note = Preprocessing(2, (32, 48)).load(path)[1]
    assert note == (None if kind == GREY_ALPHA else COLOUR_NOTE)


@pytest.mark.parametrize("orientation", sorted(TURNS))
def test_pictures_of_16_bits_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    chunk = (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    path = write(tmp_path / "x.png", layers(TURNS[orientation], COLOUR), COLOUR, [chunk])
    np.testing.assert_array_equal(read_image(path).array[2], LOW)
    assert read_header(path).shape == (32, 48) and read_image(path).notes == (TURNED_NOTE,)


@pytest.mark.parametrize("kind", [GREY, COLOUR])
def test_one_transparent_value_of_16_bits_is_left_out_and_counted(tmp_path: Path, kind: int) -> None:
    chunk = (b"tRNS", struct.pack(">H", 7) * (1 if kind == GREY else 3))
    for scale in (1, 100):
        values = LOW * np.uint16(scale)
        path = write(tmp_path / "x.png", values if kind == GREY else layers(values, kind), kind, [chunk])
        np.testing.assert_array_equal(read_image(path).array[0], values)
        assert read_image(path).notes == ((TRANSPARENCY_NOTE,) if scale == 1 else ())


def test_a_picture_in_the_transparency_of_16_bits_is_refused(tmp_path: Path) -> None:
    hidden = np.stack([np.full_like(LOW, 9), LOW], axis=-1)
    with pytest.raises(UnusableImageError, match="has its picture in the transparency"):
        read_image(write(tmp_path / "x.png", hidden, GREY_ALPHA))


def test_deep_pictures_that_end_early_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.png", layers(LOW, COLOUR), COLOUR)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UnusableImageError, match=r"truncated|damaged"):
        read_image(path)


def test_deep_colours_of_pnm_are_refused_and_deep_grey_is_read(tmp_path: Path) -> None:
    colours = np.stack([LOW] * 3, axis=-1)
    binary, text = tmp_path / "x.ppm", tmp_path / "y.ppm"
    binary.write_bytes(b"P6\n48 32\n4095\n" + colours.astype(">u2").tobytes())
    text.write_text("P3\n48 32\n4095\n" + " ".join(str(value) for value in colours.ravel()))
    for path in (binary, text):
        with pytest.raises(UnusableImageError, match="has colours of more than 8 bits, which are not read from PNM"):
            read_image(path)
    (tmp_path / "z.pgm").write_bytes(b"P5\n48 32\n4095\n" + LOW.astype(">u2").tobytes())
    assert np.corrcoef(read_image(tmp_path / "z.pgm").array.ravel(), LOW.ravel())[0, 1] > 0.99999

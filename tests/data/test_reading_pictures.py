# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Pictures come out upright, in the right order of light and dark, and one at a time."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import COLOUR_NOTE, Preprocessing
from monai_memo.data.pictures import TRANSPARENCY_NOTE, TURNED_NOTE
from monai_memo.data.prepared import prepare
from monai_memo.data.reading import read_header, read_image
from monai_memo.errors import UnusableImageError

UNDO = {  # what a viewer does with a picture stored under each EXIF orientation, so that it stands upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: lambda a: np.rot90(a),
}
STORE = {**UNDO, 6: UNDO[8], 8: UNDO[6]}


def grey(rows: int = 32, columns: int = 48) -> NDArray[np.uint8]:
    """Different in every corner."""
    image = np.add.outer(np.linspace(20, 90, rows), np.linspace(0, 60, columns))
    image[:8, :8], image[-8:, :8] = 250, 5
    return image.astype(np.uint8)


def reason_of(path: Path) -> str:
    with pytest.raises(UnusableImageError) as error:
        read_image(path)
    with pytest.raises(UnusableImageError) as earlier:
        read_header(path)
    assert earlier.value.reason == error.value.reason, "the header's check is the reader's check"
    return error.value.reason


@pytest.mark.parametrize("ending", ["jpg", "tif", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_every_picture_that_has_one(
    tmp_path: Path, ending: str, orientation: int
) -> None:
    image = grey()
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"x.{ending}"
    settings: dict[str, Any] = {"jpg": {"quality": 100}, "webp": {"lossless": True}}.get(ending, {})
    stored = np.ascontiguousarray(STORE[orientation](image))
    Image.fromarray(stored).save(path, exif=exif, **settings)
    found = read_image(path)
    np.testing.assert_allclose(found.array[0].astype(float), image, atol=0 if ending != "jpg" else 6)
    assert read_header(path).shape == (32, 48)
    assert found.notes == ((TURNED_NOTE,) if orientation > 1 else ())


def test_exif_behind_the_pixels_of_a_png_is_found(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    image = grey()
    Image.fromarray(np.ascontiguousarray(np.rot90(image))).save(tmp_path / "x.png")
    raw = (tmp_path / "x.png").read_bytes()
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    (tmp_path / "x.png").write_bytes(raw[:-12] + chunk + raw[-12:])
    np.testing.assert_array_equal(read_image(tmp_path / "x.png").array[0], image)
    assert read_header(tmp_path / "x.png").shape == (32, 48)


def test_turned_pictures_are_counted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    turned = np.ascontiguousarray(np.rot90(grey()))
    for number in range(4):
        more: dict[str, Any] = {"exif": exif} if number < 3 else {}
        picture = Image.fromarray(turned if number < 3 else grey())
        (picture.convert("RGB") if number == 0 else picture).save(tmp_path / f"{number}.jpg", **more)
    (tmp_path / "work").mkdir()
    cohort = Cohort.from_source(tmp_path, "training")
    found = prepare(cohort, Preprocessing(2, (32, 48)), tmp_path / "work", progress=False)
    assert found.notes == (f"1 image {COLOUR_NOTE}", f"3 images {TURNED_NOTE}")
    assert np.corrcoef(found.pixels[1].ravel(), found.pixels[3].ravel())[0, 1] > 0.99


def tiff(path: Path, array: NDArray[Any], photometric: int, sample_format: int, order: str = "<") -> Path:
    """A TIFF of one strip, of kinds that Pillow does not write."""
    data = array.astype(array.dtype.newbyteorder(order)).tobytes()
    tags = [
        (256, 4, array.shape[1]), (257, 4, array.shape[0]), (258, 3, array.dtype.itemsize * 8), (259, 3, 1),
        (262, 3, photometric), (273, 4, 8), (277, 3, 1), (278, 4, array.shape[0]), (279, 4, len(data)),
        (339, 3, sample_format),
    ]  # fmt: skip
    raw = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data)) + data
    raw += struct.pack(f"{order}H", len(tags))
    for number, kind, value in tags:
        raw += struct.pack(f"{order}HHI", number, kind, 1)
        raw += struct.pack(f"{order}I", value) if kind == 4 else struct.pack(f"{order}HH", value, 0)
    path.write_bytes(raw + struct.pack(f"{order}I", 0))
    return path


@pytest.mark.parametrize(
    ("dtype", "sample_format", "order"),
    [
        ("uint8", 1, "<"), ("int8", 2, "<"), ("int8", 2, ">"), ("uint16", 1, "<"), ("uint16", 1, ">"),
        ("int16", 2, "<"), ("int16", 2, ">"), ("int32", 2, ">"), ("uint32", 1, "<"), ("float32", 3, ">"),
    ],
)  # fmt: skip
def test_tiff_of_every_number_keeps_its_values(tmp_path: Path, dtype: str, sample_format: int, order: str) -> None:
    values = grey().astype(np.float64) / 2
    values = {"uint32": values + 3_000_000_000, "uint16": values * 300}.get(dtype, values)
    values = (values - 100 * (sample_format == 2)).astype(dtype)
    path = tiff(tmp_path / "x.tif", values, 1, sample_format, order)
    np.testing.assert_array_equal(read_image(path).array[0], values)
    assert read_header(path).dtype == dtype


@pytest.mark.parametrize(("dtype", "sample_format"), [("uint8", 1), ("uint16", 1), ("float32", 3)])
def test_tiff_in_which_white_is_zero_is_no_negative(tmp_path: Path, dtype: str, sample_format: int) -> None:
    image = grey().astype(dtype)
    top = {"uint8": 255, "uint16": 65535}.get(dtype, 0)
    path = tiff(tmp_path / "x.tif", (top - image).astype(dtype), 0, sample_format)
    np.testing.assert_array_equal(read_image(path).array[0], image)


@pytest.mark.parametrize(("dtype", "sample_format"), [("float64", 3), ("float16", 3)])
def test_tiff_of_a_kind_that_is_not_read_says_so(tmp_path: Path, dtype: str, sample_format: int) -> None:
    path = tiff(tmp_path / "x.tif", grey().astype(dtype), 1, sample_format)
    assert "its kind of pixels is not read: save it as PNG" in reason_of(path)


def test_deep_flat_and_big_endian_pictures_keep_their_order_of_light(tmp_path: Path) -> None:
    image = grey()
    Image.fromarray(image.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(image > 100).save(tmp_path / "bits.png")
    (tmp_path / "deep.pgm").write_bytes(b"P5\n48 32\n1000\n" + (image.astype(np.uint16) * 3).astype(">u2").tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png").array[0], image.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png").array[0], image > 100)
    assert np.corrcoef(read_image(tmp_path / "deep.pgm").array.ravel(), image.ravel())[0, 1] > 0.9999


@pytest.mark.parametrize("ending", ["gif", "png", "tif", "webp", "jpg"])
def test_films_and_pages_are_refused_and_previews_are_no_pages(tmp_path: Path, ending: str) -> None:
    pages = [Image.fromarray(np.roll(grey(), 9 * step, axis=1)) for step in range(3)]
    path = tmp_path / f"x.{ending}"
    pages[0].save(path, "MPO" if ending == "jpg" else None, save_all=True, append_images=pages[1:])
    what = "pages" if ending in ("tif", "jpg") else "frames"
    assert reason_of(path) == f"has 3 {what}: save one image a file, or the slices of a volume as NIfTI"
    if ending in ("tif", "jpg"):
        small = pages[0].resize((24, 16))
        pages[0].save(path, "MPO" if ending == "jpg" else None, save_all=True, append_images=[small])
        assert read_image(path).array.shape == (1, 32, 48)


def test_pages_of_other_sizes_are_pages_unless_they_are_marked_as_reduced(tmp_path: Path) -> None:
    image, path = Image.fromarray(grey()), tmp_path / "x.tif"
    for first, second in (
        (image.resize((12, 8)), image),
        (image, image.resize((47, 32))),
        (image, image.resize((48, 20))),
    ):
        first.save(path, save_all=True, append_images=[second])
        assert reason_of(path).startswith("has 2 pages")
    reduced = image.resize((40, 28))
    reduced.encoderinfo = {"tiffinfo": {254: 1}}
    image.save(path, save_all=True, append_images=[reduced])
    assert read_image(path).array.shape == (1, 32, 48)


@pytest.mark.parametrize("spoilt", ["noise", "one pixel"])
def test_a_picture_in_the_transparency_is_found_where_its_colours_are_nearly_constant(
    tmp_path: Path, spoilt: str
) -> None:
    image = grey()
    colours = np.zeros((*image.shape, 3), np.uint8)
    if spoilt == "noise":
        colours[:] = np.random.default_rng(0).integers(0, 4, image.shape)[..., None]
    else:
        colours[3, 3] = 255
    Image.fromarray(np.dstack([colours, image])).save(tmp_path / "hidden.png")
    with pytest.raises(UnusableImageError, match="its colours are nearly constant"):
        read_image(tmp_path / "hidden.png")
    shown = np.dstack([np.stack([image // 8] * 3, axis=-1), np.where(image > 60, 255, 0).astype(np.uint8)])
    Image.fromarray(shown).save(tmp_path / "dark.png")  # a dark picture with a mask
    np.testing.assert_array_equal(read_image(tmp_path / "dark.png").array[0], image // 8)


def test_a_picture_in_the_transparency_is_refused_and_other_transparency_is_counted(tmp_path: Path) -> None:
    image, settings = grey(), Preprocessing(2, (32, 48))
    black = np.zeros((*image.shape, 3), np.uint8)
    Image.fromarray(np.dstack([black, image])).save(tmp_path / "hidden.png")
    Image.fromarray(np.dstack([black[..., 0], image]), mode="LA").save(tmp_path / "hidden_grey.png")
    for name in ("hidden.png", "hidden_grey.png"):
        with pytest.raises(UnusableImageError, match="has its picture in the transparency, its colours are constant"):
            read_image(tmp_path / name)
    colours = np.stack([image] * 3, axis=-1)
    for name, alpha, note in (
        ("opaque", np.full_like(image, 255), COLOUR_NOTE),
        ("half", np.full_like(image, 128), COLOUR_NOTE),
        ("hole", np.where(image > 200, 0, 255).astype(np.uint8), f"{TRANSPARENCY_NOTE}; {COLOUR_NOTE}"),
    ):
        Image.fromarray(np.dstack([colours, alpha])).save(tmp_path / f"{name}.png")
        said = settings.load(tmp_path / f"{name}.png")[1]
        assert said == note and read_header(tmp_path / f"{name}.png").channels == 4
        np.testing.assert_array_equal(read_image(tmp_path / f"{name}.png").array[1], image)
    palette = Image.fromarray(colours).quantize(64)
    palette.save(tmp_path / "palette.png", transparency=3)
    assert read_image(tmp_path / "palette.png").notes == (TRANSPARENCY_NOTE,)
    assert np.corrcoef(read_image(tmp_path / "palette.png").array[0].ravel(), image.ravel())[0, 1] > 0.98


def test_pictures_are_read_by_what_they_hold(tmp_path: Path) -> None:
    image = grey()
    for kind, name in (("PNG", "a.jpg"), ("JPEG", "b.png"), ("TIFF", "c.png"), ("BMP", "d.dcm"), ("GIF", "e.npy")):
        Image.fromarray(image).save(tmp_path / name, kind)
        found = read_image(tmp_path / name).array
        assert read_header(tmp_path / name).format == kind
        assert np.abs(found[0].astype(float) - image).mean() < 3, name
    for name, kind in (("f.jp2", "JPEG 2000"), ("g.webp", "WebP"), ("h.pgm", "PNM")):
        Image.fromarray(image).save(tmp_path / name)
        assert read_header(tmp_path / name).format == kind


def test_headers_of_pictures_are_read_without_their_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(grey()).save(tmp_path / "x.png")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("pixels were read")

    monkeypatch.setattr(Image.Image, "load", never)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    monkeypatch.setattr(ImageOps, "exif_transpose", never)
    assert read_header(tmp_path / "x.png").shape == (32, 48)

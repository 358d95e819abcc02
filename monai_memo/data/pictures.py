# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""PNG, JPEG, TIFF, BMP, WebP, GIF, JPEG 2000 and PNM, with Pillow: upright, one page, colours as light."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from monai_memo.data.stored import Stored
from monai_memo.errors import UnusableImageError

# Warnings about large pictures and odd tags name files on stderr; what matters of them ends in a reason.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

PILLOW = {
    "BMP": ("BMP", "DIB"),
    "JPEG": ("JPEG", "MPO"),
    "JPEG 2000": ("JPEG2000",),
    "PNM": ("PPM",),
    "WebP": ("WEBP",),
}
ORIENTATION, SUBFILE, BITS, PHOTOMETRIC, SAMPLE_FORMAT = 274, 254, 258, 262, 339
WHITE_IS_ZERO = 0
SIGNED, FLOATING = 2, 3
DTYPES = {"1": "bool", "I;16": "uint16", "I;16B": "uint16", "I;16L": "uint16", "I": "int32", "F": "float32"}
CONVERTED = ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV")  # palette numbers and amounts of ink are no intensities
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda array: array[:, ::-1],
    3: lambda array: array[::-1, ::-1],
    4: lambda array: array[::-1],
    5: lambda array: array.swapaxes(0, 1),
    6: lambda array: np.rot90(array, -1),
    7: lambda array: np.rot90(array, 2).swapaxes(0, 1),
    8: lambda array: np.rot90(array),
}  # what EXIF orientations ask for
HALF_SEEN, MUCH = 0.25, 4.0  # share of the picture, and times the contrast, by which a picture lies in the transparency
TURNED_NOTE = "turned by EXIF orientation"
TRANSPARENCY_NOTE = "with transparency, which was left out"


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[Image.Image]:
    try:
        # By name, Pillow maps TIFF into memory with the lengths after turning, which scrambles what has to be turned.
        with open(path, "rb") as stream, Image.open(stream, formats=PILLOW.get(kind, (kind,))) as image:
            yield image
    except Image.DecompressionBombError as error:
        numbers = [int(word.strip("()")) for word in str(error).split() if word.strip("()").isdigit()]
        what = (
            f"has {numbers[0]:,} pixels, more than the {numbers[1]:,}" if len(numbers) > 1 else "has more pixels than"
        )
        raise UnusableImageError(path, f"{what} that Pillow reads: cut it into parts or shrink it") from error
    except UnidentifiedImageError as error:
        kinds = ", or its kind of pixels is not read: save it as PNG" if kind == "TIFF" else ""
        raise UnusableImageError(path, f"damaged: its {kind} header makes no sense{kinds}") from error


def _orientation(path: Path, image: Image.Image) -> int:
    """The EXIF orientation, without reading pixels: in PNG it may stand behind them."""
    if image.format == "PNG" and "exif" not in image.info:
        with open(path, "rb") as stream:
            stream.seek(8)
            while len(chunk := stream.read(8)) == 8:
                length, name = struct.unpack(">I4s", chunk)
                if name == b"eXIf":
                    exif = Image.Exif()
                    exif.load(stream.read(length))
                    return int(exif.get(ORIENTATION, 1))
                stream.seek(length + 4, 1)
        if not any(key in image.info for key in ("Raw profile type exif", "XML:com.adobe.xmp")):
            return 1
    found = image.getexif().get(ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _tag(image: Any, number: int, otherwise: int) -> int:
    """The first value of a TIFF tag; of other formats the default."""
    found = getattr(image, "tag_v2", {}).get(number, otherwise)
    return int(found[0] if isinstance(found, tuple) else found)


def _refuse_pages(path: Path, image: Image.Image) -> None:
    """Previews and reduced copies behind the image are no pages: they are marked as such, or half as long or less."""
    frames = getattr(image, "n_frames", 1)
    if frames < 2:
        return
    length, pages = max(image.size), 1
    moving = image.format in ("GIF", "PNG", "WEBP")
    if moving:
        pages = frames
    else:
        for frame in range(1, min(frames, 1000)):
            image.seek(frame)
            pages += 2 * max(image.size) > length + 2 and not _tag(image, SUBFILE, 0) & 1
        image.seek(0)
    if pages > 1:
        what = "frames" if moving else "pages"
        raise UnusableImageError(path, f"has {pages} {what}: save one image a file, or the slices of a volume as NIfTI")


def _is_deep(path: Path, image: Image.Image) -> bool:
    """Whether this is a PNG with colours or transparency of 16 bits, of which Pillow keeps 8."""
    if image.format != "PNG" or image.mode not in ("RGB", "RGBA", "LA"):
        return False
    with open(path, "rb") as stream:
        head = stream.read(26)
    return head[24] == 16 and head[25] in (2, 4, 6)


def _refuse_deep(path: Path, image: Image.Image) -> None:
    """PNM of deep colours, of which Pillow keeps 8 bits."""
    tiles = getattr(image, "tile", ())
    arguments = tiles[0].args if image.format == "PPM" and tiles else ()
    if image.mode == "RGB" and isinstance(arguments, tuple) and any(isinstance(n, int) and n > 255 for n in arguments):
        raise UnusableImageError(path, "has colours of more than 8 bits, which are not read from PNM: save it as PNG")


def _channels(image: Image.Image) -> int:
    if image.mode in CONVERTED:
        return 4 if image.mode == "PA" or image.has_transparency_data else 3
    return len(image.getbands()) + (image.has_transparency_data and "A" not in image.getbands())


def _dtype(image: Image.Image) -> str:
    form, bits = _tag(image, SAMPLE_FORMAT, 1), _tag(image, BITS, 8)
    if image.format == "TIFF" and len(image.getbands()) == 1 and form in (1, SIGNED) and bits in (8, 16, 32):
        return f"{'u' if form == 1 else ''}int{bits}"
    return DTYPES.get(image.mode, "uint8")


def describe(path: Path, kind: str) -> Stored:
    """What the header of a picture says."""
    with _opened(path, kind) as image:
        _refuse_pages(path, image)
        _refuse_deep(path, image)
        orientation = _orientation(path, image)
        columns, rows = image.size
        if orientation > 4 and kind != "TIFF":  # Pillow gives the size of TIFF after turning
            rows, columns = columns, rows
        channels, deep = _channels(image), _is_deep(path, image)
        return Stored(
            format=kind,
            shape=(rows, columns) if channels == 1 else (rows, columns, channels),
            dtype="uint16" if deep else _dtype(image),
            load=lambda: load(path, kind),
            colour=None if channels == 1 else 2,
            rows_first=True,
            notes=(TURNED_NOTE,) if orientation > 1 else (),
        )


def load(path: Path, kind: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """``(rows, columns)`` or ``(rows, columns, 3)``, and what is worth counting. Transparency is left out."""
    with _opened(path, kind) as image:
        if _is_deep(path, image):
            return _load_deep(path, image)
        dtype, white = _dtype(image), _tag(image, PHOTOMETRIC, 1)
        bits, mode, transparent = _tag(image, BITS, 8), image.mode, image.has_transparency_data
        image.load()
        upright = ImageOps.exif_transpose(image)
        seen = None
        if transparent and mode.startswith(
            "I"
        ):  # one grey value that is not shown; converted, they would be cut at 255
            array = np.asarray(upright)
            seen = array != image.info.get("transparency")
        elif transparent and mode not in ("RGBA", "LA"):
            upright = upright.convert("LA" if mode in ("L", "1") else "RGBA")
        elif mode in CONVERTED:
            upright = upright.convert("RGB")
        array = np.asarray(upright)
    if kind == "TIFF" and array.ndim == 2 and dtype != array.dtype.name and dtype in ("int8", "uint32"):
        array = array.view(dtype)  # Pillow reads these bits without their sign, or with one that they do not have
    if kind == "TIFF" and white == WHITE_IS_ZERO and array.ndim == 2 and mode not in ("1", "L", "P"):
        # Pillow inverts pictures of 8 bits only.
        array = np.array(2**bits - 1, array.dtype) - array if array.dtype.kind == "u" else -array.astype(np.float64)
    if array.dtype.byteorder not in "=|":
        array = array.astype(array.dtype.newbyteorder("="))
    if seen is not None:
        array = np.stack([array, seen.astype(array.dtype)], axis=-1)
    if not transparent or array.ndim == 2:
        return array, ()
    return _opaque(path, array)


def _load_deep(path: Path, image: Image.Image) -> tuple[np.ndarray, tuple[str, ...]]:
    """PNG with colours or transparency of 16 bits, by ITK."""
    import itk

    image.load()  # checks the whole file, which ITK does not
    orientation = _orientation(path, image)
    reader = itk.ImageFileReader[itk.VectorImage[itk.US, 2]].New(FileName=str(path))
    reader.SetImageIO(itk.PNGImageIO.New())  # whatever the file is called
    reader.Update()
    array = np.asarray(itk.array_from_image(reader.GetOutput()))
    array = np.ascontiguousarray(TURNS.get(orientation, np.asarray)(array))
    return _opaque(path, array) if array.shape[-1] in (2, 4) else (array, ())


def _opaque(path: Path, array: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Colours without their transparency, unless the picture lies in it."""
    colours, alpha = array[..., :-1], array[..., -1]
    if colours.shape[-1] == 1:
        colours = colours[..., 0]
    if alpha.min() == alpha.max():
        return colours, ()
    shown = colours[alpha > 0]
    if (shown == shown[:1]).all():
        raise UnusableImageError(
            path, "has its picture in the transparency, its colours are constant: put it on a background and save again"
        )
    half_seen = ((alpha > alpha.min()) & (alpha < alpha.max())).mean()
    if half_seen > HALF_SEEN and alpha.std() > MUCH * shown.std(axis=0).max():
        raise UnusableImageError(
            path, "has its picture in the transparency, its colours are nearly constant: put it on a background and "
            "save again"
        )  # fmt: skip
    return colours, (TRANSPARENCY_NOTE,)

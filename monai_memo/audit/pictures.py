# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Pictures as they stand in a page: few bytes, enlarged where they are shown.

What is seen of a patient is never compressed with loss on the page of a pair; the long list of a report may be.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

SHADES = 64  # of a map of colours
QUALITY = 88
LOSSLESS_UP_TO = 96  # pixels: smaller pictures are enlarged several times, and losses with them
DIFFERENCE, AGREEMENT = "PuOr_r", "cividis"


@dataclass(frozen=True)
class Picture:
    """One picture with what belongs to it.

    Attributes:
        source: data URI.
        width, height: pixels that it has.
        what: what is written above it.
        alt: for who cannot see it; names the pair.
        ends: letters of its top, bottom, left and right; empty where nobody knows.
        outline: ``x,y`` of the corners of a region, as SVG has it, in pixels; empty for none.
    """

    source: str
    width: int
    height: int
    what: str
    alt: str
    ends: tuple[str, ...] = ()
    outline: str = ""

    @property
    def coarse(self) -> bool:
        """Whether it has so few pixels that each is to be seen when it is enlarged."""
        return max(self.width, self.height) <= LOSSLESS_UP_TO


def png_uri(content: bytes) -> str:
    """A PNG as it stands in a page."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def picture_of(image: NDArray[np.floating], lossless: bool = False) -> str:
    """``(rows, columns)``, or in colour ``(rows, columns, 3)``, in [0, 1] as a data URI."""
    picture = Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8))
    if lossless or max(picture.size) <= LOSSLESS_UP_TO:
        return png_uri(_bytes(picture, "PNG"))
    content = _bytes(picture, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")


def coloured(values: NDArray[np.floating], colours: str, low: float, most: int | None = None) -> str:
    """A map ``(rows, columns)`` as a data URI, ``low`` to 1 in the colours of a map of Matplotlib.

    Args:
        most: pixels along an edge; larger maps are averaged.
    """
    shades = ((np.clip(values, low, 1) - low) / (1 - low) * (SHADES - 1)).round().astype(np.uint8)
    picture = Image.fromarray(shades)
    if most is not None and max(picture.size) > most:
        factor = most / max(picture.size)
        size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
        picture = picture.resize(size, Image.Resampling.BOX)
    picture.putpalette(_palette(colours))
    return png_uri(_bytes(picture, "PNG"))


@lru_cache
def _palette(colours: str) -> bytes:
    return bytes((colormaps[colours](np.linspace(0, 1, SHADES))[:, :3] * 255).round().astype(np.uint8).tobytes())


def _bytes(picture: Image.Image, kind: str, **options: int) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format=kind, **options)
    return stream.getvalue()

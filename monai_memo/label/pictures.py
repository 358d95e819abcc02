# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""From the stored picture of a pair to what is shown on a screen: slices, and where the two images differ."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from monai_memo.data.reading import read_image
from monai_memo.data.writing import save_image
from monai_memo.label.pairs import PLANES, AlignedPair, slice_picture


def stored_pair(path: str | Path, shape: tuple[int, ...]) -> AlignedPair:
    """The two images of a stored picture, ``(*shape)`` each, in [0, 1]; of one in colour the grey values.

    Raises:
        ValueError: the picture is not that of a pair of this shape.
    """
    array = _stored(str(path), Path(path).stat().st_mtime_ns)
    width = shape[1] if len(shape) == 2 else shape[0]
    if array.ndim != len(shape) or array.shape[1 if len(shape) == 2 else 0] < 2 * width:
        raise ValueError("not the picture of a pair")
    if len(shape) == 2:
        return AlignedPair(array[:, :width], array[:, -width:])
    return AlignedPair(array[-width:], array[:width])


@lru_cache(maxsize=4)
def _stored(path: str, changed: int) -> NDArray[np.float32]:
    """Scrolling through slices asks for the same volume again and again."""
    array = read_image(path).array
    values = (array[0] if len(array) == 1 else array.mean(axis=0)).astype(np.float32)
    return values / np.float32(255) if path.endswith(".png") else values


def evidence_map(pair: AlignedPair) -> NDArray[np.float32]:
    """What speaks for and against a copy at each place: synthetic minus training, -1 to 1."""
    return pair.difference


def png(picture: NDArray[np.floating]) -> bytes:
    """``(rows, columns)`` grey or ``(rows, columns, 3)`` colour in [0, 1] as PNG."""
    stream = io.BytesIO()
    Image.fromarray(np.round(picture.clip(0, 1) * 255).astype(np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


def colours(difference: NDArray[np.float32]) -> NDArray[np.float64]:
    """Purple where the synthetic image is darker, orange where it is brighter; as in the report."""
    from matplotlib import colormaps

    return np.asarray(colormaps["PuOr_r"]((difference + 1) / 2))[..., :3]


def checked_slice(shape: tuple[int, ...], plane: Any, index: Any) -> tuple[str, int]:
    """A plane and a slice that a client asked for.

    Raises:
        ValueError: unknown plane, or a slice outside the volume.
    """
    if plane not in PLANES:
        raise ValueError(f"plane must be one of {', '.join(PLANES)}")
    last = shape[PLANES.index(plane)] - 1
    try:
        number = int(index)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number <= last:
        raise ValueError(f"slice must be a whole number from 0 to {last}")
    return str(plane), number


def pair_slice(path: str | Path, shape: tuple[int, ...], plane: Any, index: Any) -> bytes:
    """PNG of one slice through both volumes, the synthetic one on the left."""
    plane, number = checked_slice(shape, plane, index)
    pair = stored_pair(path, shape)
    return png(slice_picture(np.concatenate([pair.training, pair.synthetic]), shape[0], plane, number))


def evidence_picture(path: str | Path, shape: tuple[int, ...], plane: Any = None, index: Any = None) -> bytes:
    """PNG of the evidence map; of one slice of it in 3D."""
    evidence = evidence_map(stored_pair(path, shape))
    if len(shape) == 3:
        plane, number = checked_slice(shape, plane, index)
        both = slice_picture(np.concatenate([evidence, evidence]), shape[0], plane, number)
        evidence = both[:, : (shape[1] if plane == PLANES[0] else shape[0])]
    return png(colours(evidence))


def evidence_volume(path: str | Path, shape: tuple[int, ...], out: Path) -> Path:
    """Write the evidence map of a 3D pair as NIfTI."""
    return save_image(out, evidence_map(stored_pair(path, shape))[None])

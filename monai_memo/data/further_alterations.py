# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Further things that happen to copied images: framed, cropped, turned over, bent, joined, written on.

Functions of the kind of ``alterations``: images, generator and strengths in, altered images of the same shape out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial.transform import Rotation

from monai_memo.data.alterations import ALTERATIONS, Alteration, Images, Strengths, each, require_volumes, signs
from monai_memo.errors import ConfigurationError

Values = NDArray[np.float32]
Place = tuple[slice, ...]
BLACK, WHITE = 0.0, 1.0
GRID_LINES = {2: 8, 3: 4}  # along each axis
CANVAS = 128  # pixels of the longer side that text is written on; a letter is 6 of them wide and 11 high


def _linear(values: Values, matrix: NDArray[np.float64], fill: float = BLACK) -> NDArray[np.floating]:
    """Each point shows what lies at ``matrix`` times its place, both counted from the centre in half lengths."""
    half = np.array(values.shape) / 2
    pixels = matrix * half[:, None] / half[None, :]
    centre = half - 0.5
    moved: NDArray[np.floating] = ndimage.affine_transform(
        values, pixels, offset=centre - pixels @ centre, order=1, cval=fill
    )
    return moved


def _framed(values: Values, shares: NDArray[np.float64], fill: float) -> NDArray[np.floating]:
    """The image made smaller, between margins that take these shares of each axis on either side."""
    inner = np.maximum(2, np.round((1 - 2 * shares) * values.shape)).astype(int)
    shrunk = [0.35 * (length / small - 1) for length, small in zip(values.shape, inner, strict=True)]
    small = ndimage.zoom(
        ndimage.gaussian_filter(values, shrunk), inner / values.shape, order=1, grid_mode=True, mode="nearest"
    )
    result = np.full_like(values, fill)
    starts = [(length - size) // 2 for length, size in zip(values.shape, small.shape, strict=True)]
    result[tuple(slice(start, start + size) for start, size in zip(starts, small.shape, strict=True))] = small
    return result


def margins(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Made smaller, with black margins of the share ``strength`` of the length on each side."""
    return each(images, lambda i, v: _framed(v, np.full(v.ndim, strength[i]), BLACK))


def white_margins(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """As ``margins``, in white."""
    return each(images, lambda i, v: _framed(v, np.full(v.ndim, strength[i]), WHITE))


def letterbox(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Squeezed along the first axis between two black bars, each the share ``strength`` of its length."""
    return each(images, lambda i, v: _framed(v, strength[i] * (np.arange(v.ndim) == 0), BLACK))


def bars(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Both ends of the first axis covered by black bars, each the share ``strength`` of its length."""
    result = images.copy()
    for position, image in enumerate(result):
        wide = round(strength[position] * image.shape[1])
        image[:, :wide], image[:, image.shape[1] - wide :] = BLACK, BLACK
    return result


def _cropped(values: Values, kept: float, corner: NDArray[np.float64]) -> NDArray[np.floating]:
    """The share ``kept`` of each axis enlarged to the whole; ``corner`` from -1 to 1 says from where."""
    half = np.array(values.shape) / 2
    offset = half - 0.5 + corner * (1 - kept) * half - kept * (half - 0.5)
    enlarged: NDArray[np.floating] = ndimage.affine_transform(
        values, np.full(values.ndim, kept), offset=offset, order=1, mode="nearest"
    )
    return enlarged


def crop(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """The share ``strength`` of each axis cut off, half on either side; what is left is enlarged."""
    return each(images, lambda i, v: _cropped(v, 1 - strength[i], np.zeros(v.ndim)))


def crop_corner(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """As ``crop``, all of it cut off at one end of each axis."""
    corners = signs(rng, len(images) * (images.ndim - 2)).reshape(len(images), -1)
    return each(images, lambda i, v: _cropped(v, 1 - strength[i], corners[i]))


def turn(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Turned by ``strength`` degrees, a multiple of 90, either way; volumes in a random plane of the axes."""
    dims = images.ndim - 2
    result = images.copy()
    for position, image in enumerate(result):
        first, second = 1 + rng.permutation(dims)[:2]
        times = round(float(strength[position] * signs(rng, 1)[0]) / 90)
        result[position] = _fitted(np.rot90(image, times, (int(first), int(second))), image.shape)
    return result


def _fitted(image: Values, shape: Sequence[int]) -> NDArray[np.floating]:
    """Oblong images whose axes were exchanged, at the shape they had."""
    if image.shape == tuple(shape):
        return image
    factors = np.array(shape) / image.shape
    fitted: NDArray[np.floating] = ndimage.zoom(image, factors, order=1, grid_mode=True, mode="nearest")
    return fitted


def upside_down(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Mirrored along the first axis of pictures, the last one of volumes (no strength)."""
    return np.ascontiguousarray(np.flip(images, axis=2 if images.ndim == 4 else -1))


def transposed(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Two axes exchanged (no strength): the only ones of pictures, random ones of volumes."""
    result = images.copy()
    for position, image in enumerate(result):
        first, second = 1 + rng.permutation(images.ndim - 2)[:2]
        result[position] = _fitted(np.swapaxes(image, int(first), int(second)), image.shape)
    return result


def tilted(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Turned by ``strength`` degrees about a random axis that need not be one of the volume's."""
    require_volumes(images, "tilted")
    axes = rng.standard_normal((len(images), 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)

    def turned(position: int, values: Values) -> NDArray[np.floating]:
        half = np.array(values.shape) / 2
        matrix = Rotation.from_rotvec(np.radians(strength[position]) * axes[position]).as_matrix()
        return _linear(values, matrix * half[None, :] / half[:, None])  # turned as it is, not as a box

    return each(images, turned)


def front_to_back(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Mirrored along the second axis of volumes (no strength)."""
    require_volumes(images, "front_to_back")
    return np.ascontiguousarray(np.flip(images, axis=3))


def reoriented(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Stored along other axes, in any order and direction (no strength); not as it lay, nor as its mirror image."""
    require_volumes(images, "reoriented")
    ways = [
        (order, steps)
        for order in permutations((1, 2, 3))
        for steps in product((1, -1), repeat=3)
        if order != (1, 2, 3) or steps[1:] != (1, 1)
    ]
    result = images.copy()
    for position, image in enumerate(result):
        order, steps = ways[int(rng.integers(len(ways)))]
        turned = np.transpose(image, (0, *order))[(slice(None), *(slice(None, None, step) for step in steps))]
        result[position] = _fitted(turned, image.shape)
    return result


def anisotropic(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """One random axis stretched or squeezed by the share ``strength``, about the centre."""
    ways = signs(rng, len(images))

    def stretched(position: int, values: Values) -> NDArray[np.floating]:
        factors = np.ones(values.ndim)
        factors[axes[position]] = 1 + ways[position] * strength[position]
        return _linear(values, np.diag(1 / factors))

    axes = rng.integers(0, images.ndim - 2, len(images))
    return each(images, stretched)


def shear(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Slanted: one axis moves along another one by the share ``strength`` of the way, either way."""
    slants = strength * signs(rng, len(images))
    axes = [rng.permutation(images.ndim - 2)[:2] for _ in images]

    def slanted(position: int, values: Values) -> NDArray[np.floating]:
        matrix = np.eye(values.ndim)
        first, second = axes[position]
        matrix[first, second] = slants[position]
        return _linear(values, matrix)

    return each(images, slanted)


def _warped(values: Values, places: NDArray[np.float64]) -> NDArray[np.floating]:
    warped: NDArray[np.floating] = ndimage.map_coordinates(values, places, order=1, mode="grid-constant")
    return warped


def perspective(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """As if looked at from a side: one end of an axis is narrower by the share ``strength`` on each of its sides."""
    ways, axes = signs(rng, len(images)), rng.integers(0, images.ndim - 2, len(images))

    def seen(position: int, values: Values) -> NDArray[np.floating]:
        half = (np.array(values.shape) / 2).reshape(-1, *(1,) * values.ndim)
        places = (np.indices(values.shape) + 0.5) / half - 1
        far, axis, way = strength[position], axes[position], ways[position]
        along = way * places[axis]
        width = 1 - far * (1 + along)  # 1 at the near end, 1 - 2 far at the other one
        source = places / width
        source[axis] = way * ((1 - far) * along - far) / width  # both ends of this axis stay where they are
        return _warped(values, (source + 1) * half - 0.5)

    return each(images, seen)


def _bent(values: Values, share: float, rng: np.random.Generator) -> NDArray[np.floating]:
    """Moved by a smooth random field of at most ``share`` of the length."""
    fields = []
    for length in values.shape:
        field = ndimage.gaussian_filter(rng.standard_normal(values.shape), [0.12 * n for n in values.shape])
        fields.append(share * length * field / np.abs(field).max())
    return _warped(values, np.indices(values.shape) + np.stack(fields))


def elastic(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Bent smoothly: places move by up to the share ``strength`` of the length."""
    seeds = rng.integers(0, 2**32, len(images))
    return each(images, lambda i, v: _bent(v, strength[i], np.random.default_rng(seeds[i])))


def rescanned(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Bent as in ``elastic``, lit unevenly (by up to 30 %) and with noise of 0.05."""
    bent = elastic(images, rng, strength)

    def lit(position: int, values: Values) -> NDArray[np.floating]:
        light = ndimage.gaussian_filter(rng.standard_normal(values.shape), [0.25 * n for n in values.shape])
        return values * (1 + 0.3 * light / np.abs(light).max()) + 0.05 * rng.standard_normal(values.shape)

    return each(bent, lit)


def speckle(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Noise in proportion to the intensity, with this standard deviation."""
    return each(images, lambda i, v: v * (1 + strength[i] * rng.standard_normal(v.shape)))


def inverted(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Black and white exchanged (no strength)."""
    return each(images, lambda i, v: 1 - v)


def grid(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """White lines across the image, each the share ``strength`` of the length wide."""
    result, lines = images.copy(), GRID_LINES[images.ndim - 2]
    for position, image in enumerate(result):
        for axis, length in enumerate(image.shape[1:]):
            wide = max(1, round(strength[position] * length))
            for number in range(lines):
                start = round((number + 0.5) * length / lines) - wide // 2
                image[(slice(None), *(slice(None),) * axis, slice(start, start + wide))] = WHITE
    return result


def text(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """``strength`` lines of white text from side to side; the same in every plane along the last axis of volumes."""
    result = images.copy()
    for position, image in enumerate(result):
        shape = image.shape[1:3]
        canvas = tuple(max(1, round(CANVAS * length / max(shape))) for length in shape)
        page = Image.new("L", canvas[::-1])
        pen, lines = ImageDraw.Draw(page), round(float(strength[position]))
        for line in range(lines):
            letters = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUVWXYZ0123456789 "), canvas[1] // 6 + 1))
            pen.text((1, (line + 0.5) * canvas[0] / lines - 6), letters, fill=255)
        ink = np.asarray(page.resize(shape[::-1], Image.Resampling.BILINEAR), dtype=np.float32) / 255
        ink = ink[..., None] if image.ndim == 4 else ink
        result[position] = image * (1 - ink) + ink * WHITE
    return result


def _others(images: Images, rng: np.random.Generator, name: str) -> Images:
    if len(images) < 2:
        raise ConfigurationError(f"{name} needs at least two images, one to be joined with the other")
    return np.roll(images, int(rng.integers(1, len(images))), axis=0)


def blend(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Mixed with another of the images, whose share is ``strength``."""
    share = strength.astype(np.float32).reshape(-1, *(1,) * (images.ndim - 1))
    mixed: Images = (1 - share) * images + share * _others(images, rng, "blend")
    return mixed


def half_replaced(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """One half, along a random axis, is another of the images (no strength)."""
    others, result = _others(images, rng, "half_replaced"), images.copy()
    for position, image in enumerate(result):
        axis = int(rng.integers(1, image.ndim))
        middle = image.shape[axis] // 2
        half = (*(slice(None),) * axis, slice(0, middle) if rng.random() < 0.5 else slice(middle, None))
        image[half] = others[position][half]
    return result


def _parts(shape: Sequence[int]) -> list[Place]:
    """Quarters of a picture, eighths of a volume, of equal size."""
    halves = [(slice(0, length // 2), slice(length - length // 2, length)) for length in shape]
    return [(slice(None), *part) for part in product(*halves)]


def part_kept(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Another of the images, but for a quarter (of a volume: an eighth) in a corner (no strength)."""
    result = _others(images, rng, "part_kept").copy()
    for position, image in enumerate(result):
        parts = _parts(image.shape[1:])
        part = parts[int(rng.integers(len(parts)))]
        image[part] = images[position][part]
    return result


def parts_exchanged(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Quarters (of a volume: eighths) change places at random (no strength)."""
    result = images.copy()
    for position, image in enumerate(result):
        parts = _parts(image.shape[1:])
        order = np.roll(rng.permutation(len(parts)), 1)
        while (order == np.arange(len(parts))).any():  # none stays
            order = rng.permutation(len(parts))
        for place, source in zip(parts, order, strict=True):
            image[place] = images[position][parts[source]]
    return result


def boxes(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Boxes that are replaced as in ``replacement``, one after the other, over the share ``strength`` of the image."""
    others, result = _others(images, rng, "boxes"), images.copy()
    for position, image in enumerate(result):
        shape = np.array(image.shape[1:])
        replaced = np.zeros(shape, dtype=bool)
        while replaced.mean() < strength[position]:
            lengths = np.maximum(1, np.round(rng.uniform(0.15, 0.3, len(shape)) * shape)).astype(int)
            starts = [int(rng.integers(0, n - m + 1)) for n, m in zip(shape, lengths, strict=True)]
            replaced[tuple(slice(s, s + m) for s, m in zip(starts, lengths, strict=True))] = True
        image[:, replaced] = others[position][:, replaced]
    return result


FURTHER: Mapping[str, Alteration] = {
    alteration.__name__: alteration
    for alteration in (
        margins, white_margins, letterbox, bars, crop, crop_corner, turn, upside_down, transposed, tilted,
        front_to_back, reoriented, anisotropic, shear, perspective, elastic, rescanned, speckle, inverted, grid, text,
        blend, half_replaced, part_kept, parts_exchanged, boxes,
    )
}  # fmt: skip
EVERY: Mapping[str, Alteration] = {**ALTERATIONS, **FURTHER}

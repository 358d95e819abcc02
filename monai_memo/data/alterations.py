# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What can happen to a copied image: each alteration at a given strength, in 2D and 3D.

Written with SciPy and Pillow and not with the views that detectors are trained on: other interpolation, other draws. A
detector that only recognises its own views would be found out here.

Every function takes images ``(n, channels, *spatial)`` in [0, 1], a generator, and the strength of each image ``(n,)``
in the unit that its docstring names, and returns altered images of the same shape in [0, 1].
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from monai_memo.errors import ConfigurationError

Images = NDArray[np.float32]
Strengths = NDArray[np.float64]
Alteration = Callable[[Images, np.random.Generator, Strengths], Images]


def each(images: Images, change: Callable[[int, NDArray[np.float32]], NDArray[np.floating]]) -> Images:
    """Apply ``change(position, channel)`` to each channel of each image."""
    result = np.empty_like(images)
    for position, image in enumerate(images):
        for channel, values in enumerate(image):
            result[position, channel] = change(position, values)
    return result.clip(0, 1)


def signs(rng: np.random.Generator, n: int) -> Strengths:
    """``(n,)`` of -1 and 1."""
    return rng.choice([-1.0, 1.0], n)


def flip(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Left-right mirror image (no strength): last axis in 2D, first axis in 3D (RAS)."""
    return np.ascontiguousarray(np.flip(images, axis=-1 if images.ndim == 4 else 2))


def rotation(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Rotation by ``strength`` degrees, either way; in 3D in a random plane of the axes."""
    angles = strength * signs(rng, len(images))
    dims = images.ndim - 2
    planes = [tuple(rng.permutation(dims)[:2]) for _ in images]
    return each(
        images, lambda i, v: ndimage.rotate(v, angles[i], axes=planes[i], reshape=False, order=1, mode="constant")
    )


def _zoomed(values: NDArray[np.float32], factor: float) -> NDArray[np.floating]:
    centre = (np.array(values.shape) - 1) / 2
    matrix = np.eye(values.ndim) / factor
    zoomed: NDArray[np.floating] = ndimage.affine_transform(values, matrix, offset=centre - matrix @ centre, order=1)
    return zoomed


def zoom(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Zoom in or out by the share ``strength``, about the centre; what leaves the image is cropped."""
    factors = 1 + strength * signs(rng, len(images))
    return each(images, lambda i, v: _zoomed(v, factors[i]))


def shift(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Shift by the share ``strength`` of the length along each axis, either way."""
    dims = images.ndim - 2
    shares = strength[:, None] * signs(rng, len(images) * dims).reshape(-1, dims)
    return each(images, lambda i, v: ndimage.shift(v, shares[i] * v.shape, order=1))


def gamma(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Brightness curve: natural logarithm of the exponent, either way."""
    exponents = np.exp(strength * signs(rng, len(images)))
    return each(images, lambda i, v: v.clip(0, 1) ** exponents[i])


def contrast(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Contrast about mid-grey, by the share ``strength`` more or less."""
    factors = 1 + strength * signs(rng, len(images))
    return each(images, lambda i, v: (v - 0.5) * factors[i] + 0.5)


def window(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Intensity window: the share ``strength`` of the range is cut off, in random parts from below and above."""
    below = strength * rng.uniform(0.2, 0.8, len(images))
    return each(images, lambda i, v: ((v - below[i]) / (1 - strength[i])).clip(0, 1))


def blur(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Gaussian blur: standard deviation as a share of the shortest axis, 0.4 pixels or more."""
    return each(images, lambda i, v: ndimage.gaussian_filter(v, np.hypot(0.4, strength[i] * min(v.shape))))


def noise(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Gaussian noise with this standard deviation, as a share of the intensity range."""
    return each(images, lambda i, v: v + strength[i] * rng.standard_normal(v.shape))


def _jpeg(plane: NDArray[np.float32], quality: int) -> NDArray[np.floating]:
    stream = io.BytesIO()
    Image.fromarray(np.round(255 * plane.clip(0, 1)).astype(np.uint8)).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream), dtype=np.float32) / 255


def jpeg(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """JPEG compression; ``strength`` is 100 minus the quality. Volumes plane by plane along the last axis."""

    def compress(position: int, values: NDArray[np.float32]) -> NDArray[np.floating]:
        quality = int(100 - strength[position])
        if values.ndim == 2:
            return _jpeg(values, quality)
        planes = [_jpeg(np.ascontiguousarray(values[..., k]), quality) for k in range(values.shape[-1])]
        return np.stack(planes, axis=-1)

    return each(images, compress)


def resolution(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Shrunk by the factor ``strength`` and enlarged again."""

    def resample(position: int, values: NDArray[np.float32]) -> NDArray[np.floating]:
        small = np.maximum(2, np.round(np.array(values.shape) / strength[position]))
        averaged = ndimage.gaussian_filter(values, 0.35 * strength[position])
        shrunk = ndimage.zoom(averaged, small / values.shape, order=1, grid_mode=True, mode="nearest")
        enlarged: NDArray[np.floating] = ndimage.zoom(
            shrunk, np.array(values.shape) / shrunk.shape, order=1, grid_mode=True, mode="nearest"
        )
        return enlarged

    return each(images, resample)


def _box(shape: Sequence[int], share: float, rng: np.random.Generator) -> tuple[slice, ...]:
    """A box with this share of the image, in a random place and of random proportions."""
    proportions = np.exp(rng.uniform(-0.3, 0.3, len(shape)))
    proportions /= proportions.prod() ** (1 / len(shape))
    lengths = np.minimum(np.round(share ** (1 / len(shape)) * proportions * shape), shape).astype(int)
    starts = [int(rng.integers(0, length - extent + 1)) for length, extent in zip(shape, lengths, strict=True)]
    return tuple(slice(start, start + extent) for start, extent in zip(starts, lengths, strict=True))


def erasing(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """A box with the share ``strength`` of the image set to black."""
    result = images.copy()
    for position, image in enumerate(result):
        image[(slice(None), *_box(image.shape[1:], strength[position], rng))] = 0.0
    return result


def replacement(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """A box with the share ``strength`` of the image replaced by the same box of another of the images."""
    if len(images) < 2:
        raise ConfigurationError("replacement needs at least two images, one to take the other's region")
    result = images.copy()
    step = int(rng.integers(1, len(images)))
    for position, image in enumerate(result):
        box = (slice(None), *_box(image.shape[1:], strength[position], rng))
        image[box] = images[(position + step) % len(images)][box]
    return result


def require_volumes(images: Images, name: str) -> None:
    """Refuse pictures.

    Raises:
        ConfigurationError: they have no third axis.
    """
    if images.ndim != 5:
        raise ConfigurationError(f"{name} is an alteration of volumes, got images of shape {images.shape}")


def slice_offset(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Another stack of slices: moved through the last axis by ``strength`` slices (a fraction interpolates)."""
    require_volumes(images, "slice_offset")
    offsets = strength * signs(rng, len(images))
    return each(images, lambda i, v: ndimage.shift(v, (0, 0, offsets[i]), order=1, mode="nearest"))


def slice_thickness(images: Images, rng: np.random.Generator, strength: Strengths) -> Images:
    """Slices thicker by the factor ``strength`` along the last axis, resampled to the old number."""
    require_volumes(images, "slice_thickness")

    def thicken(position: int, values: NDArray[np.float32]) -> NDArray[np.floating]:
        averaged = ndimage.gaussian_filter1d(values, 0.35 * strength[position], axis=2, mode="nearest")
        factor = max(2, round(values.shape[2] / strength[position])) / values.shape[2]
        thick = ndimage.zoom(averaged, (1, 1, factor), order=1, grid_mode=True, mode="nearest")
        back: NDArray[np.floating] = ndimage.zoom(
            thick, (1, 1, values.shape[2] / thick.shape[2]), order=1, grid_mode=True, mode="nearest"
        )
        return back

    return each(images, thicken)


ALTERATIONS: Mapping[str, Alteration] = {
    alteration.__name__: alteration
    for alteration in (
        flip, rotation, zoom, shift, gamma, contrast, window, blur, noise, jpeg, resolution, erasing, replacement,
        slice_offset, slice_thickness,
    )
}  # fmt: skip
VOLUMES_ONLY = ("slice_offset", "slice_thickness", "tilted", "front_to_back", "reoriented")

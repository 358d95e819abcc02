# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Copies made on purpose, to see whether an audit finds them.

Written with SciPy and not with the views that detectors are trained on: other interpolation, other draws. A detector
that only recognises its own views would be found out here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_memo.errors import ConfigurationError

Images = NDArray[np.float32]
Planter = Callable[[Images, np.random.Generator], Images]


def _each(images: Images, change: Callable[[int, NDArray[np.float32]], NDArray[np.floating]]) -> Images:
    """Apply ``change(position, channel)`` to each channel of each image."""
    result = np.empty_like(images)
    for position, image in enumerate(images):
        for channel, values in enumerate(image):
            result[position, channel] = change(position, values)
    return result.clip(0, 1)


def _sign(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return rng.choice([-1.0, 1.0], n)


def flip(images: Images, rng: np.random.Generator) -> Images:
    """Left-right mirror image: last axis in 2D, first axis in 3D (RAS)."""
    return np.ascontiguousarray(np.flip(images, axis=-1 if images.ndim == 4 else 2))


def rotation(images: Images, rng: np.random.Generator) -> Images:
    """Rotation by 4 to 12 degrees, either way; in 3D in a random plane."""
    angles = rng.uniform(4, 12, len(images)) * _sign(rng, len(images))
    dims = images.ndim - 2
    planes = [tuple(rng.permutation(dims)[:2]) for _ in images]
    return _each(
        images, lambda i, v: ndimage.rotate(v, angles[i], axes=planes[i], reshape=False, order=1, mode="constant")
    )


def _zoomed(values: NDArray[np.float32], factor: float) -> NDArray[np.floating]:
    centre = (np.array(values.shape) - 1) / 2
    matrix = np.eye(values.ndim) / factor
    zoomed: NDArray[np.floating] = ndimage.affine_transform(values, matrix, offset=centre - matrix @ centre, order=1)
    return zoomed


def zoom(images: Images, rng: np.random.Generator) -> Images:
    """Zoom in or out by 8 to 15 %, about the centre; what leaves the image is cropped."""
    factors = 1 + rng.uniform(0.08, 0.15, len(images)) * _sign(rng, len(images))
    return _each(images, lambda i, v: _zoomed(v, factors[i]))


def shift(images: Images, rng: np.random.Generator) -> Images:
    """Shift by 3 to 8 % of the length along each axis."""
    dims = images.ndim - 2
    shares = rng.uniform(0.03, 0.08, (len(images), dims)) * _sign(rng, len(images) * dims).reshape(-1, dims)
    return _each(images, lambda i, v: ndimage.shift(v, shares[i] * v.shape, order=1))


def gamma(images: Images, rng: np.random.Generator) -> Images:
    """Brightness curve: exponent between 0.6 and 1 / 0.6."""
    exponents = np.exp(rng.uniform(0.2, -np.log(0.6), len(images)) * _sign(rng, len(images)))
    return _each(images, lambda i, v: v.clip(0, 1) ** exponents[i])


def contrast(images: Images, rng: np.random.Generator) -> Images:
    """Contrast about mid-grey, 10 to 30 % more or less."""
    factors = 1 + rng.uniform(0.1, 0.3, len(images)) * _sign(rng, len(images))
    return _each(images, lambda i, v: (v - 0.5) * factors[i] + 0.5)


def blur(images: Images, rng: np.random.Generator) -> Images:
    """Gaussian blur: standard deviation 0.8 to 2.3 % of the length (0.6 to 1.5 pixels at 64), 0.4 pixels or more."""
    shares = rng.uniform(0.008, 0.023, len(images))
    return _each(images, lambda i, v: ndimage.gaussian_filter(v, np.hypot(0.4, shares[i] * min(v.shape))))


def noise(images: Images, rng: np.random.Generator) -> Images:
    """Gaussian noise with a standard deviation of 2 to 8 % of the intensity range."""
    deviations = rng.uniform(0.02, 0.08, len(images))
    return _each(images, lambda i, v: v + deviations[i] * rng.standard_normal(v.shape))


def _box(shape: Sequence[int], share: float, rng: np.random.Generator) -> tuple[slice, ...]:
    """A box with this share of the image, in a random place and of random proportions."""
    proportions = np.exp(rng.uniform(-0.3, 0.3, len(shape)))
    proportions /= proportions.prod() ** (1 / len(shape))
    lengths = np.minimum(np.round(share ** (1 / len(shape)) * proportions * shape), shape).astype(int)
    starts = [int(rng.integers(0, length - extent + 1)) for length, extent in zip(shape, lengths, strict=True)]
    return tuple(slice(start, start + extent) for start, extent in zip(starts, lengths, strict=True))


def erasing(images: Images, rng: np.random.Generator) -> Images:
    """A box with 10 to 25 % of the image set to black."""
    result = images.copy()
    for image in result:
        image[(slice(None), *_box(image.shape[1:], rng.uniform(0.1, 0.25), rng))] = 0.0
    return result


def replacement(images: Images, rng: np.random.Generator) -> Images:
    """A box with 10 to 25 % of the image replaced by the same box of another image."""
    if len(images) < 2:
        raise ConfigurationError("replacement needs at least two images, one to take the other's region")
    result = images.copy()
    step = int(rng.integers(1, len(images)))
    for position, image in enumerate(result):
        box = (slice(None), *_box(image.shape[1:], rng.uniform(0.1, 0.25), rng))
        image[box] = images[(position + step) % len(images)][box]
    return result


def combination(images: Images, rng: np.random.Generator) -> Images:
    """Three kinds at once: one of place, one of intensity, one of sharpness."""
    for group in ((rotation, zoom, shift, flip), (gamma, contrast), (blur, noise)):
        images = group[int(rng.integers(len(group)))](images, rng)
    return images


KINDS: Mapping[str, Planter] = {
    planter.__name__: planter
    for planter in (flip, rotation, zoom, shift, gamma, contrast, blur, noise, erasing, replacement, combination)
}
MIXTURE = tuple(kind for kind in KINDS if kind != "combination")


def plant(images: NDArray[np.floating], kind: str, seed: int) -> Images:
    """One copy of each image.

    Args:
        images: ``(n, channels, *spatial)`` in [0, 1], 2D or 3D.
        kind: a name in ``KINDS``.
        seed: of all draws.

    Raises:
        ConfigurationError: unknown kind or images of another shape.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if images.ndim not in (4, 5):
        raise ConfigurationError(f"images must have shape (n, channels, *spatial) in 2D or 3D, got {images.shape}")
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    return KINDS[kind](np.asarray(images, dtype=np.float32), rng).astype(np.float32)


def plant_mixture(
    images: NDArray[np.floating], seed: int, kinds: Sequence[str] | None = None
) -> tuple[Images, list[str]]:
    """One copy of each image, the kinds taking turns in a random order.

    Args:
        kinds: names in ``KINDS``; all but ``combination`` by default.

    Returns:
        The copies, and the kind of each.
    """
    chosen = list(kinds or MIXTURE)
    turns = np.random.default_rng([seed, 101]).permutation(np.resize(np.arange(len(chosen)), len(images)))
    result = np.empty(images.shape, dtype=np.float32)
    for number, kind in enumerate(chosen):
        rows = np.flatnonzero(turns == number)
        if kind == "replacement" and len(rows) == 1:
            # The other image is borrowed from the rest.
            other = (rows[0] + 1) % len(images)
            result[rows] = plant(images[[rows[0], other]], kind, seed)[:1] if len(images) > 1 else images[rows]
        elif len(rows):
            result[rows] = plant(images[rows], kind, seed)
    return result, [chosen[turn] for turn in turns]

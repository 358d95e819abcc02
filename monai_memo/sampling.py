# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What this library asks of a generator: images for seeds, and near copies of given images.

Any object with these methods will do; nothing has to be inherited. A plain function becomes a ``Generator`` by
``as_generator``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from monai_memo.errors import ConfigurationError
from monai_memo.image_arrays import BEYOND, shape_of, take_images

Draw = Callable[[Sequence[int]], NDArray[np.floating]]
Conditions = Mapping[str, Sequence[Any]]  # by name, one value for each image


@runtime_checkable
class Generator(Protocol):
    """Something that gives images for seeds.

    .. versionadded:: 0.2.0
    """

    def sample(self, seeds: Sequence[int], conditions: Conditions | None = None) -> NDArray[np.float32]:
        """One image for each seed; equal seeds (and conditions) give equal images.

        Args:
            seeds: not negative.
            conditions: what the images are to be like, for generators that were trained with such conditions.

        Returns:
            ``(len(seeds), channels, *spatial)`` in [0, 1].

        Raises:
            ConfigurationError: conditions that the generator does not know.
        """
        ...


class TrainedGenerator(Generator, Protocol):
    """A generator made of networks."""

    @property
    def parameters(self) -> int:
        """Numbers in the networks that were trained."""
        ...


@runtime_checkable
class Identified(Protocol):
    """A generator that can say what decides its images, so that samples of two models are never mixed."""

    def identity(self) -> Mapping[str, Any]:
        """Weights (their hashes) and settings, in the types that ``monai_memo.sealing.fingerprint`` takes."""
        ...


class Reconstructor(Protocol):
    """A generator that makes near copies of images: ``(n, channels, *spatial)`` float32 in [0, 1], in and out."""

    def round_trip(self, images: NDArray[np.floating]) -> NDArray[np.float32]:
        """Encode and decode."""
        ...

    def denoise_from(self, images: NDArray[np.floating], strength: float, seed: int = 0) -> NDArray[np.float32]:
        """Add noise up to the share ``strength`` of the diffusion's steps, and denoise again."""
        ...


class FunctionGenerator:
    """A plain function as a generator.

    Args:
        function: takes seeds and gives an image for each: ``(n, channels, *spatial)`` in [0, 1], or in any other form
            of ``monai_memo.image_arrays`` (tensors, [-1, 1], bytes, channels last, pictures).

    Example:
        >>> noise = FunctionGenerator(lambda seeds: [np.random.default_rng(seed).random((1, 8, 8)) for seed in seeds])
        >>> noise.sample([1, 2, 1]).shape
        (3, 1, 8, 8)
    """

    def __init__(self, function: Callable[[Sequence[int]], Any]) -> None:
        self.function = function

    def sample(self, seeds: Sequence[int], conditions: Conditions | None = None) -> NDArray[np.float32]:
        """See ``Generator``; the function takes no conditions.

        Raises:
            ConfigurationError: conditions, or a result of another shape.
        """
        refuse_conditions(conditions)
        if not len(seeds):
            return np.empty((0,), dtype=np.float32)
        return understood(self.function(seeds), len(seeds), "the function that draws images")


def understood(images: Any, count: int, who: str) -> NDArray[np.float32]:
    """What a model of somebody else gave, as a ``Generator`` gives it.

    Args:
        images: one for each seed.
        count: of the seeds.
        who: gave them, for the message.

    Raises:
        ConfigurationError: another number of images, or what cannot be images.
    """
    try:
        return take_images(images, who, count=count, strict=False).in_unit_range()
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{who} gave the shape {shape_of(images)} for {count} seeds: ({count}, channels, *spatial) with 2 or 3 "
            f"spatial axes is asked for ({error})"
        ) from error


def drawn(generator: Generator, seeds: Sequence[int], conditions: Conditions | None = None) -> NDArray[np.float32]:
    """What a generator gives for seeds, whoever wrote it: lists, tensors with gradients, [-1, 1] and bytes too.

    Raises:
        ConfigurationError: another number of images, or what cannot be images.
    """
    if not len(seeds):
        return np.empty((0,), dtype=np.float32)
    images = generator.sample(seeds, conditions) if conditions else generator.sample(seeds)
    return understood(images, len(seeds), type(generator).__name__)


def require_writable(images: NDArray[np.floating], who: str) -> None:
    """Refuse images whose values a file of [0, 1] would cut off.

    Raises:
        ConfigurationError: they lie far beyond, for example from 0 to 255 as fractions.
    """
    finite = images[np.isfinite(images)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if low < -BEYOND or high > 1 + BEYOND:
        raise ConfigurationError(
            f"{who} has values from {low:g} to {high:g}, and files would cut them off: draw images in [0, 1]"
        )


def as_generator(draw: Generator | Callable[[Sequence[int]], Any]) -> Generator:
    """A generator as it is, and a plain function as one.

    Raises:
        ConfigurationError: neither.
    """
    if isinstance(draw, Generator):
        return draw
    if callable(draw):
        return FunctionGenerator(draw)
    raise ConfigurationError(
        f"images are drawn by a function of seeds or by an object with a method sample(seeds), not by {draw!r}"
    )


def refuse_conditions(conditions: Conditions | None) -> None:
    """For generators without conditions.

    Raises:
        ConfigurationError: there are some.
    """
    if conditions:
        raise ConfigurationError(f"this generator takes no conditions, got {', '.join(conditions)}")

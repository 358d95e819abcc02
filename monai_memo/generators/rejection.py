# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The baseline of all mitigation while sampling: look each sample up, reject copies, draw again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.errors import ConfigurationError, GeneratorError
from monai_memo.generators.latent_diffusion import sample_seeds
from monai_memo.sampling import Conditions, Generator, Identified

Similarity = Callable[[NDArray[np.floating]], NDArray[np.floating]]


class RejectingGenerator:
    """A generator whose copies are drawn again.

    An image above the threshold is replaced by one from another seed, derived from its own, until it is below or all
    attempts are used up. Equal seeds give equal images. A later audit by the same detector finds nothing by
    construction: audit with another one, or by ``monai-memo release``, which does.

    Args:
        generator: to draw from.
        similarity_of: similarity of images to the nearest training image; what is no number is rejected.
        threshold: of it.
        attempts: of each image.
        identity: of the detector, the training images and whatever else decides the similarity.

    Attributes:
        drawn, rejected: images so far.

    Raises:
        ConfigurationError: less than one attempt.
    """

    def __init__(
        self,
        generator: Generator,
        similarity_of: Similarity,
        threshold: float,
        attempts: int = 20,
        identity: str = "",
    ) -> None:
        if attempts < 1:
            raise ConfigurationError(f"attempts must be at least 1, got {attempts!r}")
        self.generator, self.similarity_of, self.threshold = generator, similarity_of, float(threshold)
        self.attempts, self.made_from, self.drawn, self.rejected = attempts, identity, 0, 0

    @property
    def batch_size(self) -> int:
        return int(getattr(self.generator, "batch_size", 16))

    @property
    def spatial_dims(self) -> int:
        return int(self.generator.spatial_dims)  # type: ignore[attr-defined]

    @property
    def parameters(self) -> int:
        """Of the generator."""
        return int(self.generator.parameters)  # type: ignore[attr-defined]

    def identity(self) -> Mapping[str, Any]:
        """Everything that decides the images."""
        inner = dict(self.generator.identity()) if isinstance(self.generator, Identified) else {}
        return {**inner, "rejection": [self.made_from, self.threshold, self.attempts]}

    def conditions_of(self, seeds: Sequence[int], conditions: Conditions | None = None) -> Mapping[str, Sequence[str]]:
        """See ``LatentDiffusion.conditions_of``; {} for a generator that does not say."""
        ask = getattr(self.generator, "conditions_of", None)
        found: Mapping[str, Sequence[str]] = {} if ask is None else ask(seeds, conditions)
        return found

    def sample(self, seeds: Sequence[int], conditions: Conditions | None = None) -> NDArray[np.float32]:
        """See ``sampling.Generator``.

        Raises:
            GeneratorError: an image for which every attempt gave a copy: this generator knows little else.
        """
        conditions = {**(conditions or {}), **self.conditions_of(seeds, conditions)}  # also of those drawn again
        images = np.array(self.generator.sample(seeds, conditions or None), dtype=np.float32)
        self.drawn += len(images)
        asked = np.arange(len(images))
        for attempt in range(self.attempts):
            asked = asked[~(self.similarity_of(images[asked]) <= self.threshold)]
            self.rejected += len(asked)
            if not len(asked):
                return images
            if attempt == self.attempts - 1:
                break
            places = [int(place) for place in asked]
            again = [sample_seeds(int(seeds[place]), [attempt])[0] for place in places]
            chosen = {name: [values[place] for place in places] for name, values in conditions.items()}
            images[asked] = self.generator.sample(again, chosen or None)
            self.drawn += len(asked)
        raise GeneratorError(
            f"{len(asked)} of {len(images)} images are copies after {self.attempts} attempts each ({self.rejected} of "
            f"{self.drawn} drawn so far were rejected): this generator knows its training images by heart. Train "
            "it again with more patients, more augmentation or fewer steps."
        )

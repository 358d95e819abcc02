# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Batches in an order that is the same in every run, on every number of restarts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler


class PixelDataset(Dataset[dict[str, Tensor]]):
    """Preprocessed images as a data set of ``{"image": (channels, *spatial) float32}``.

    Args:
        pixels: ``(n, channels, *spatial)`` in [0, 1], may be memory-mapped.
        indices: which of them; all by default.
    """

    def __init__(self, pixels: NDArray[np.floating], indices: Sequence[int] | NDArray[np.int64] | None = None) -> None:
        self.pixels = pixels
        self.indices = np.arange(len(pixels)) if indices is None else np.asarray(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return {"image": torch.from_numpy(self.pixels[self.indices[position]].astype(np.float32))}


class SeededOrder(Sampler[Any]):
    """A shuffled order that depends on seed and epoch alone; each rank takes its share.

    Call ``attach`` so that the epoch follows the trainer's.

    Args:
        n: images.
        seed: of the order.
        length: positions per epoch and rank; one pass over the images by default. A longer epoch goes over them again,
            in another order, so that the number of steps does not depend on the number of images.
        draws: give ``(position, number)`` with a random number that depends on seed, epoch and step alone, for data
            sets that choose among several versions of an item.
    """

    def __init__(self, n: int, seed: int, length: int | None = None, draws: bool = False) -> None:
        self.n, self.seed, self.length, self.draws, self.epoch = n, seed, length, draws, 1

    @staticmethod
    def _ranks() -> tuple[int, int]:
        return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)

    def __len__(self) -> int:
        return self.n // self._ranks()[1] if self.length is None else self.length

    def __iter__(self) -> Iterator[Any]:
        rank, world = self._ranks()
        rng, wanted = np.random.default_rng([self.seed, self.epoch]), len(self) * world
        order = rng.permutation(self.n)
        while len(order) < wanted:
            order = np.concatenate([order, rng.permutation(self.n)])
        positions = order[:wanted][rank::world].tolist()
        if not self.draws:
            yield from positions
            return
        numbers = np.random.default_rng([self.seed, self.epoch, 1]).integers(2**31, size=wanted)
        yield from zip(positions, numbers[rank::world].tolist(), strict=True)

    def attach(self, engine: Engine) -> None:
        """Follow the epochs of a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda e: setattr(self, "epoch", e.state.epoch))


class SeededLoader(DataLoader[dict[str, Tensor]]):
    """Whole batches in a seeded order; what is left over at the end of an epoch is left out.

    Args:
        dataset: ``{"image": tensor}`` items. One with the attribute ``draws`` is asked for ``(position, number)``, see
            ``SeededOrder``: it must not draw by itself, since items are fetched before the step is seeded.
        batch_size: images per batch and rank; smaller where there are not enough images.
        seed: of the order.
        steps: batches per epoch and rank; one pass over the images by default.
    """

    def __init__(
        self,
        dataset: Dataset[dict[str, Tensor]],
        batch_size: int,
        seed: int = 0,
        steps: int | None = None,
        **arguments: Any,
    ) -> None:
        n = len(dataset)  # type: ignore[arg-type]
        draws = bool(getattr(dataset, "draws", False))
        self.order = SeededOrder(n, seed, None if steps is None else steps * batch_size, draws)
        super().__init__(dataset, min(batch_size, len(self.order)), sampler=self.order, drop_last=True, **arguments)

    def attach(self, engine: Engine) -> None:
        """Follow the epochs of a trainer. Has the form of an Ignite handler."""
        self.order.attach(engine)


class SeededSteps:
    """Ignite handler: seed torch at every step by seed, epoch, step and rank.

    Noise, timesteps and dropout then are the same in a training that was killed and resumed as in one that was not.

    Args:
        seed: of all draws.
        repeat: draw the same in every epoch (for validation).
    """

    def __init__(self, seed: int, repeat: bool = False) -> None:
        self.seed, self.repeat = seed, repeat

    def attach(self, engine: Engine) -> None:
        """Seed before every step of an engine."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        step = (engine.state.iteration - 1) % (engine.state.epoch_length or 1)
        key = [self.seed, 0 if self.repeat else engine.state.epoch, step, rank]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))

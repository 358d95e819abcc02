# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Batches of pairs for contrastive training, the same in every run and after every resume."""

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

from monai_memo.views import Views


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


class SeededOrder(Sampler[int]):
    """A shuffled order that depends on seed and epoch alone; each rank takes its share.

    Call ``attach`` so that the epoch follows the trainer's.
    """

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed, self.epoch = n, seed, 1

    @staticmethod
    def _ranks() -> tuple[int, int]:
        return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)

    def __len__(self) -> int:
        return self.n // self._ranks()[1]

    def __iter__(self) -> Iterator[int]:
        rank, world = self._ranks()
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n)
        yield from order[: len(self) * world][rank::world].tolist()

    def attach(self, engine: Engine) -> None:
        """Follow the epochs of a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda e: setattr(self, "epoch", e.state.epoch))


class PairLoader(DataLoader[dict[str, Tensor]]):
    """Batches in a seeded order; incomplete ones are left out, since fewer negatives make an easier task.

    Args:
        dataset: ``{"image": tensor}`` items.
        batch_size: images per batch and rank; smaller where there are not enough images.
        seed: of the order.
    """

    def __init__(self, dataset: Dataset[dict[str, Tensor]], batch_size: int, seed: int = 0, **arguments: Any) -> None:
        n = len(dataset)  # type: ignore[arg-type]
        self.order = SeededOrder(n, seed)
        super().__init__(dataset, min(batch_size, len(self.order)), sampler=self.order, drop_last=True, **arguments)

    def attach(self, engine: Engine) -> None:
        """Follow the epochs of a trainer. Has the form of an Ignite handler."""
        self.order.attach(engine)


class ViewPairs:
    """Turn a batch of images into pairs: MONAI's ``prepare_batch``.

    The draws depend on seed, epoch and step alone, so that a training that was killed and resumed sees the same views
    as one that was not. Attach it to the engine, so that it knows the epoch and the step. Attached to a trainer it also
    seeds torch at every step, for dropout.

    Args:
        views: what counts as the same image.
        seed: of the views.
        both: two views of each image; otherwise the image itself and one view.
        repeat: use the same draws in every epoch (for validation).
    """

    def __init__(self, views: Views, seed: int = 0, both: bool = True, repeat: bool = False) -> None:
        self.views, self.seed, self.both, self.repeat = views, seed, both, repeat
        self._epoch, self._step = 0, 0

    def attach(self, engine: Engine) -> None:
        """Follow the steps of an engine. Has the form of an Ignite handler."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._follow)

    def _follow(self, engine: Engine) -> None:
        length = engine.state.epoch_length or 1
        self._epoch = 0 if self.repeat else engine.state.epoch
        self._step = (engine.state.iteration - 1) % length
        if not self.repeat:
            # Dropout draws from torch's own generator, which a resumed training would meet in another state.
            torch.manual_seed(self._key())

    def _key(self) -> int:
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        key = np.random.SeedSequence([self.seed, self._epoch, self._step, rank]).generate_state(2, np.uint32)
        return (int(key[0]) << 31) ^ int(key[1])

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self._key())

    def __call__(
        self, batch: dict[str, Tensor], device: str | torch.device | None = None, non_blocking: bool = False, **_: Any
    ) -> tuple[Tensor, Tensor]:
        """``(2 * batch, channels, *spatial)`` images, and the number of each row's pair."""
        images = batch["image"].to(device, non_blocking=non_blocking)
        generator = self._generator()
        first = self.views(images, generator) if self.both else images
        pairs = torch.cat([first, self.views(images, generator)])
        return pairs, torch.arange(len(images), device=pairs.device).repeat(2)

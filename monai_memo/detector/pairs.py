# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Pairs of views for contrastive training, the same in every run and after every resume."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import Tensor

from monai_memo.views import Views


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
        self,
        batch: dict[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **_: object,
    ) -> tuple[Tensor, Tensor]:
        """``(2 * batch, channels, *spatial)`` images, and the number of each row's pair.

        Where the batch has ``"partner"`` images, the second view of each pair is one of the partner.
        """
        images = batch["image"].to(device, non_blocking=non_blocking)
        generator = self._generator()
        first = self.views(images, generator) if self.both else images
        partners = batch["partner"].to(device, non_blocking=non_blocking) if "partner" in batch else images
        pairs = torch.cat([first, self.views(partners, generator)])
        return pairs, torch.arange(len(images), device=pairs.device).repeat(2)

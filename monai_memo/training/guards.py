# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Stop a training that can no longer succeed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from ignite.engine import Engine, Events
from monai.handlers import StatsHandler

from monai_memo.errors import MemoError, TrainingError
from monai_memo.files import exhausted


class Stats(StatsHandler):
    """MONAI's handler, but a full disk or one of our errors is no traceback in the log: who runs the training tells it.

    Example:
        >>> Stats(tag_name="train_loss").attach(Engine(lambda engine, batch: 0.0))
    """

    def exception_raised(self, _engine: Engine, e: Exception) -> None:
        """Hand an error on; one that nobody expects is logged before."""
        if isinstance(e, MemoError) or exhausted(e) is not None:
            raise e
        super().exception_raised(_engine, e)


class StopAtNaN:
    """Ignite handler: end the training at the first loss that is NaN or infinite, and name the step.

    It runs before the checkpoint of the epoch is written, so that the last one on disk is a good one.

    Args:
        keys: losses in the engine's output.
    """

    def __init__(self, keys: Sequence[str] = ("loss",)) -> None:
        self.keys = tuple(keys)

    def attach(self, engine: Engine) -> None:
        """Look at the loss after every step of a trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        for key in self.keys:
            loss = float(torch.as_tensor(engine.state.output[key]).detach())  # type: ignore[call-overload, index]
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the {key.replace('_', ' ')} is {loss} at step {engine.state.iteration} (epoch "
                    f"{engine.state.epoch}). The last checkpoint is from before. Check the images for extreme values, "
                    "or train with a lower learning rate."
                )

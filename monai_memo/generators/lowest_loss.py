# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Stop a diffusion training where its loss on unseen patients is lowest: beyond that it learns by heart."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from torch import nn

from monai_memo.errors import ConfigurationError
from monai_memo.files import write_with
from monai_memo.generators.weights import Record, save_weights, told

EARLY = 2  # epochs: there latent diffusion models of 50 patients had their lowest loss, and one of three drew noise


class StopAtLowestLoss:
    """Ignite handler: keep the weights of the lowest held-out loss, and stop when it no longer falls.

    Attach it before what writes checkpoints, and after what writes the final weights: these are then those of the
    lowest loss.

    Args:
        evaluator: with the loss on held-out images, which runs at the end of epochs.
        path: of the final weights.
        kept: of those with the lowest loss so far.
        network: whose weights are kept.
        patience: validations without a lower loss; None does nothing at all.
        record: further plain values for the file, or what gives them when it is written.
        score: name of the loss among the evaluator's metrics.

    Attributes:
        best_epoch, best_loss: None before the first validation.
        stopped_at: epoch, or None.
    """

    def __init__(
        self,
        evaluator: Engine,
        path: str | Path,
        kept: str | Path,
        network: nn.Module,
        patience: int | None,
        record: Record = None,
        score: str = "val_loss",
    ) -> None:
        if patience is not None and patience < 1:
            raise ConfigurationError(f"stop_patience must be at least 1, got {patience!r}")
        self.evaluator, self.path, self.kept, self.network = evaluator, Path(path), Path(kept), network
        self.patience, self.record, self.score = patience, record, score
        self.best_epoch: int | None = None
        self.best_loss: float | None = None
        self.stopped_at: int | None = None
        self.waited = 0

    def attach(self, engine: Engine) -> None:
        """Look at every validation; a training that was stopped stays stopped when it is started again."""
        if self.patience is None:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self._stay_stopped)
        self.evaluator.add_event_handler(Events.COMPLETED, self._look, engine)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _stay_stopped(self, engine: Engine) -> None:
        if self.stopped_at is not None:
            engine.logger.info("stopped after epoch %d: the held-out loss had stopped falling", self.stopped_at)
            engine.terminate()

    def _look(self, _: Engine, engine: Engine) -> None:
        loss = float(self.evaluator.state.metrics[self.score])
        if math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss):
            self.best_epoch, self.best_loss, self.waited = engine.state.epoch, loss, 0
            if idist.get_rank() == 0:
                save_weights(self.kept, self.network, steps=engine.state.iteration, **told(self.record))
            return
        self.waited += 1
        if self.patience is not None and self.waited >= self.patience:
            self.stopped_at = engine.state.epoch
            engine.logger.info(
                "stopping after epoch %d: the held-out loss was lowest after epoch %s",
                engine.state.epoch,
                self.best_epoch,
            )
            engine.terminate()

    def _finish(self, engine: Engine) -> None:
        if idist.get_rank() == 0 and self.best_epoch is not None and self.kept.is_file():
            write_with(self.path, lambda temporary: shutil.copyfile(self.kept, temporary))
            engine.logger.info(
                "weights of epoch %d, with the lowest held-out loss, are in %s", self.best_epoch, self.path
            )
            if self.best_epoch <= EARLY:
                engine.logger.warning(
                    "the held-out loss was lowest as early as after epoch %d. With few images that can be before the "
                    "model draws anything that looks like one: look at samples before you use these weights, or stop "
                    "by copies instead (--stop_above, --keep_under)",
                    self.best_epoch,
                )

    def state_dict(self) -> dict[str, Any]:
        """What is known so far."""
        return {
            "best_epoch": self.best_epoch, "best_loss": self.best_loss, "stopped_at": self.stopped_at,
            "waited": self.waited,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.best_epoch, self.best_loss = state["best_epoch"], state["best_loss"]
        self.stopped_at, self.waited = state["stopped_at"], state["waited"]

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What follows from copy rates: which checkpoint to keep, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ignite.engine import Engine, Events

from monai_memo.errors import ConfigurationError
from monai_memo.handlers.copy_rate_monitor import CopyRateMonitor
from monai_memo.settings import Number, value_of

RATE = Number(-1, 1)  # or an excess of rates


def _number(record: Mapping[str, float], quantity: str) -> float:
    if quantity not in record:
        raise ConfigurationError(f"quantity must be one of {', '.join(record)}, got {quantity!r}")
    return record[quantity]


class BestUnderCopyRate:
    """Ignite handler: keep the best model among those whose copy rate is under a limit.

    Args:
        monitor: attached before this handler.
        save: called with the engine when there is a new best model, for example a ``WeightsSaver``.
        limit: of ``quantity``; a model above it is not kept, however good it is.
        quantity: a number of the monitor's record. The default is the upper end of the interval of the excess over the
            control: what the audit cannot rule out.
        evaluator: whose metric says what is better; without it a later model is.
        score: name of that metric.
        smaller_is_better: True for losses.

    Attributes:
        best_epoch, best_score: of the model that was kept; None before.
    """

    def __init__(
        self,
        monitor: CopyRateMonitor,
        save: Callable[[Engine], object],
        limit: float = 0.05,
        quantity: str = "excess_copies_high",
        evaluator: Engine | None = None,
        score: str = "val_loss",
        smaller_is_better: bool = True,
    ) -> None:
        self.monitor, self.save, self.quantity = monitor, save, quantity
        self.limit: float = value_of("limit", limit, RATE)
        self.evaluator, self.score, self.smaller_is_better = evaluator, score, smaller_is_better
        self.best_epoch: int | None = None
        self.best_score: float | None = None

    def attach(self, engine: Engine) -> None:
        """Look at every audit of the monitor."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        record = self.monitor.latest(engine.state.epoch)
        if record is None or _number(record, self.quantity) > self.limit:
            return
        if self.evaluator is None:
            score, better = float(engine.state.epoch), True
        else:
            score = float(self.evaluator.state.metrics[self.score])
            worse_by = (score - (self.best_score or 0.0)) * (1 if self.smaller_is_better else -1)
            better = math.isfinite(score) and (self.best_score is None or worse_by < 0)
        if better:
            self.best_epoch, self.best_score = engine.state.epoch, score
            self.save(engine)

    def state_dict(self) -> dict[str, Any]:
        """Epoch and score of the model that was kept."""
        return {"best_epoch": self.best_epoch, "best_score": self.best_score}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.best_epoch, self.best_score = state["best_epoch"], state["best_score"]


class StopAtCopyRate:
    """Ignite handler: stop the training when copies are beyond doubt.

    Args:
        monitor: attached before this handler.
        limit: of ``quantity``.
        quantity: a number of the monitor's record. The default is the lower end of the interval of the excess over the
            control: the training stops when even this passes the limit.

    Attributes:
        stopped_at: epoch, or None.
    """

    def __init__(self, monitor: CopyRateMonitor, limit: float = 0.0, quantity: str = "excess_copies_low") -> None:
        self.monitor, self.quantity = monitor, quantity
        self.limit: float = value_of("limit", limit, RATE)
        self.stopped_at: int | None = None

    def attach(self, engine: Engine) -> None:
        """Look at every audit; a training that was stopped stays stopped when it is started again."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._stay_stopped)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _stay_stopped(self, engine: Engine) -> None:
        if self.stopped_at is not None:
            engine.logger.info("stopped after epoch %d: the copy rate had passed the limit", self.stopped_at)
            engine.terminate()

    def __call__(self, engine: Engine) -> None:
        record = self.monitor.latest(engine.state.epoch)
        if record is None or _number(record, self.quantity) <= self.limit:
            return
        self.stopped_at = engine.state.epoch
        engine.logger.info(
            "stopping after epoch %d: %s is %.3f, the limit is %.3f",
            engine.state.epoch,
            self.quantity,
            record[self.quantity],
            self.limit,
        )
        engine.terminate()

    def state_dict(self) -> dict[str, Any]:
        """Where it stopped."""
        return {"stopped_at": self.stopped_at}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stay stopped, or not."""
        self.stopped_at = state["stopped_at"]

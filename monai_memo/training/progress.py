# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How far a training is, for who sits before a terminal or reads a log."""

from __future__ import annotations

from types import TracebackType

from ignite.engine import Engine, Events

from monai_memo.progress import Progress


class TrainingProgress:
    """Ignite handler: progress over all steps, with the loss of the last one of each epoch.

    To be used in a ``with`` statement around the training: engines tell nobody how they end by an interruption.

    Args:
        what: is trained.
        shown: whether anything is shown.
    """

    def __init__(self, what: str, shown: bool = True) -> None:
        self.what, self.shown = what, shown
        self._progress: Progress | None = None

    def attach(self, engine: Engine) -> None:
        """Follow the steps of a trainer."""
        if not self.shown:
            return
        engine.add_event_handler(Events.ITERATION_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)

    def _begin(self, engine: Engine) -> None:
        if self._progress is None:  # now, not at the start: a checkpoint has been loaded
            state = engine.state
            total, done = int(state.max_epochs or 0) * int(state.epoch_length or 0), int(state.iteration) - 1
            self._progress = Progress(total, self.what, done)

    def _step(self, engine: Engine) -> None:
        if self._progress is not None:
            self._progress.update()

    def _epoch(self, engine: Engine) -> None:
        # Not at every step: a card would have to be waited for.
        if self._progress is not None:
            self._progress.note(f"loss {float(engine.state.output['loss'].detach()):.3f}")  # type: ignore[index, call-overload]

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.close()
            self._progress = None

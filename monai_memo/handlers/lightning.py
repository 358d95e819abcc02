# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The monitor as a callback of Lightning (``pip install monai-memo[lightning]``)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from monai_memo.errors import ConfigurationError
from monai_memo.sampling import Draw, Generator
from monai_memo.settings import Number, value_of

if TYPE_CHECKING:
    from monai_memo.handlers.copy_rate_monitor import CopyRateMonitor

PACKAGES = ("lightning.pytorch", "pytorch_lightning")  # one code under two names
LightningCallback: TypeAlias = Any  # the class of whichever of them is there


def lightning_callback(
    monitor: CopyRateMonitor, draw: Generator | Draw | None = None, stop_above: float | None = None
) -> LightningCallback:
    """A callback that audits the model after every ``monitor.every``-th epoch.

    The numbers are logged as ``copy_rate_<name>``, so that ``ModelCheckpoint`` and the loggers see them; the history
    goes to Lightning's checkpoints.

    Args:
        monitor: as for any other training.
        draw: a generator or function of seeds; by default the monitor's own, or else the method ``sample(seeds)`` of
            the ``LightningModule``, which is in evaluation mode while it draws.
        stop_above: stop the training when the lower end of the excess over the control passes this.

    Raises:
        ConfigurationError: Lightning is not installed, or ``stop_above`` beyond -1 to 1.
    """
    if stop_above is not None:
        stop_above = value_of("stop_above", stop_above, Number(-1, 1))
    base: Any = _package().Callback

    class CopyRateCallback(base):  # type: ignore[misc]
        """See ``lightning_callback``."""

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            """Audit, if it is due."""
            epoch = int(trainer.current_epoch) + 1
            if not monitor.due(epoch):
                return
            source = draw if draw is not None or monitor.draw is not None else pl_module
            training = bool(pl_module.training)
            pl_module.eval()
            try:
                record = monitor.audit(epoch, int(trainer.global_step), source)
            finally:
                pl_module.train(training)
            if record is None:
                return
            numbers = {f"copy_rate_{name}": value for name, value in record.items() if name not in ("epoch", "step")}
            pl_module.log_dict(numbers)
            if stop_above is not None and record["excess_copies_low"] > stop_above:
                trainer.should_stop = True

        def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
            """Nothing is written any more."""
            monitor.close()

        def state_dict(self) -> dict[str, Any]:
            """The monitor's history."""
            return monitor.state_dict()

        def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
            """Go on with a history."""
            monitor.load_state_dict(state_dict)

    return CopyRateCallback()


def _package() -> Any:
    """The package that the user's code imported, or else the one that is there."""
    for name in sorted(PACKAGES, key=lambda one: one not in sys.modules):
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if not name.startswith(str(error.name)):
                raise
    raise ConfigurationError("Lightning is not installed: pip install monai-memo[lightning], or pip install lightning")

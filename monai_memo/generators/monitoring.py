# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Copy-rate handlers for a diffusion training, or none where there is no detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from ignite.engine import Engine

from monai_memo.audit.configuration import is_verified
from monai_memo.detector.detector import Detector
from monai_memo.generators.cohorts import GeneratorCohorts
from monai_memo.handlers.copy_rate_limit import BestUnderCopyRate, StopAtCopyRate
from monai_memo.handlers.copy_rate_monitor import CopyRateMonitor
from monai_memo.metrics.copy_rate import CopyRate
from monai_memo.metrics.reference import copy_rate_from_cohorts
from monai_memo.metrics.verified import VerifiedCopyRate
from monai_memo.sampling import Draw, Generator
from monai_memo.settings.keywords import with_defaults


class SearchOptions(TypedDict, total=False):
    """How samples are looked up.

    Attributes:
        verification: count copies as an audit does; False compares embeddings alone, which is quicker. By default on,
            except for a detector by the paper's recipe.
        n_bootstrap: resamples of patients for the intervals.
        device: where the search runs.
        workers: threads that read images.
        progress: show progress bars.
    """

    verification: bool | None
    n_bootstrap: int
    device: str | torch.device
    workers: int | None
    progress: bool


DEFAULTS = SearchOptions(verification=None, n_bootstrap=500, device="cpu", workers=None, progress=True)


class CopyRateHandlers:
    """Monitor, and where limits are given the handlers that act on it, as one handler with one state.

    A checkpoint without them can be gone on from with them, and the other way round.

    Args:
        detector_file: of the training cohort; None: nothing is monitored.
        cohorts: what the generator is trained on, and what not.
        draw: generator, or function of seeds, that draws from the current model.
        folder: for embeddings and matches, ``copy_rate.csv`` and, under ``tensorboard``, events.
        every, n_samples: see ``CopyRateMonitor``; they bound the cost.
        keep_under: limit for ``BestUnderCopyRate``; None keeps no best model.
        stop_above: limit for ``StopAtCopyRate``; None never stops.
        save_best: what keeps the best model.
        evaluator: with the validation loss that says which is best.
        seed: of samples and bootstrap.
        options: verification, n_bootstrap, device, workers, progress; see ``SearchOptions``.
    """

    def __init__(
        self,
        detector_file: str | Path | None,
        cohorts: GeneratorCohorts,
        draw: Generator | Draw,
        folder: str | Path,
        every: int = 1,
        n_samples: int = 200,
        keep_under: float | None = None,
        stop_above: float | None = None,
        save_best: Callable[[Engine], object] | None = None,
        evaluator: Engine | None = None,
        seed: int = 0,
        **options: Unpack[SearchOptions],
    ) -> None:
        chosen = with_defaults(DEFAULTS, options, "CopyRateHandlers")
        self.handlers: dict[str, Any] = {}
        if detector_file is None:
            return
        folder, detector = Path(folder), Detector.load(detector_file)
        verified = is_verified(chosen["verification"], detector.recipe.name)
        make: Callable[..., CopyRate | VerifiedCopyRate] = VerifiedCopyRate if verified else copy_rate_from_cohorts
        metric = make(
            detector,
            cohorts.training,
            cohorts.heldout,
            folder / "embeddings",
            chosen["device"],
            workers=chosen["workers"],
            progress=chosen["progress"],
            n_bootstrap=chosen["n_bootstrap"],
            seed=seed,
        )
        monitor = CopyRateMonitor(
            draw,
            detector,
            metric,
            folder / "copy_rate.csv",
            folder / "tensorboard",
            every=every,
            n_samples=n_samples,
            seed=seed,
            device=chosen["device"],
        )
        self.handlers["monitor"] = monitor
        if keep_under is not None and save_best is not None:
            self.handlers["best"] = BestUnderCopyRate(monitor, save_best, keep_under, evaluator=evaluator)
        if stop_above is not None:
            self.handlers["stop"] = StopAtCopyRate(monitor, stop_above)

    def attach(self, engine: Engine) -> None:
        """Attach them in the order in which they need one another."""
        for handler in self.handlers.values():
            handler.attach(engine)

    def state_dict(self) -> dict[str, Any]:
        """States by name."""
        return {name: handler.state_dict() for name, handler in self.handlers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore those that the checkpoint knows."""
        for name, handler in self.handlers.items():
            if name in state:
                handler.load_state_dict(state[name])

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Report copy rates while a generator trains, whatever runs the training."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from monai_memo.audit.verdict import SHARE_OF_CONCERN
from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError
from monai_memo.files import csv_text, write_text
from monai_memo.metrics.copy_rate import CopyRate
from monai_memo.metrics.images import embed_images
from monai_memo.metrics.verified import VerifiedCopyRate
from monai_memo.sampling import Draw, Generator, as_generator, drawn
from monai_memo.settings import Whole
from monai_memo.settings.keywords import with_defaults

if TYPE_CHECKING:
    from monai_memo.handlers.lightning import LightningCallback

logger = logging.getLogger(__name__)
OF_THE_AUDIT = ("epoch", "step", "seconds", "n_unusable", "verified")  # what a record has beside the numbers


class MonitorOptions(TypedDict, total=False):
    """How often, how large and how an audit of ``CopyRateMonitor`` is.

    Attributes:
        every: epochs (in a loop of one's own: steps) between two audits.
        n_samples: images per audit.
        seed: the first of ``n_samples`` consecutive seeds.
        batch_size: images embedded at once; a ``VerifiedCopyRate`` has its own.
        device: of the detector; a ``VerifiedCopyRate`` has its own.
    """

    every: int
    n_samples: int
    seed: int
    batch_size: int
    device: str | torch.device


DEFAULTS = MonitorOptions(every=1, n_samples=200, seed=0, batch_size=64, device="cpu")
KINDS = {
    "every": Whole(1, 10**9), "n_samples": Whole(1, 10**6), "seed": Whole(0, 2**63 - 1), "batch_size": Whole(1, 65_536),
}  # fmt: skip


class CopyRateMonitor:
    """Every few epochs or steps draw samples from the current model and audit them.

    It works in three kinds of training, with the same numbers:

    * a loop of one's own: ``monitor(step, draw)`` after each step; until ``every`` steps have passed it only counts;
    * Ignite and MONAI: ``monitor.attach(trainer)``, after epochs;
    * Lightning: ``Trainer(callbacks=[monitor.as_lightning_callback()])``, after epochs.

    The numbers of ``metrics.copy_rate.copy_rates`` are returned, and go to a CSV, to TensorBoard (``copy_rate/<name>``,
    by training step) and to ``engine.state.metrics`` (``copy_rate_<name>``). Each audit costs ``n_samples`` samples and
    their search; the seconds spent are part of the record.

    A ``VerifiedCopyRate`` counts copies as an audit does; the first time it gets the training cohort and the held-out
    images ready, and nothing before. A ``CopyRate`` compares embeddings alone.

    Every time the same seeds are used, so that a curve shows the model and not the draw. On several ranks each draws
    its share, and the numbers are those of all samples.

    Args:
        draw: a generator (``monai_memo.sampling.Generator``) that draws from the current model, or a plain function of
            seeds that gives images in any form of ``monai_memo.image_arrays``; None where each call brings its own.
        detector: of the training cohort.
        metric: of the training and the held-out cohort by the same detector, with verified matches or with embeddings.
        csv_path: of the table; None writes none.
        log_dir: for TensorBoard; None writes no events.
        options: every, n_samples, seed, batch_size, device; see ``MonitorOptions``.

    Attributes:
        history: one record per audit: ``epoch``, ``step``, ``seconds``, ``n_unusable``, ``verified`` (1 or 0) and the
            numbers.

    Raises:
        ConfigurationError: a number that is none or beyond its limits, or a metric of another detector.
    """

    def __init__(
        self,
        draw: Generator | Draw | None,
        detector: Detector,
        metric: CopyRate | VerifiedCopyRate,
        csv_path: str | Path | None = None,
        log_dir: str | Path | None = None,
        **options: Unpack[MonitorOptions],
    ) -> None:
        chosen = with_defaults(DEFAULTS, options, "CopyRateMonitor", KINDS)
        other = metric.detector
        if other is not None and other is not detector and other.sha256 != detector.sha256:
            raise ConfigurationError("the metric was made with another detector: give the same to both")
        self.draw, self.detector, self.metric = draw, detector, metric
        self.csv_path, self.log_dir = (None if path is None else Path(path) for path in (csv_path, log_dir))
        self.every, self.n_samples, self.seed = chosen["every"], chosen["n_samples"], chosen["seed"]
        self.batch_size, self.device = chosen["batch_size"], chosen["device"]
        self.history: list[dict[str, float]] = []
        self._writer: SummaryWriter | None = None

    def attach(self, engine: Engine) -> None:
        """Audit after every ``every``-th epoch of a trainer. Attach it before handlers that use its numbers."""
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def as_lightning_callback(
        self, draw: Generator | Draw | None = None, stop_above: float | None = None
    ) -> LightningCallback:
        """The monitor as a callback of Lightning's ``Trainer``. See ``handlers.lightning``."""
        from monai_memo.handlers.lightning import lightning_callback  # an optional package

        return lightning_callback(self, draw, stop_above)

    def due(self, number: int) -> bool:
        """Whether an audit is due after so many epochs or steps."""
        return number > 0 and number % self.every == 0

    def latest(self, epoch: int) -> dict[str, float] | None:
        """The record of this epoch, if there was an audit."""
        return self.history[-1] if self.history and self.history[-1]["epoch"] == epoch else None

    def __call__(self, when: Engine | int, draw: Generator | Draw | None = None) -> dict[str, float] | None:
        """Audit, if it is due.

        Args:
            when: steps that are done, or the trainer to which the monitor is attached (Ignite calls it when it is due).
            draw: for this call, in place of the monitor's own.

        Returns:
            The record; None where no audit was due, or no sample could be used.
        """
        if isinstance(when, Engine):
            record = self.audit(when.state.epoch, when.state.iteration, draw, when.logger)
            if record is not None:
                numbers = {name: value for name, value in record.items() if name not in OF_THE_AUDIT}
                when.state.metrics |= {f"copy_rate_{name}": value for name, value in numbers.items()}
            return record
        return self.audit(int(when), int(when), draw) if self.due(int(when)) else None

    def audit(
        self, epoch: int, step: int, draw: Generator | Draw | None = None, log: Logger = logger
    ) -> dict[str, float] | None:
        """Audit now, whether it is due or not.

        Args:
            epoch, step: how far the training is, for the record.
            draw: in place of the monitor's own.
            log: for the sentence that tells the result.

        Returns:
            The record; None where no sample could be used.

        Raises:
            ConfigurationError: nothing to draw from.
        """
        started = time.monotonic()
        source = self.draw if draw is None else draw
        if source is None:
            raise ConfigurationError("there is nothing to draw from: give draw to the monitor, or to the call")
        rank, world = idist.get_rank(), idist.get_world_size()
        # Consecutive seeds on each rank: gathered, they are in the order in which one rank draws them.
        mine = slice(self.n_samples * rank // world, self.n_samples * (rank + 1) // world)
        images = drawn(as_generator(source), range(self.seed, self.seed + self.n_samples)[mine])
        self.metric.reset()
        usable = self._take(images)
        unusable = int(idist.all_reduce(len(images) - usable))
        if int(idist.all_reduce(usable, op="MIN")) == 0:
            # A model that has gone wrong must not end the training that may put it right.
            log.warning("epoch %d: %d samples cannot be used, no audit", epoch, unusable)
            self.metric.reset()
            return None
        numbers = self.metric.summary()
        total, repeated = self.metric.repeated()
        self.metric.reset()
        if repeated > SHARE_OF_CONCERN * total:
            log.warning(
                "epoch %d: %d of %d samples are another one over again, or nearly, and copy rates count each: let "
                "every seed draw its own noise; where it does, the model has collapsed or knows a few images by heart",
                epoch,
                repeated,
                total,
            )
        record = {
            "epoch": epoch,
            "step": step,
            "seconds": round(time.monotonic() - started, 3),
            "n_unusable": unusable,
            "verified": float(isinstance(self.metric, VerifiedCopyRate)),
            **numbers,
        }
        self.history = [*(row for row in self.history if row["epoch"] < record["epoch"]), record]
        if rank == 0:
            log.info(
                "epoch %d: %d of %d samples are copies, excess over control %.3f (%.3f to %.3f)",
                record["epoch"],
                numbers["n_copies"],
                numbers["n_synthetic"],
                numbers["excess_copies"],
                numbers["excess_copies_low"],
                numbers["excess_copies_high"],
            )
            self._write(record)
        return record

    def _take(self, images: NDArray[np.floating]) -> int:
        """Hand this rank's samples to the metric, and tell how many are usable."""
        if not len(images):
            return 0
        if isinstance(self.metric, VerifiedCopyRate):
            return self.metric.add(images)
        embeddings, _ = embed_images(self.detector, images, self.device, self.batch_size)
        if len(embeddings):
            self.metric(torch.from_numpy(embeddings).to(idist.device()))
        return len(embeddings)

    def _write(self, record: Mapping[str, float]) -> None:
        if self.csv_path is not None:
            self._write_table(self.csv_path)
        if self.log_dir is not None:
            if self._writer is None:
                self._writer = SummaryWriter(str(self.log_dir))
            for name, value in record.items():
                if name not in ("epoch", "step"):
                    self._writer.add_scalar(f"copy_rate/{name}", value, int(record["step"]))
            self._writer.flush()

    def _write_table(self, path: Path) -> None:
        columns = list(dict.fromkeys(name for row in self.history for name in row))
        write_text(path, csv_text(columns, self.history))

    def close(self) -> None:
        """End the writing of TensorBoard's events; a later audit takes it up again."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def state_dict(self) -> dict[str, Any]:
        """The history, for checkpoints."""
        return {"history": [dict(row) for row in self.history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a history."""
        self.history = [dict(row) for row in state["history"]]

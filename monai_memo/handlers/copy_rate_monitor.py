# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Report copy rates while a generator trains."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, Unpack

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError
from monai_memo.files import write_text
from monai_memo.metrics.copy_rate import CopyRate
from monai_memo.metrics.reference import embed_images
from monai_memo.metrics.verified import VerifiedCopyRate
from monai_memo.sampling import Draw, Generator, as_generator
from monai_memo.settings.keywords import with_defaults


class MonitorOptions(TypedDict, total=False):
    """How often, how large and how an audit of ``CopyRateMonitor`` is.

    Attributes:
        every: epochs between two audits.
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


class CopyRateMonitor:
    """Ignite handler: every few epochs draw samples from the current model and audit them.

    The numbers of ``metrics.copy_rate.copy_rates`` go to ``engine.state.metrics`` (``copy_rate_<name>``), to
    TensorBoard (``copy_rate/<name>``, by training step) and to a CSV. Each time it costs ``n_samples`` samples and
    their search; the seconds spent are part of the record.

    A ``VerifiedCopyRate`` counts copies as an audit does; the first time it gets the training cohort and the held-out
    images ready, and nothing before. A ``CopyRate`` compares embeddings alone.

    Every time the same seeds are used, so that a curve shows the model and not the draw. On several ranks each draws
    its share, and the numbers are those of all samples.

    Args:
        draw: a generator (``monai_memo.sampling.Generator``) that draws from the current model, or a plain function of
            seeds that gives images ``(n, channels, *spatial)`` in [0, 1].
        detector: of the training cohort.
        metric: of the training and the held-out cohort by the same detector, with verified matches or with embeddings.
        csv_path: of the table.
        log_dir: for TensorBoard; None writes no events.
        options: every, n_samples, seed, batch_size, device; see ``MonitorOptions``.

    Attributes:
        history: one record per audit: ``epoch``, ``step``, ``seconds``, ``n_unusable``, ``verified`` (1 or 0) and the
            numbers.

    Raises:
        ConfigurationError: ``every`` or ``n_samples`` below 1, or a metric of another detector.
    """

    def __init__(
        self,
        draw: Generator | Draw,
        detector: Detector,
        metric: CopyRate | VerifiedCopyRate,
        csv_path: str | Path,
        log_dir: str | Path | None = None,
        **options: Unpack[MonitorOptions],
    ) -> None:
        chosen = with_defaults(DEFAULTS, options, "CopyRateMonitor")
        for name, value in (("every", chosen["every"]), ("n_samples", chosen["n_samples"])):
            if value < 1:
                raise ConfigurationError(f"{name} must be at least 1, got {value!r}")
        of_another = isinstance(metric, VerifiedCopyRate) and metric.detector is not detector
        if of_another and metric.detector.sha256 != detector.sha256:
            raise ConfigurationError("the metric was made with another detector: give the same to both")
        self.draw, self.detector, self.metric = draw, detector, metric
        self.csv_path, self.log_dir = Path(csv_path), None if log_dir is None else Path(log_dir)
        self.every, self.n_samples, self.seed = chosen["every"], chosen["n_samples"], chosen["seed"]
        self.batch_size, self.device = chosen["batch_size"], chosen["device"]
        self.history: list[dict[str, float]] = []
        self._writer: SummaryWriter | None = None

    def attach(self, engine: Engine) -> None:
        """Audit after every ``every``-th epoch of a trainer. Attach it before handlers that use its numbers."""
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def latest(self, epoch: int) -> dict[str, float] | None:
        """The record of this epoch, if there was an audit."""
        return self.history[-1] if self.history and self.history[-1]["epoch"] == epoch else None

    def __call__(self, engine: Engine) -> None:
        started = time.monotonic()
        rank, world = idist.get_rank(), idist.get_world_size()
        # Consecutive seeds on each rank: gathered, they are in the order in which one rank draws them.
        mine = slice(self.n_samples * rank // world, self.n_samples * (rank + 1) // world)
        images = as_generator(self.draw).sample(range(self.seed, self.seed + self.n_samples)[mine])
        self.metric.reset()
        usable = self._take(images)
        unusable = int(idist.all_reduce(len(images) - usable))
        if int(idist.all_reduce(usable, op="MIN")) == 0:
            # A model that has gone wrong must not end the training that may put it right.
            engine.logger.warning("epoch %d: %d samples cannot be used, no audit", engine.state.epoch, unusable)
            self.metric.reset()
            return
        numbers = self.metric.summary()
        self.metric.reset()
        record = {
            "epoch": engine.state.epoch,
            "step": engine.state.iteration,
            "seconds": round(time.monotonic() - started, 3),
            "n_unusable": unusable,
            "verified": float(isinstance(self.metric, VerifiedCopyRate)),
            **numbers,
        }
        self.history = [*(row for row in self.history if row["epoch"] < record["epoch"]), record]
        engine.state.metrics |= {f"copy_rate_{name}": value for name, value in numbers.items()}
        if rank == 0:
            engine.logger.info(
                "epoch %d: %d of %d samples are copies, excess over control %.3f (%.3f to %.3f)",
                record["epoch"],
                numbers["n_copies"],
                numbers["n_synthetic"],
                numbers["excess_copies"],
                numbers["excess_copies_low"],
                numbers["excess_copies_high"],
            )
            self._write(record)

    def _take(self, images: NDArray[np.floating]) -> int:
        """Hand this rank's samples to the metric, and tell how many are usable."""
        if isinstance(self.metric, VerifiedCopyRate):
            return self.metric.add(images)
        embeddings, _ = embed_images(self.detector, images, self.device, self.batch_size)
        if len(embeddings):
            self.metric(torch.from_numpy(embeddings).to(idist.device()))
        return len(embeddings)

    def _write(self, record: Mapping[str, float]) -> None:
        columns = list(dict.fromkeys(name for row in self.history for name in row))
        stream = io.StringIO()
        table = csv.DictWriter(stream, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(self.history)
        write_text(self.csv_path, stream.getvalue())
        if self.log_dir is not None:
            if self._writer is None:
                self._writer = SummaryWriter(str(self.log_dir))
            for name, value in record.items():
                if name not in ("epoch", "step"):
                    self._writer.add_scalar(f"copy_rate/{name}", value, int(record["step"]))
            self._writer.flush()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def state_dict(self) -> dict[str, Any]:
        """The history, for checkpoints."""
        return {"history": [dict(row) for row in self.history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a history."""
        self.history = [dict(row) for row in state["history"]]

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Write a generator's weights when its training has finished, and find where to go on when it has not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from numpy.typing import NDArray
from torch import nn

from monai_memo.generators.weights import Record, save_weights, told
from monai_memo.sealing import fingerprint
from monai_memo.training.checkpoints import last_checkpoint
from monai_memo.workspace.locking import hold, let_go_all

TRAINING = "training of a generator"


def newest_checkpoint(
    folder: str | Path, settings: Mapping[str, Any], pixels: Iterable[NDArray[np.generic]] = ()
) -> str | None:
    """Where to go on: the newest checkpoint of this very training, or None.

    Call it before anything is written to ``folder``: checkpoints of a training with other settings or other images are
    moved to ``superseded``.

    Args:
        folder: of the checkpoints of one training.
        settings: what makes it this training: networks, optimisers and losses as they are built, and plain values (see
            ``monai_memo.sealing.described``).
        pixels: the arrays it is trained on.

    Raises:
        OutputError: another process trains in this folder.
    """
    identity = fingerprint(TRAINING, [dict(settings), idist.get_world_size()], pixels)
    hold(folder, TRAINING)  # two trainings into one folder would go on from one another's checkpoints
    with idist.one_rank_first():
        found = last_checkpoint(Path(folder), identity)
    return None if found is None else str(found)


class WeightsSaver:
    """Ignite handler: write the weights file at the end of the run, on rank 0.

    Args:
        path: of the file.
        network: as built, not wrapped by ``DistributedDataParallel``; the averaged one where there is EMA.
        record: further plain values for the file, such as the scale factor, or what gives them when it is written.
    """

    def __init__(self, path: str | Path, network: nn.Module, record: Record = None) -> None:
        self.path, self.network, self.record = Path(path), network, record

    def attach(self, engine: Engine) -> None:
        """Write at the end of a trainer's run."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            save_weights(self.path, self.network, steps=engine.state.iteration, **told(self.record))
            engine.logger.info("weights written to %s", self.path)
        let_go_all(TRAINING)

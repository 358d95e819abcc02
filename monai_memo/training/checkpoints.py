# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that survive a kill at any moment, and know which training they belong to."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ignite.handlers import DiskSaver
from monai.handlers import CheckpointSaver
from numpy.typing import NDArray

from monai_memo.errors import TrainingError
from monai_memo.files import write_json

logger = logging.getLogger(__name__)


class AtomicCheckpointSaver(CheckpointSaver):
    """MONAI's ``CheckpointSaver``, whose files of every epoch appear whole or not at all.

    MONAI writes them in place: a process that is killed meanwhile leaves half a file, and that is the newest one.

    Args:
        save_dir: folder.
        save_dict: what to save, by name.
        arguments: further arguments of ``CheckpointSaver``; ``save_interval`` is what this class is about.
    """

    def __init__(self, save_dir: str, save_dict: dict[str, Any], **arguments: Any) -> None:
        super().__init__(save_dir, save_dict, **arguments)
        if self._interval_checkpoint is not None:
            self._interval_checkpoint.save_handler = DiskSaver(save_dir, atomic=True, require_empty=False)


def fingerprint_of(settings: Any, pixels: Iterable[NDArray[np.generic]] = ()) -> str:
    """What makes a training this one: a hash of its settings (JSON types) and of the arrays it is trained on.

    Arrays may be memory-mapped; they are read in blocks.
    """
    digest = hashlib.sha256(json.dumps(settings).encode())
    for array in pixels:
        for start in range(0, len(array), 256):
            digest.update(np.ascontiguousarray(array[start : start + 256]).tobytes())
    return digest.hexdigest()


def last_checkpoint(folder: Path, identity: str) -> Path | None:
    """The newest whole checkpoint of this very run; those of another run are removed, and nothing else.

    Raises:
        TrainingError: the folder holds checkpoints or logs that are not known to be of a training with this library.
    """
    marker, logs = folder / "run.json", folder / "tensorboard"
    found = sorted(
        (path for path in folder.glob("checkpoint_epoch=*.pt") if _epoch(path).isdigit()),
        key=lambda path: int(_epoch(path)),
        reverse=True,
    )
    if not marker.exists() and not found and not logs.exists():
        write_json(marker, {"fingerprint": identity})
        return None
    try:
        earlier = json.loads(marker.read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{folder} holds run.json, tensorboard or checkpoints, but not of a training of this library. They are "
            "left as they are: name another folder."
        ) from error
    if earlier != identity:
        logger.info("%s holds another training: starting anew", folder)
        for path in found:
            path.unlink()
        shutil.rmtree(logs, ignore_errors=True)
        # Last, so that a kill before this line leaves a folder that is still cleared next time.
        write_json(marker, {"fingerprint": identity})
        return None
    for path in found:
        # A cut archive has lost its directory, which stands at the end. Only a power cut leaves one.
        if zipfile.is_zipfile(path):
            return path
        logger.warning("%s is damaged: going on from the checkpoint before", path)
        path.unlink()
    return None


def _epoch(path: Path) -> str:
    return path.stem.rpartition("=")[2]

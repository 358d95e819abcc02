# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that survive a kill at any moment, and know which training they belong to."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from ignite.handlers import DiskSaver
from monai.handlers import CheckpointSaver
from numpy.typing import NDArray

from monai_memo.data.loading import Preprocessing
from monai_memo.detector.recipe import Recipe
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


def fingerprint(pixels: NDArray[np.floating], recipe: Recipe, preprocessing: Preprocessing, seed: int) -> str:
    """What makes a training this one: images, recipe, preprocessing and seed."""
    digest = hashlib.sha256(json.dumps([recipe.to_dict(), preprocessing.to_dict(), seed, pixels.shape]).encode())
    for start in range(0, len(pixels), 256):
        digest.update(np.ascontiguousarray(pixels[start : start + 256]).tobytes())
    return digest.hexdigest()


def last_checkpoint(folder: Path, identity: str) -> Path | None:
    """The newest checkpoint of this very run; those of another run are removed."""
    marker = folder / "run.json"
    try:
        same = json.loads(marker.read_text(encoding="utf-8"))["fingerprint"] == identity
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        if folder.exists():
            logger.info("%s holds another training: starting anew", folder)
            shutil.rmtree(folder)
        write_json(marker, {"fingerprint": identity})
        return None
    found = [path for path in folder.glob("*.pt") if path.stem.rpartition("=")[2].isdigit()]
    return max(found, key=lambda path: int(path.stem.rpartition("=")[2]), default=None)

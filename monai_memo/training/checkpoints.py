# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that survive a kill at any moment, and know which training they belong to."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine
from ignite.handlers import DiskSaver
from monai.handlers import CheckpointLoader, CheckpointSaver

from monai_memo.errors import OutputError, TrainingError
from monai_memo.files import write_json
from monai_memo.sealing import NO_FINGERPRINT, save_torch, sealed_identity, write_sealed
from monai_memo.workspace.place import WORK

logger = logging.getLogger(__name__)

MARKER, LOGS, SUPERSEDED = "run.json", "tensorboard", "superseded"


class _SealedSaver(DiskSaver):
    """Writes each checkpoint in one step, sealed with the fingerprint of the training that the folder belongs to."""

    def _save_func(self, checkpoint: Mapping[str, Any], path: Path, func: Any) -> None:
        identity = _marked(self.dirname) or NO_FINGERPRINT
        try:
            write_sealed(path, lambda temporary: save_torch(temporary, checkpoint), identity)
        except OutputError as error:
            before = any(item.name != Path(path).name for item in Path(self.dirname).glob("checkpoint_epoch=*.pt"))
            goes_on = (
                "The one before is whole: free some space and run the same command again, and the training goes on "
                "from there."
                if before
                else "It was the first one: free some space and run the same command again, and the training begins "
                "anew."
            )
            reason = getattr(error.__cause__, "strerror", None) or "the write failed"
            raise OutputError(
                f"cannot write the checkpoint {path}: {error.__cause__ or error}. {goes_on}",
                f"cannot write a checkpoint: {reason}. {goes_on}",
            ) from error


class AtomicCheckpointSaver(CheckpointSaver):
    """MONAI's ``CheckpointSaver``, whose files of every epoch appear whole or not at all, and are sealed.

    MONAI writes them in place: a process that is killed meanwhile leaves half a file, and that is the newest one.

    Args:
        save_dir: folder.
        save_dict: what to save, by name.
        arguments: further arguments of ``CheckpointSaver``; ``save_interval`` is what this class is about.
    """

    def __init__(self, save_dir: str, save_dict: dict[str, Any], **arguments: Any) -> None:
        super().__init__(save_dir, save_dict, **arguments)
        if self._interval_checkpoint is not None:
            self._interval_checkpoint.save_handler = _SealedSaver(save_dir, atomic=True, require_empty=False)


class CheckpointFolder:
    """The folder of one training's checkpoints and logs, and where that training stood when it was interrupted.

    Make it before anything is written there: checkpoints of another training are moved to ``superseded``, see
    ``last_checkpoint``. All ranks of a distributed training have to see the same folder.

    Args:
        folder: of this training alone.
        identity: its fingerprint (``monai_memo.sealing.fingerprint``).

    Attributes:
        newest: the checkpoint to go on from; None at the beginning.
        logs: folder of the TensorBoard logs.
    """

    def __init__(self, folder: str | Path, identity: str) -> None:
        self.folder = Path(folder)
        self.logs = str(self.folder / LOGS)
        with idist.one_rank_first():
            self.newest = last_checkpoint(self.folder, identity)

    def keep(self, engine: Engine, state: dict[str, Any], device: str | torch.device = "cpu") -> None:
        """Write the state of a trainer after every epoch, on rank 0, and begin its run where the newest one stood.

        The state is loaded when the run starts: what a trainer makes at that moment, as its loss scales, is there then.
        """
        if self.newest is not None:
            loader = CheckpointLoader(str(self.newest), state, map_location=torch.device(device))  # type: ignore[arg-type]
            loader.attach(engine)
            if idist.get_rank() == 0:
                logger.info("training goes on after epoch %s", self.newest.stem.rpartition("=")[2])
        if idist.get_rank() == 0:
            AtomicCheckpointSaver(str(self.folder), state, save_interval=1, n_saved=2).attach(engine)


class GradScalers:
    """The loss scales of a trainer in mixed precision, as a part of its checkpoints.

    MONAI's trainers keep them out: a resumed training would begin with the scale of a fresh one, skip steps until it
    fits again, and end with other weights.

    Args:
        trainer: of MONAI, with or without mixed precision.
    """

    def __init__(self, trainer: Engine) -> None:
        self.trainer = trainer

    def _scalers(self) -> Iterator[tuple[str, Any]]:
        for name in ("scaler", "g_scaler", "d_scaler"):
            for owner in (self.trainer, self.trainer.state):
                found = getattr(owner, name, None)
                if found is not None:
                    yield name, found
                    break

    def state_dict(self) -> dict[str, Any]:
        """States by name; empty without mixed precision."""
        return {name: scaler.state_dict() for name, scaler in self._scalers()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore those that the checkpoint knows."""
        for name, scaler in self._scalers():
            if state.get(name):
                scaler.load_state_dict(state[name])


def last_checkpoint(folder: Path, identity: str) -> Path | None:
    """The newest whole checkpoint of this very run.

    Checkpoints of another run are moved to ``superseded`` with their logs, in place of what is there; a damaged one is
    removed, and the one before is taken.

    Args:
        folder: of the checkpoints of one training.
        identity: its fingerprint (``monai_memo.sealing.fingerprint``).

    Raises:
        TrainingError: the folder holds checkpoints or logs that are not known to be of a training with this library.
    """
    marker, logs = folder / MARKER, folder / LOGS
    for leftover in folder.glob(".checkpoint_epoch=*.pt"):
        leftover.unlink(missing_ok=True)  # of a process that was killed while it wrote one
    found = sorted(
        (path for path in folder.glob("checkpoint_epoch=*.pt") if _epoch(path).isdigit()),
        key=lambda path: int(_epoch(path)),
        reverse=True,
    )
    if not marker.exists() and not found and not logs.exists():
        write_json(marker, {"fingerprint": identity})
        return None
    earlier = _marked(folder)
    if earlier == identity:
        return _newest_whole(found, identity)
    mine = [path for path in found if _identity(path) == identity]
    if mine:  # the marker was damaged, or a process was killed while it made room
        write_json(marker, {"fingerprint": identity})
        return _newest_whole(mine, identity)
    if earlier is None:
        sealed = next((known for path in found if (known := _identity(path)) is not None), None)
        if sealed is None:
            _begin_anew(folder, found)
            write_json(marker, {"fingerprint": identity})
            return None
        write_json(marker, {"fingerprint": sealed})
    logger.info("%s holds another training: starting anew, the earlier one is kept in %s", folder, SUPERSEDED)
    _move_aside(folder, found)
    # Last, so that a kill before this line leaves a folder that is still cleared next time.
    write_json(marker, {"fingerprint": identity})
    return None


def _begin_anew(folder: Path, found: list[Path]) -> None:
    """Clear a folder of whose training nothing whole is left; what may be somebody else's is refused and stays.

    Raises:
        TrainingError: nothing shows that the files are ours.
    """
    if WORK not in folder.absolute().parts:  # a working folder is ours, whatever has happened to its files
        rest = (
            f"{MARKER}, {LOGS} or checkpoints there are damaged, or not of a training of this library. They are left "
            "as they are: move them away, and the training begins anew, or name another folder."
        )
        raise TrainingError(f"cannot train in {folder}: {rest}", f"cannot train in the folder: {rest}")
    logger.warning("%s holds a training of which nothing whole is left: it begins anew", folder)
    for path in found:
        path.unlink()
    shutil.rmtree(folder / LOGS, ignore_errors=True)


def _newest_whole(found: list[Path], identity: str) -> Path | None:
    for path in found:
        known = _identity(path)
        if known == identity:
            for older in found[found.index(path) + 2 :]:  # left by runs that were killed
                older.unlink(missing_ok=True)
            return path
        if known is None:
            logger.warning("%s is damaged: going on from the checkpoint before", path)
        else:
            logger.warning("%s belongs to another training: going on from the checkpoint before", path)
        path.unlink()
    return None


def _identity(path: Path) -> str | None:
    try:
        return sealed_identity(path)
    except (OSError, ValueError):
        return None


def _marked(folder: Path) -> str | None:
    """Fingerprint of the training that a folder belongs to; None where there is none."""
    try:
        return str(json.loads((folder / MARKER).read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _move_aside(folder: Path, checkpoints: list[Path]) -> None:
    """Keep the training that was here: one generation of it, which a mistyped option would else cost."""
    aside = folder / SUPERSEDED
    if aside.exists() and _marked(aside) is None:
        raise TrainingError(f"{aside} is not of a training of this library. It is left as it is: move it away.")
    if checkpoints:
        if _marked(aside) != _marked(folder):  # else a process was killed in these very lines
            shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / MARKER, aside / MARKER)
        for path in checkpoints:
            os.replace(path, aside / path.name)
        if (folder / LOGS).exists():
            os.replace(folder / LOGS, aside / LOGS)
    shutil.rmtree(folder / LOGS, ignore_errors=True)


def _epoch(path: Path) -> str:
    return path.stem.rpartition("=")[2]

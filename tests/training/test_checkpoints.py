# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training: sealed, newest whole one first, and those of another training kept aside."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine

from monai_memo.errors import OutputError, TrainingError
from monai_memo.training.checkpoints import AtomicCheckpointSaver, GradScalers, last_checkpoint
from monai_memo.workspace.place import WORK

MINE, OTHER = "a" * 64, "b" * 64


def train(folder: Path, identity: str, epochs: int = 3) -> torch.Tensor:
    """A training whose weights count its steps."""
    checkpoint = last_checkpoint(folder, identity)
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)

    def step(engine: Engine, batch: int) -> None:
        with torch.no_grad():
            network.weight += 1

    engine = Engine(step)
    state = {"network": network, "trainer": engine}
    AtomicCheckpointSaver(str(folder), state, save_interval=1, n_saved=2).attach(engine)
    if checkpoint is not None:
        found = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(found["network"])
        engine.load_state_dict(found["trainer"])
    engine.run([1, 2], max_epochs=epochs)
    return network.weight.detach()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pt"))


def test_every_damage_is_noticed_and_the_checkpoint_before_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, MINE)
    newest = tmp_path / "checkpoint_epoch=3.pt"
    content = newest.read_bytes()
    for place in range(0, len(content), 97):
        newest.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        found = last_checkpoint(tmp_path, MINE)
        assert found is not None and found.name == "checkpoint_epoch=2.pt", place
    assert "checkpoint_epoch=3.pt is damaged: going on from the checkpoint before" in caplog.text
    newest.write_bytes(content[:1000])
    assert float(train(tmp_path, MINE)) == 6
    for path in tmp_path.glob("*.pt"):
        path.write_bytes(b"")
    assert float(train(tmp_path, MINE)) == 6, "from the start, where none is whole"


def test_another_training_is_kept_aside(tmp_path: Path) -> None:
    train(tmp_path, MINE)
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    assert float(train(tmp_path, OTHER, 2)) == 4
    aside = tmp_path / "superseded"
    assert names(aside) == ["checkpoint_epoch=2.pt", "checkpoint_epoch=3.pt"] and (aside / "tensorboard").exists()
    assert json.loads((aside / "run.json").read_text()) == {"fingerprint": MINE}
    assert not (tmp_path / "tensorboard").exists() and (tmp_path / "notes.txt").read_text() == "mine"
    # It can be gone back to; and the one that was here meanwhile is kept instead.
    for path in aside.glob("*.pt"):
        os.replace(path, tmp_path / path.name)
    assert last_checkpoint(tmp_path, MINE) == tmp_path / "checkpoint_epoch=3.pt"
    (tmp_path / "superseded" / "run.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"superseded is not of a training of this library"):
        last_checkpoint(tmp_path, "c" * 64)


def test_a_kill_while_room_is_made_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, MINE)
    replace, moved = os.replace, []

    def killed(source: Any, target: Any) -> None:
        if len(moved) == 1 and "superseded" in str(target):
            raise KeyboardInterrupt
        moved.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        patch.setattr("monai_memo.training.checkpoints.write_json", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            last_checkpoint(tmp_path, OTHER)
    assert last_checkpoint(tmp_path, OTHER) is None
    assert names(tmp_path / "superseded") == ["checkpoint_epoch=2.pt", "checkpoint_epoch=3.pt"]


def test_a_damaged_marker_does_not_cost_the_training(tmp_path: Path) -> None:
    train(tmp_path, MINE)
    for text in ("", "{", '{"fingerprint": "' + "c" * 64 + '"}'):
        (tmp_path / "run.json").write_text(text)
        assert last_checkpoint(tmp_path, MINE) == tmp_path / "checkpoint_epoch=3.pt"
        assert json.loads((tmp_path / "run.json").read_text()) == {"fingerprint": MINE}


def test_with_marker_and_checkpoints_damaged_the_training_begins_anew_or_the_remedy_is_told(tmp_path: Path) -> None:
    for folder in (tmp_path / WORK / "training", tmp_path / "training"):
        train(folder, MINE)
        (folder / "run.json").write_text("{")
        for path in folder.glob("*.pt"):
            path.write_bytes(path.read_bytes()[:-1])
    assert float(train(tmp_path / WORK / "training", MINE)) == 6
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(
        TrainingError, match=r"are damaged, or not of a training.*move them away.*begins anew"
    ) as refused:
        train(folder, MINE)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert refused.value.plain is not None and str(tmp_path) not in refused.value.plain


def test_with_a_damaged_marker_another_training_is_kept_aside(tmp_path: Path) -> None:
    train(tmp_path, OTHER)
    (tmp_path / "run.json").write_text("{")
    assert float(train(tmp_path, MINE)) == 6
    assert names(tmp_path / "superseded") == ["checkpoint_epoch=2.pt", "checkpoint_epoch=3.pt"]
    assert json.loads((tmp_path / "superseded" / "run.json").read_text()) == {"fingerprint": OTHER}


def test_a_checkpoint_that_was_copied_from_another_training_is_not_used(tmp_path: Path) -> None:
    train(tmp_path / "a", MINE)
    train(tmp_path / "b", OTHER, 2)
    os.replace(tmp_path / "a" / "checkpoint_epoch=3.pt", tmp_path / "b" / "checkpoint_epoch=3.pt")
    assert last_checkpoint(tmp_path / "b", OTHER) == tmp_path / "b" / "checkpoint_epoch=2.pt"


def test_what_killed_processes_left_does_not_pile_up(tmp_path: Path) -> None:
    for epochs in (2, 4, 6):
        train(tmp_path, MINE, epochs)
    (tmp_path / ".checkpoint_epoch=7.abcd.pt").write_bytes(b"half")
    last_checkpoint(tmp_path, MINE)
    assert names(tmp_path) == ["checkpoint_epoch=5.pt", "checkpoint_epoch=6.pt"]
    assert not (tmp_path / ".checkpoint_epoch=7.abcd.pt").exists()


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, MINE, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.pt")}

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OutputError, match=r"cannot write the checkpoint .*epoch=3\.pt.*No space.*The one before"):
            train(tmp_path, MINE, 4)
        with pytest.raises(OutputError, match=r"No space.*It was the first one.*begins anew"):
            train(tmp_path / "new", MINE, 4)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.pt")} == before
    assert float(train(tmp_path, MINE, 4)) == 8


def test_loss_scales_of_mixed_precision_belong_to_a_checkpoint() -> None:
    engine = Engine(lambda engine, batch: None)
    assert GradScalers(engine).state_dict() == {}
    engine.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)  # type: ignore[attr-defined]
    engine.state.g_scaler = torch.amp.GradScaler("cpu", init_scale=16.0)  # type: ignore[attr-defined]
    kept = GradScalers(engine).state_dict()
    assert {name: state["scale"] for name, state in kept.items()} == {"scaler": 4.0, "g_scaler": 16.0}
    fresh = Engine(lambda engine, batch: None)
    fresh.scaler = torch.amp.GradScaler("cpu")  # type: ignore[attr-defined]
    GradScalers(fresh).load_state_dict(kept)
    assert fresh.scaler.get_scale() == 4.0  # type: ignore[attr-defined]

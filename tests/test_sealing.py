# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""One fingerprint of everything that changes a result; files that know whether they are still whole."""

from __future__ import annotations

import errno
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

from monai_memo import sealing
from monai_memo.errors import OutputError
from monai_memo.sealing import (
    DamagedError,
    fingerprint,
    is_sealed,
    load_torch,
    read_sealed_json,
    require_space,
    save_torch,
    sealed_identity,
    write_sealed,
    write_sealed_json,
)
from monai_memo.training.schedules import cosine_schedule

MINE, OTHER = "a" * 64, "b" * 64


def network(**changed: Any) -> DiffusionModelUNet:
    settings: dict[str, Any] = {
        "spatial_dims": 2, "in_channels": 2, "out_channels": 2, "channels": (8, 8), "attention_levels": (False, True),
        "num_head_channels": (0, 8), "num_res_blocks": 1, "norm_num_groups": 4,
    }  # fmt: skip
    return DiffusionModelUNet(**{**settings, **changed})


def test_settings_of_a_network_that_no_weight_shows_change_the_fingerprint() -> None:
    same = [fingerprint("training", network()) for _ in range(2)]
    changed = [
        fingerprint("training", network(**{name: value}))
        for name, value in (("norm_num_groups", 2), ("num_head_channels", (0, 4)), ("norm_eps", 1e-5))
    ]
    assert same[0] == same[1], "random weights that are going to be trained do not count"
    assert len({same[0], *changed}) == 4


def test_everything_that_a_training_is_made_from_counts() -> None:
    def made(
        rate: float = 1e-3, noise: Any = None, warmup: float = 0.1, values: Any = None, device: str = "cpu"
    ) -> str:
        optimizer = torch.optim.Adam(torch.nn.Linear(2, 2).parameters(), rate)
        parts = {
            "optimizer": optimizer,
            "schedule": cosine_schedule(optimizer, 10, warmup),
            "noise": noise or DDPMScheduler(20),
            "loss": torch.nn.MSELoss(),
            "device": torch.device(device),
            "path": Path("a"),
        }
        return fingerprint("training", parts, [np.arange(6) if values is None else values])

    assert made() == made() == made(device="cpu:0")
    different = [
        made(), made(rate=2e-3), made(noise=DDIMScheduler(20)), made(noise=DDPMScheduler(20, beta_end=0.03)),
        made(noise=DDPMScheduler(20, prediction_type="v_prediction")), made(warmup=0.2), made(device="cuda"),
        made(values=np.arange(6).reshape(2, 3)), made(values=np.arange(6, dtype=np.int32)), made(values=-np.arange(6)),
    ]  # fmt: skip
    assert len(set(different)) == len(different)


def test_frozen_weights_count(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    before = fingerprint("loss", frozen)
    frozen.weight += 1
    assert fingerprint("loss", frozen) != before


def test_kinds_and_versions_count_and_what_cannot_be_described_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fingerprint("latents", 1) != fingerprint("pixels", 1)
    before, free = fingerprint("latents", 1), fingerprint("run", 1, packages=())
    monkeypatch.setattr(sealing, "package_version", lambda name: "99.0")
    assert fingerprint("latents", 1) != before and fingerprint("run", 1, packages=()) == free
    with pytest.raises(TypeError, match="generator cannot be described"):
        fingerprint("latents", (i for i in range(3)))


@pytest.mark.parametrize("kind", ["npy", "npz", "pt"])
def test_a_sealed_file_is_an_ordinary_one_and_every_changed_byte_is_noticed(tmp_path: Path, kind: str) -> None:
    values = np.arange(12, dtype=np.float16).reshape(4, 3)
    writers: dict[str, Any] = {
        "npy": lambda path: np.save(path, values),
        "npz": lambda path: np.savez(path, values=values),
        "pt": lambda path: save_torch(path, {"values": torch.from_numpy(values)}),
    }
    path = write_sealed(tmp_path / f"file.{kind}", writers[kind], MINE)
    if kind == "pt":
        read: Any = load_torch(path)["values"].numpy()
    else:
        read = np.load(path, mmap_mode="r") if kind == "npy" else np.load(path)["values"]
    np.testing.assert_array_equal(read, values)
    assert sealed_identity(path) == MINE and is_sealed(path, MINE) and not is_sealed(path, OTHER)
    content = path.read_bytes()
    for place in range(0, len(content), 1 if len(content) < 1500 else 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        assert not is_sealed(path, MINE), place
    for length in range(0, len(content), 13):
        path.write_bytes(content[:length])
        assert not is_sealed(path, MINE), length
    path.write_bytes(content[:-200] + content[-199:])
    with pytest.raises(DamagedError):
        sealed_identity(path)


def test_what_is_wrong_with_a_cache_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_sealed(tmp_path / "x.npy", partial(_save, np.zeros(3)), MINE)
    assert not is_sealed(tmp_path / "missing.npy", MINE) and caplog.text == ""
    path.write_bytes(path.read_bytes()[:-300] + b"\0" * 5 + path.read_bytes()[-295:])
    assert not is_sealed(path, MINE)
    assert "x.npy is damaged: it is made again" in caplog.text


def _save(values: Any, path: Path) -> None:
    np.save(path, values)


def test_sealed_json_is_none_where_a_number_was_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_sealed_json(tmp_path / "latents.json", {"identity": MINE, "scale_factor": 1.25})
    assert read_sealed_json(path) == {"identity": MINE, "scale_factor": 1.25}
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "scale_factor": 1.5}))
    assert read_sealed_json(path) is None and "latents.json is damaged" in caplog.text
    for text in ("", "{", "[]", "nan", "[" * 100_000, '{"scale_factor": 1.25}'):
        path.write_text(text)
        assert read_sealed_json(path) is None, text[:20]
    path.write_bytes(b"\xff\xfe")
    assert read_sealed_json(path) is None


def test_pytorchs_complaint_about_a_full_disk_becomes_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sealed(tmp_path / "x.pt", lambda temporary: save_torch(temporary, {"x": 1}), MINE)
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:783] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match=r"cannot write .*x\.pt: No space left on device"):
        write_sealed(path, lambda temporary: save_torch(temporary, {"x": 2}), MINE)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OutputError, match="Input/output error"):
        write_sealed(path, lambda temporary: save_torch(temporary, {"x": 2}), MINE)


def test_what_cannot_be_written_is_refused_before_it_is_begun(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "there" / "yet", 10, "the cohort")
    with pytest.raises(OutputError, match=r"the cohort needs 1,000,000,000,000 MB in .*, [\d,]+ MB are free"):
        require_space(tmp_path, 10**18, "the cohort")

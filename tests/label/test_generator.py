# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Samples by folder, from a stand-in for a generator bundle."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from monai_memo.data.reading import read_image
from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.label.generator import check_bundle, sample_from_bundle


def write_bundle(root: Path, modality: str = "chest") -> Path:
    """A bundle that writes phantoms: takes n_samples, seed and output_dir as generator bundles do."""
    configs = root / "configs"
    configs.mkdir(parents=True)
    (configs / "common.json").write_text(json.dumps({"output_dir": "eval", "n_samples": 1, "seed": 0}))
    inference = {
        "imports": ["$from pathlib import Path"],
        "draw": {
            "_target_": "monai_memo.data.demo_cohorts.write_demo_cohorts", "_mode_": "callable",
            "folder": "@output_dir", "modality": modality, "n_train": 1, "n_heldout": 0, "n_synthetic": "@n_samples",
            "copy_share": 0.0, "seed": "@seed", "size": 32,
        },
        "run": ["$@draw()"],
    }  # fmt: skip
    (configs / "inference.json").write_text(json.dumps(inference))
    return root


def test_a_bundle_draws_by_seed(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    found = sample_from_bundle(bundle, tmp_path / "a", n=1, seed=3)
    assert len(found) == 2 and found[0].name == "synthetic_00000.png"
    image = read_image(found[0]).array
    assert image.shape == (1, 32, 32) and np.ptp(image) > 50


def test_what_is_wrong_with_a_bundle_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"configs/inference\.json is missing"):
        check_bundle(tmp_path)
    bundle = write_bundle(tmp_path / "bundle")
    with pytest.raises(MemoError, match=r"within 0\.01 seconds"):
        sample_from_bundle(bundle, tmp_path / "out", timeout=0.01)
    ends = iter([(0, "", ""), (1, "", "Traceback\nValueError: no weights\n")])
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], *next(ends)))
    with pytest.raises(MemoError, match="wrote no image"):
        sample_from_bundle(bundle, tmp_path / "nothing")
    with pytest.raises(MemoError, match="bundle drew no sample: ValueError: no weights"):
        sample_from_bundle(bundle, tmp_path / "nothing")

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Keys and values of the bundles' configs are checked before anything is made of them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser, run

from monai_memo.detector.settings import DetectorBundleSettings
from monai_memo.errors import ConfigurationError
from monai_memo.generators.settings import GeneratorSettings
from monai_memo.settings import SettingsError
from monai_memo.settings.bundles import tell_plainly

ROOT = Path(__file__).parents[2]
BUNDLES = ROOT / "bundles"
GENERATORS = ("chest_xray_ldm", "ct_angiography_ldm", "knee_mri_ldm")
RUNS = [
    *(
        (bundle, name)
        for bundle in GENERATORS
        for name in ("train_autoencoder", "train_diffusion", "inference", "evaluate")
    ),
    *(("memorization_detection", name) for name in ("train", "inference", "evaluate")),
]


def settings_of(bundle: str, *names: str, **values: Any) -> Any:
    """What the first step of a run makes of a config."""
    parser = ConfigParser()
    parser.read_config([str(BUNDLES / bundle / "configs" / f"{name}.json") for name in names])
    parser.update(pairs=values)
    try:
        return parser.get_parsed_content("settings")
    except RuntimeError as error:  # MONAI's word for whatever a component raises
        cause = error.__cause__
        raise cause if cause is not None else error from None


@pytest.mark.parametrize(("bundle", "name"), RUNS)
def test_the_shipped_configs_are_within_their_own_ranges(bundle: str, name: str) -> None:
    model = DetectorBundleSettings if bundle == "memorization_detection" else GeneratorSettings
    small = ("small",) if bundle in GENERATORS else ()
    made = settings_of(bundle, name, *small)
    assert isinstance(made, model) and made.seed == 0
    config = json.loads((BUNDLES / bundle / "configs" / f"{name}.json").read_text())
    assert config["initialize"][0] == "$@settings", "it is checked first"


def test_a_misspelt_key_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(SettingsError, match=r"num_inference_step \(did you mean num_inference_steps\?\)"):
        settings_of("chest_xray_ldm", "inference", num_inference_step=5)
    with pytest.raises(SettingsError, match=r"unknown option recipee \(did you mean recipe\?\)"):
        settings_of("memorization_detection", "train", recipee="paper")


def test_a_key_of_ones_own_that_is_referred_to_is_accepted() -> None:
    made = settings_of("chest_xray_ldm", "inference", mine=5, sampling_batch_size="@mine")
    assert made.sampling_batch_size is None  # a reference is MONAI's to resolve


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps must be a whole number from 1"),
        ({"num_inference_steps": 2000}, "at most num_train_timesteps .1000., got 2000"),
        ({"num_train_timesteps": -1}, "num_train_timesteps must be"),
        ({"diffusion_batch_size": 0}, "diffusion_batch_size must be"),
        ({"sampling_batch_size": 1.5}, "sampling_batch_size must be .*, got 1.5"),
        ({"autoencoder_learning_rate": 0}, "autoencoder_learning_rate must be a number between 0 and 1"),
        ({"diffusion_learning_rate": float("nan")}, "diffusion_learning_rate must be .*, got nan"),
        ({"image_size": [64]}, "image_size must be"),
        ({"image_size": [64, 64, 64]}, "as many values as spatial_dims .2."),
        ({"diffusion_channels": [256, 512]}, "one value for each level"),
        ({"diffusion_norm_groups": 7}, "must divide each of diffusion_channels"),
        ({"beta_start": 0.5}, "beta_start 0.5 must be less than beta_end"),
        ({"seed": -1}, "seed must be"),
        ({"workers": 0}, "workers must be"),
        ({"progress": "perhaps"}, "progress must be True or False"),
        ({"augmentation": "some"}, "augmentation must be one of none, flips, flips and rotations"),
        ({"stop_above": 5}, "stop_above must be a number from -1 to 1"),
        ({"device": "tpu"}, "device must be auto, cpu"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        settings_of("chest_xray_ldm", "inference", **values)


def test_a_run_is_refused_before_it_reads_a_cohort(tmp_path: Path) -> None:
    configs = BUNDLES / "chest_xray_ldm" / "configs"
    files = [str(configs / f"{name}.json") for name in ("inference",)]
    with pytest.raises(RuntimeError) as caught:
        run(config_file=files, n_sample=3, output_dir=str(tmp_path))
    causes, error = [], caught.value.__cause__
    while error is not None:
        causes.append(str(error))
        error = error.__cause__
    assert any("unknown option n_sample (did you mean n_samples?)" in cause for cause in causes)
    assert not list(tmp_path.iterdir())


def bundle_run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As a user types it."""
    files = "configs/train_autoencoder.json"
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", files, *words]
    return subprocess.run(
        command, cwd=BUNDLES / "chest_xray_ldm", env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_a_refused_bundle_run_ends_with_the_message_and_no_traceback(tmp_path: Path) -> None:
    ended = bundle_run("--autoencoder_epochs", "0", "--output_dir", str(tmp_path / "out"))
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1] == (
        "monai-memo: autoencoder_epochs must be a whole number from 1 to 100000, got 0"
    )
    assert not (tmp_path / "out").exists()


def test_an_error_that_nobody_expects_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def hook_for(program: str) -> Any:
        monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec(program, None))
        tell_plainly()
        return sys.excepthook

    assert hook_for("pytest") is sys.__excepthook__, "nothing changes for who calls from Python"
    hook = hook_for("monai.bundle.__main__")
    tell_plainly()
    assert sys.excepthook is hook, "once is enough"
    hook(KeyError, KeyError("x"), None)
    assert "KeyError: 'x'" in capsys.readouterr().err
    wrapped = RuntimeError("Failed to instantiate component")
    for cause, message in (
        (ConfigurationError("name another folder"), "name another folder"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
    ):
        wrapped.__cause__ = cause
        with pytest.raises(SystemExit) as end:
            hook(RuntimeError, wrapped, None)
        shown = capsys.readouterr().err
        assert end.value.code == 2 and message in shown and "Failed" not in shown

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from torch import nn

from monai_memo.errors import ConfigurationError
from monai_memo.generators import memory
from monai_memo.generators.bundle_memory import bundle_steps, memory_table
from monai_memo.generators.memory import measure_step, step_memory


def test_counts_what_autograd_keeps() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 1, 3, padding=1))

    found = step_memory(build, (2, 1, 8, 8), copies=1)
    real = build()
    assert found.parameters == sum(parameter.numel() for parameter in real.parameters())
    assert found.weight_bytes == found.parameters * 4 * 5
    # The input, the first convolution's output (kept by SiLU) and SiLU's output (kept by the second convolution).
    assert found.activation_bytes == 4 * 2 * 64 * (1 + 4 + 4)
    assert step_memory(build, (4, 1, 8, 8)).activation_bytes == 2 * found.activation_bytes
    assert found.gib(autocast=True) < found.gib()
    assert all(parameter.device == torch.device("cpu") for parameter in real.parameters())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts resident memory")
def test_a_real_step_takes_what_was_foretold_and_its_gradients() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 1, 3, padding=1))

    foretold = step_memory(build, (8, 1, 256, 256)).activation_bytes
    assert foretold == 4 * 8 * 256**2 * (1 + 32 + 32)
    # Beside what is kept, one gradient of 32 channels or two are alive at a time.
    assert 0.9 * foretold < measure_step(build, (8, 1, 256, 256)) < 3 * foretold


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts resident memory")
def test_garbage_of_earlier_work_is_not_taken_off_the_peak() -> None:
    def build() -> nn.Module:
        gc.collect()  # as Python does by itself, now and then, in the middle of a step
        return nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 1, 3, padding=1))

    cycle: list[object] = [torch.rand(2**26)]
    cycle.append(cycle)
    del cycle
    assert measure_step(build, (8, 1, 256, 256)) > 0.9 * 4 * 8 * 256**2 * (1 + 32 + 32)


def test_systems_that_cannot_measure_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "PROCESS", tmp_path / "none")
    with pytest.raises(ConfigurationError, match="on Linux only"):
        measure_step(lambda: nn.Linear(1, 1), (1, 1))


@pytest.mark.parametrize("bundle", ["chest_xray_ldm", "knee_mri_ldm", "ct_angiography_ldm"])
def test_docs_state_the_memory_of_the_full_size(bundle: str) -> None:
    folder = Path(__file__).parents[2] / "bundles" / bundle
    assert memory_table(folder) in (folder / "docs" / "README.md").read_text(encoding="utf-8")


def test_a_bundle_s_steps_have_its_sizes() -> None:
    folder = Path(__file__).parents[2] / "bundles" / "knee_mri_ldm"
    steps = bundle_steps(folder, "small", batch_size=2, image_size=[16, 16, 16], latent_channels=4)
    assert steps["autoencoder"].inputs == ((2, 1, 16, 16, 16),)
    assert steps["diffusion model"].inputs == ((2, 4, 4, 4, 4), (2,)) and steps["diffusion model"].copies == 1
    # A smaller step can hide in memory that earlier work left to this process.
    larger = bundle_steps(folder, "small", batch_size=2, image_size=[48, 48, 48], latent_channels=4)
    assert larger["autoencoder"].measured() > 0
    assert all(parameter.device.type == "cpu" for parameter in steps["discriminator"].build().parameters())

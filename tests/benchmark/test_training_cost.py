# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What training a bundle takes: that both stages run and are described. No time is asserted."""

from __future__ import annotations

from pathlib import Path

import torch

from monai_memo.benchmark.training_cost import WARM_UP, Clock, time_stage
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "chest_xray_ldm"
TINY = {
    "profile": "small", "image_size": [16, 16], "workers": 1, "heldout_fraction": 0.5, "latent_variants": 2,
    "autoencoder_channels": [4, 8], "autoencoder_norm_groups": 4, "discriminator_channels": 4,
    "discriminator_layers": 1, "diffusion_channels": [8, 8], "diffusion_attention": [False, True],
    "diffusion_head_channels": [0, 8], "diffusion_norm_groups": 4, "num_train_timesteps": 20, "num_inference_steps": 2,
}  # fmt: skip


def test_both_stages_of_a_bundle_are_timed(tmp_path: Path) -> None:
    for i in range(12):
        save_image(tmp_path / "images" / f"p{i:02d}.png", chest_phantom(i, (32, 32)))
    data, out = str(tmp_path / "images"), tmp_path / "out"
    first = time_stage(BUNDLE, "train_autoencoder", data, out, 3, "cpu", **TINY)
    second = time_stage(BUNDLE, "train_diffusion", data, out, 2, "cpu", **TINY)
    assert (first["steps"], second["steps"]) == (3, 2)
    assert first["image_size"] == [16, 16] and first["batch_size"] == 8 and second["batch_size"] == 16
    assert first["seconds_a_step"] > 0 and second["peak_gib"] is None
    assert 0 < first["million_parameters"] < 1


def test_first_steps_are_not_timed() -> None:
    clock = Clock(torch.device("cpu"))
    clock.ends = [0.0, *(10.0 * (i + 1) for i in range(WARM_UP)), 51.0, 52.0, 53.0]
    assert clock.seconds == 1.0

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Models in closed form, and a bundle that takes a second to train."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, Scheduler
from numpy.typing import NDArray

from monai_memo.data.cohort import Cohort
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image
from monai_memo.generators.conditions import ConditionCode, columns_of
from monai_memo.generators.first_stage import PixelSpace
from monai_memo.generators.guidance import Guided, with_code
from monai_memo.generators.latent_diffusion import LatentDiffusion
from monai_memo.generators.weights import save_weights
from monai_memo.membership.attack import Group
from monai_memo.membership.denoiser import Denoiser
from monai_memo.study.memorizer import ClosedFormMemorizer
from tests.generators.conftest import tiny_diffusion

SIZE = (16, 16)
LABELS = ("normal", "pneumonia")


def images(first: int, count: int) -> NDArray[np.float32]:
    return np.stack([chest_phantom(first + number, SIZE) for number in range(count)])


def group(first: int, count: int, each: int = 1) -> Group:
    return Group(images(first, count), [f"{first}-{number // each}" for number in range(count)])


def scheduler(**further: Any) -> Scheduler:
    return DDIMScheduler(100, schedule="scaled_linear_beta", clip_sample=False, **further)


def memorizer(pixels: NDArray[np.floating], noise: Scheduler | None = None, spread: float = 0.0) -> Denoiser:
    """Of images in pixel space: its score is that of these images and of no others.

    Args:
        spread: of the cloud around each image, so that it also denoises what is not one of them.
    """
    chosen = noise or scheduler()
    stage = PixelSpace()
    latents = stage.encode_stage_2_inputs(torch.from_numpy(np.asarray(pixels, dtype=np.float32)))
    if spread:
        latents = latents + spread * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    network: Any = ClosedFormMemorizer(latents, chosen)
    return Denoiser(LatentDiffusion(stage, network, chosen, 1.0, (1, *SIZE), 4, 16))


class ByClass(torch.nn.Module):
    """Remembers the images of each class where it is told the class, and others where it is told nothing."""

    def __init__(self, classes: Sequence[NDArray[np.floating]], noise: Scheduler) -> None:
        super().__init__()
        self.memories = torch.nn.ModuleList(memorizer(pixels, noise).model.diffusion for pixels in classes)

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        times = timesteps.expand(len(x))
        rows = [self.memories[int(label)](x[i : i + 1], times[i : i + 1]) for i, label in enumerate(class_labels)]
        return torch.cat(rows)


def told_memorizer(
    pixels: NDArray[np.floating], rows: Sequence[Mapping[str, str]], noise: Scheduler | None = None, scale: float = 1.0
) -> Denoiser:
    """Of images of two classes, each of which it remembers only if it is told the class."""
    code, chosen = ConditionCode.of(rows, "label"), noise or scheduler()
    classes = [pixels[[row["label"] == name for row in rows]] for (name,) in code.classes]
    network: Any = Guided(ByClass([*classes, images(7000, len(pixels))], chosen), code, scale)
    return Denoiser(LatentDiffusion(PixelSpace(), network, chosen, 1.0, (1, *SIZE), 4, 16))


CONFIG: dict[str, Any] = {
    "first_stage": "none",
    "preprocessing": {"_target_": "monai_memo.data.loading.Preprocessing", "spatial_dims": 2, "size": [16, 16]},
    "latent_shape": [1, 16, 16],
    "network_def": {
        "_target_": "monai.networks.nets.DiffusionModelUNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 1,
        "channels": [8, 8], "attention_levels": [False, True], "num_head_channels": [0, 8], "num_res_blocks": 1,
        "norm_num_groups": 4,
    },
    "noise_scheduler": {
        "_target_": "monai.networks.schedulers.DDIMScheduler", "num_train_timesteps": 20,
        "schedule": "scaled_linear_beta", "clip_sample": False,
    },
    "diffusion_file": "$@bundle_root + '/models/model.pt'",
}  # fmt: skip


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusion model of pixels whose weights nobody trained."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "configs").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(CONFIG))
    torch.manual_seed(0)
    save_weights(folder / "models" / "model.pt", tiny_diffusion(channels=1), scale_factor=1.0)
    torch.manual_seed(1)
    save_weights(folder / "models" / "other.pt", tiny_diffusion(channels=1), scale_factor=1.0)
    return folder


@pytest.fixture(scope="session")
def told_bundle(tmp_path_factory: pytest.TempPathFactory, cohorts: Path) -> Path:
    """A diffusion model that was trained with label and age; nobody trained its weights either."""
    folder = tmp_path_factory.mktemp("told")
    code = ConditionCode.of(columns_of(Cohort.from_source(cohorts / "train.csv", "training")), "label,age")
    takes = {name: getattr(code, name) for name in ("num_class_embeds", "with_conditioning", "cross_attention_dim")}
    network = {**CONFIG["network_def"], **takes}
    (folder / "configs").mkdir()
    (folder / "configs" / "inference.json").write_text(
        json.dumps({**CONFIG, "network_def": network, "guidance_scale": 0})
    )
    for number, name in enumerate(("model.pt", "other.pt")):
        torch.manual_seed(number)
        weights = tiny_diffusion(channels=1, **takes)
        for values in weights.parameters():  # before a training the last layer says zero, whatever it is told
            torch.nn.init.normal_(values, std=0.3)
        save_weights(folder / "models" / name, weights, scale_factor=1.0, **with_code({}, code))
    return folder


@pytest.fixture(scope="session")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train`` and ``heldout``: 12 and 14 patients, two images each, of every fourth patient an age is missing."""
    folder = tmp_path_factory.mktemp("cohorts")
    for name, first, patients in (("train", 0, 12), ("heldout", 500, 14)):
        lines = ["image,patient_id,label,age"]
        for number in range(2 * patients):
            save_image(folder / name / f"{number:02d}.png", chest_phantom(first + number, SIZE))
            told = f"{LABELS[number // 2 % 2]},{'' if number % 8 == 0 else 40 + number}"
            lines.append(f"{name}/{number:02d}.png,{name}-{number // 2:02d},{told}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder

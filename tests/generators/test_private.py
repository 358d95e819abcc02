# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Private steps of MONAI's diffusion model, against gradients taken one image at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn
from torch.utils.data import Dataset

from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.generators.private import BundlePrivacy, PoissonLoader, most_of_a_patient
from monai_memo.training.private import PrivacyBudget, PrivateTraining

pytest.importorskip("opacus")


def network(dims: int) -> DiffusionModelUNet:
    """With every kind of layer that a bundle can ask for: attention, cross-attention and classes."""
    torch.manual_seed(0)
    made = DiffusionModelUNet(
        spatial_dims=dims, in_channels=1, out_channels=1, channels=(4, 8), attention_levels=(False, True),
        num_head_channels=(0, 4), num_res_blocks=1, norm_num_groups=2, with_conditioning=True, cross_attention_dim=3,
        num_class_embeds=3,
    )  # fmt: skip
    for parameter in made.parameters():  # some begin at zero, and would hide gradients of others
        nn.init.normal_(parameter, std=0.3)
    return made.train()


@pytest.mark.parametrize("dims", [2, 3])
def test_each_image_is_clipped_by_itself_in_every_layer_of_the_network(dims: int) -> None:
    size, clip, n = (4,) * dims, 0.01, 3
    images, targets = torch.randn((2, n, 1, *size), generator=torch.Generator().manual_seed(1))
    told, classes = torch.randn((n, 2, 3)), torch.tensor([0, 1, 1])
    model = network(dims)

    def loss_of(part: slice) -> Tensor:
        found = model(images[part], torch.arange(n)[part] * 5, told[part], class_labels=classes[part])
        return nn.functional.mse_loss(found, targets[part])

    parameters = list(model.parameters())
    wanted = torch.zeros(sum(parameter.numel() for parameter in parameters))
    for i in range(n):
        gradients = torch.autograd.grad(loss_of(slice(i, i + 1)), parameters)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        assert flat.norm() > clip
        wanted += flat * clip / flat.norm()
    training = PrivateTraining(PrivacyBudget(8.0, 1e-3, clip, n=10, batch_size=5, steps=4), seed=0)
    training.noise_multiplier = 0.0
    before = torch.cat([parameter.detach().flatten().clone() for parameter in parameters])
    training.step(model, torch.optim.SGD(parameters, 1.0), n, loss_of)
    after = torch.cat([parameter.detach().flatten() for parameter in parameters])
    assert torch.allclose(before - after, wanted / 5, atol=1e-6)


class Numbers(Dataset[dict[str, Tensor]]):
    draws = True

    def __len__(self) -> int:
        return 3

    def __getitem__(self, key: Any) -> dict[str, Tensor]:
        position, number = key
        return {"image": torch.tensor([float(position), float(number)])}


def test_batches_have_any_number_of_images_and_none_as_well() -> None:
    training = PrivateTraining(PrivacyBudget(8.0, 1e-3, 1.0, n=3, batch_size=1, steps=60), seed=0)
    batches = list(PoissonLoader(Numbers(), training, steps=60))
    sizes = {len(batch["image"]) if batch else 0 for batch in batches}
    assert len(batches) == 60 and {0, 1, 2} <= sizes
    versions = torch.cat([batch["image"][:, 1] for batch in batches if batch])
    assert len(versions.unique()) > 30, "each time another version of an image"


def test_the_patient_with_the_most_images_counts() -> None:
    images = tuple(CohortImage(Path(f"{i}.png"), f"{i}.png", patient) for i, patient in enumerate("abbcb"))
    assert most_of_a_patient(Cohort("training", images, "none", True)) == 3
    assert most_of_a_patient(Cohort("training", images, "none", False)) is None


def test_the_first_stage_is_no_part_of_the_promise() -> None:
    images = tuple(CohortImage(Path(f"{i}.png"), f"{i}.png", str(i)) for i in range(10))
    cohort = Cohort("training", images, "none", True)
    latent = BundlePrivacy(cohort, PrivacyBudget(8.0, 1e-3, 1.0, 10, 4, 10), "vqvae").beside({})()["privacy"]
    assert "the first stage (vqvae), if it saw these patients" in latent["not_covered"]
    assert "DP-SGD) of the diffusion model only" in latent["statement"]
    plain = BundlePrivacy(cohort)
    assert plain.beside({"steps": 2})() == {"steps": 2} and plain.state_dict() == {} and plain.iteration is None

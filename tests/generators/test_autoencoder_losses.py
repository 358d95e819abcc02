# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.losses import PerceptualLoss
from monai.networks.nets import PatchDiscriminator, resnet10
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from monai_memo.errors import ConfigurationError
from monai_memo.generators.autoencoder_losses import AdversarialTerms, AutoencoderObjective
from monai_memo.generators.autoencoder_losses import kl_divergence as mine
from tests.generators.conftest import tiny_autoencoder


class Squared(nn.Module):
    """A perceptual network with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, found: Tensor, wanted: Tensor) -> Tensor:
        return self.weight * (found - wanted).square().mean()


def test_kl_divergence_is_that_of_torch() -> None:
    mean, sigma = torch.randn(4, 2, 8, 8), torch.rand(4, 2, 8, 8) + 0.1
    expected = kl_divergence(Normal(mean, sigma), Normal(0.0, 1.0)).sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(mine(mean, sigma), expected)


def test_objective_adds_its_terms_for_the_batch_it_ran(tmp_path: Path) -> None:
    network, images = tiny_autoencoder(), torch.rand(3, 1, 16, 16)
    with pytest.raises(RuntimeError, match="run the network"):
        AutoencoderObjective().loss(images, images)
    torch.save({"weight": torch.tensor(3.0)}, tmp_path / "weights.pt")
    objective = AutoencoderObjective(0.5, 2.0, Squared(), tmp_path / "weights.pt")
    found = objective(images, network)
    mean, sigma = network.encode(images)
    expected = (found - images).abs().mean() + 0.5 * mine(mean, sigma) + 2 * 3 * (found - images).square().mean()
    torch.testing.assert_close(objective.loss(found, images), expected)


def test_perceptual_term_needs_local_weights(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Nothing is downloaded"):
        AutoencoderObjective(perceptual_weight=1.0)
    with pytest.raises(ConfigurationError, match="no perceptual weights at"):
        AutoencoderObjective(1e-6, 1.0, Squared(), tmp_path / "nothing.pt")


class Hub:
    """What ``torch.hub`` would download, with random weights: a 3D ResNet's features."""

    asked = 0

    def load(self, *_: object, **__: object) -> nn.Module:
        self.asked += 1
        net = resnet10(spatial_dims=3, n_input_channels=1, num_classes=2, feed_forward=False, widen_factor=0.125)
        return nn.Sequential(net.conv1, net.bn1, nn.ReLU(), net.layer1, net.layer2)


def test_perceptual_term_takes_the_perceptual_loss_of_monai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setattr(torch.hub, "load", hub.load)

    def made() -> PerceptualLoss:
        with pytest.warns(UserWarning, match="channel"):
            return PerceptualLoss(3, network_type="medicalnet_resnet10_23datasets", is_fake_3d=False)

    saved, network = made(), made()
    torch.save(saved.state_dict(), tmp_path / "perceptual.pt")
    objective = AutoencoderObjective(0.0, 1.0, network, tmp_path / "perceptual.pt")
    assert hub.asked == 2, "the objective itself asks for nothing"
    images, autoencoder = torch.rand(2, 1, 16, 16, 16), tiny_autoencoder(3)
    found = objective(images, autoencoder)
    loss = objective.loss(found, images)
    torch.testing.assert_close(loss, (found - images).abs().mean() + saved(found, images))
    loss.backward()
    assert all(parameter.grad is not None for parameter in autoencoder.decoder.parameters())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(ConfigurationError, match="perceptual_weights_file"):
        torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
        AutoencoderObjective(0.0, 1.0, network, tmp_path / "other.pt")


def test_adversarial_terms_look_at_the_logits_alone() -> None:
    terms, one = AdversarialTerms(weight=0.5), torch.ones(2, 1, 4, 4)
    rubbish = torch.full((2, 8, 4, 4), 100.0)
    assert float(terms.generator([rubbish, one])) == 0
    assert float(terms.discriminator([rubbish, one], [rubbish, 0 * one])) == 0
    assert float(terms.generator([rubbish, 0 * one])) == pytest.approx(0.5)
    assert float(terms.discriminator([rubbish, 0 * one], [rubbish, one])) == pytest.approx(0.5)
    output = PatchDiscriminator(2, 4, 1, num_layers_d=1, norm="INSTANCE")(torch.rand(2, 1, 16, 16))
    assert terms.generator(output).requires_grad

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from generative.networks.nets import AutoencoderKL as OldAutoencoder
from generative.networks.nets import DiffusionModelUNet as OldDiffusion
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from torch import nn

from monai_memo.errors import GeneratorError
from monai_memo.generators.weights import load_weights, read_record, save_weights, weights_sha256

AUTOENCODER: dict[str, Any] = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 1,
    "num_res_blocks": (1, 1),
    "attention_levels": (False, True),
    "latent_channels": 2,
    "norm_num_groups": 4,
}
DIFFUSION: dict[str, Any] = {
    "spatial_dims": 2,
    "in_channels": 2,
    "out_channels": 2,
    "num_res_blocks": 1,
    "attention_levels": (False, True),
    "num_head_channels": (0, 8),
    "norm_num_groups": 4,
}


def randomised(network: nn.Module) -> nn.Module:
    """Weights that are nowhere zero: some layers start at zero, which would hide wrong ones."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.2)
    return network.eval()


@pytest.mark.parametrize("wrapped", ["plain", "nested", "parallel"])
def test_autoencoder_of_monai_generative_gives_the_same_output(tmp_path: Path, wrapped: str) -> None:
    old = randomised(OldAutoencoder(num_channels=(4, 8), **AUTOENCODER))
    content: Any = old.state_dict()
    assert any("to_q" in key and ".attn." not in key for key in content), "the older names"
    if wrapped == "nested":
        content = {"epoch": 3, "model": {"state_dict": content}}
    if wrapped == "parallel":
        content = {f"module.{key}": value for key, value in content.items()}
    torch.save(content, tmp_path / "old.pt")
    new = load_weights(AutoencoderKL(channels=(4, 8), **AUTOENCODER), tmp_path / "old.pt")
    images = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        expected, found = old.encode(images), new.encode(images)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(new.decode(found[0]), old.decode(expected[0]), atol=1e-5, rtol=0)


def test_diffusion_model_of_monai_generative_gives_the_same_output(tmp_path: Path) -> None:
    old = randomised(OldDiffusion(num_channels=(8, 8), **DIFFUSION))
    torch.save(old.state_dict(), tmp_path / "old.pt")
    new = load_weights(DiffusionModelUNet(channels=(8, 8), **DIFFUSION), tmp_path / "old.pt")
    latents, timesteps = torch.randn(2, 2, 8, 8), torch.tensor([3, 500])
    with torch.no_grad():
        torch.testing.assert_close(new(latents, timesteps), old(latents, timesteps), atol=1e-5, rtol=0)


def test_monai_core_weights_give_the_same_output(tmp_path: Path) -> None:
    first = randomised(DiffusionModelUNet(channels=(8, 8), **DIFFUSION))
    torch.save({"unet_state_dict": first.state_dict(), "scale_factor": 0.7}, tmp_path / "core.pt")
    second = load_weights(DiffusionModelUNet(channels=(8, 8), **DIFFUSION), tmp_path / "core.pt")
    latents, timesteps = torch.randn(2, 2, 8, 8), torch.tensor([3, 500])
    with torch.no_grad():
        torch.testing.assert_close(second(latents, timesteps), first(latents, timesteps), atol=1e-5, rtol=0)
    assert weights_sha256(first) == weights_sha256(second)


def test_saved_weights_come_back_with_their_record(tmp_path: Path) -> None:
    network = randomised(DiffusionModelUNet(channels=(8, 8), **DIFFUSION))
    path = save_weights(tmp_path / "model.pt", network, scale_factor=1.5, steps=3)
    assert read_record(path)["scale_factor"] == 1.5
    again = load_weights(DiffusionModelUNet(channels=(8, 8), **DIFFUSION), path)
    assert weights_sha256(again) == weights_sha256(network)


def test_missing_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    network = DiffusionModelUNet(channels=(8, 8), **DIFFUSION)
    before = weights_sha256(network)
    with pytest.raises(GeneratorError, match=r"no autoencoder weights at .*nothing\.pt"):
        load_weights(network, tmp_path / "nothing.pt", "autoencoder weights")
    path = save_weights(tmp_path / "model.pt", network)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "damaged.pt").write_bytes(content)
    with pytest.raises(GeneratorError, match="damaged"):
        load_weights(network, tmp_path / "damaged.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(GeneratorError, match="holds a list"):
        load_weights(network, tmp_path / "list.pt")
    other = save_weights(tmp_path / "other.pt", AutoencoderKL(channels=(4, 8), **AUTOENCODER))
    with pytest.raises(GeneratorError, match=r"other\.pt does not fit DiffusionModelUNet: .* missing, for example"):
        load_weights(network, other)
    wider = save_weights(tmp_path / "wider.pt", DiffusionModelUNet(channels=(16, 16), **DIFFUSION))
    with pytest.raises(GeneratorError, match=r"another shape, for example .*in the file"):
        load_weights(network, wider)
    assert weights_sha256(network) == before, "a refused file leaves the network as it was"


def test_weights_that_are_incomplete_are_not_filled_up_at_random(tmp_path: Path) -> None:
    old = OldAutoencoder(num_channels=(4, 8), **AUTOENCODER)
    weights = old.state_dict()
    weights.pop(next(key for key in weights if key.endswith("conv.weight")))
    torch.save(weights, tmp_path / "old.pt")
    with pytest.raises(GeneratorError, match="missing"):
        load_weights(AutoencoderKL(channels=(4, 8), **AUTOENCODER), tmp_path / "old.pt")

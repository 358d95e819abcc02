# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.schedulers import DDPMScheduler

from monai_memo.errors import ConfigurationError, GeneratorError
from monai_memo.generators.batches import LatentBatch
from monai_memo.generators.latents import encode_latents, latent_shape
from monai_memo.training.batches import SeededLoader
from monai_memo.views import Views
from tests.generators.conftest import tiny_autoencoder

PIXELS = np.random.default_rng(0).random((7, 1, 16, 16), dtype=np.float32)


def encode(folder: Path, autoencoder: Any, **arguments: Any) -> Any:
    settings: dict[str, Any] = {"shape": [2, 8, 8], "batch_size": 3, "progress": False, **arguments}
    return encode_latents(PIXELS, autoencoder, folder, "training", **settings)


def test_cache_holds_what_the_autoencoder_gives(tmp_path: Path) -> None:
    torch.manual_seed(0)
    autoencoder = tiny_autoencoder()
    latents = encode(tmp_path, autoencoder)
    with torch.no_grad():
        mean, sigma = autoencoder.encode(torch.from_numpy(PIXELS))
    np.testing.assert_allclose(latents.values[:, 0, 0], mean.numpy(), atol=2e-3)
    np.testing.assert_allclose(latents.values[:, 0, 1], sigma.numpy(), atol=2e-3)
    torch.manual_seed(1)
    drawn = torch.cat([mean + sigma * torch.randn_like(sigma) for _ in range(200)])
    assert latents.scale_factor == pytest.approx(1 / float(drawn.std()), rel=0.02)
    assert latents[3]["image"].shape == (2, 2, 8, 8)


def test_cache_is_read_again_unless_weights_or_settings_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    autoencoder = tiny_autoencoder()
    runs: list[int] = []
    original = autoencoder.encode
    monkeypatch.setattr(autoencoder, "encode", lambda x: runs.append(len(x)) or original(x))
    first = encode(tmp_path, autoencoder)
    assert runs == [3, 3, 1]
    np.testing.assert_array_equal(encode(tmp_path, autoencoder).values, first.values)
    assert len(runs) == 3
    augmented = encode(tmp_path, autoencoder, views=Views.paper(), variants=3)
    assert augmented.values.shape == (7, 3, 2, 2, 8, 8)
    np.testing.assert_array_equal(augmented.values[:, 0], first.values[:, 0])
    assert np.abs(augmented.values[:, 1] - augmented.values[:, 2]).max() > 0
    with torch.no_grad():
        autoencoder.post_quant_conv.conv.bias += 1
    assert len(runs) == 12
    encode(tmp_path, autoencoder)
    assert len(runs) == 15


def test_latents_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match=r"gives latents of \(2, 8, 8\), latent_shape is \(4, 8, 8\)"):
        encode(tmp_path, tiny_autoencoder(), shape=[4, 8, 8])
    assert not list(tmp_path.glob("*.npy"))
    with pytest.raises(ConfigurationError, match="must be divisible by 4"):
        latent_shape([30, 32], 2, levels=3)


def test_batches_are_scaled_to_unit_variance(tmp_path: Path) -> None:
    torch.manual_seed(0)
    latents = encode(tmp_path, tiny_autoencoder())
    batch = {"image": torch.stack([latents[i]["image"] for i in range(7)]).repeat(50, 1, 1, 1, 1)}
    images, noise, _, arguments = LatentBatch(latents.scale_factor, DDPMScheduler(20))(batch)
    assert float(images.std()) == pytest.approx(1, rel=0.05)
    assert torch.equal(noise, arguments["noise"])
    assert int(arguments["timesteps"].min()) >= 0 and int(arguments["timesteps"].max()) == 19


def test_velocity_leads_back_to_latents_and_noise() -> None:
    torch.manual_seed(0)
    scheduler = DDPMScheduler(20, schedule="scaled_linear_beta", prediction_type="v_prediction")
    batch = {"image": torch.rand(64, 2, 2, 8, 8)}
    images, velocity, _, arguments = LatentBatch(1.0, scheduler)(batch)
    kept = scheduler.alphas_cumprod[arguments["timesteps"]].view(-1, 1, 1, 1)
    noisy = scheduler.add_noise(images, arguments["noise"], arguments["timesteps"])
    torch.testing.assert_close(kept.sqrt() * noisy - (1 - kept).sqrt() * velocity, images)
    torch.testing.assert_close((1 - kept).sqrt() * noisy + kept.sqrt() * velocity, arguments["noise"])
    with pytest.raises(ConfigurationError, match="must be epsilon or v_prediction"):
        LatentBatch(1.0, DDPMScheduler(20, prediction_type="sample"))


def test_an_altered_cache_is_made_again_and_never_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    autoencoder = tiny_autoencoder()
    first = encode(tmp_path, autoencoder, views=Views.paper(), variants=2)
    expected, factor = np.array(first.values), first.scale_factor
    path, marker = tmp_path / "training.npy", tmp_path / "training.json"
    del first

    def same() -> bool:
        again = encode(tmp_path, autoencoder, views=Views.paper(), variants=2)
        return bool((np.array(again.values) == expected).all()) and again.scale_factor == factor

    record = json.loads(marker.read_text())
    marker.write_text(json.dumps({**record, "scale_factor": 2 * factor}))
    assert same() and "training.json is damaged" in caplog.text
    content = path.read_bytes()
    for damaged in (content[:500], content[:500] + bytes([content[500] ^ 4]) + content[501:], b""):
        path.write_bytes(damaged)
        assert same()
    assert "training.npy is damaged" in caplog.text
    marker.write_text("{")
    assert same()


def test_the_norm_of_the_autoencoder_belongs_to_the_cache(tmp_path: Path) -> None:
    torch.manual_seed(0)
    autoencoder = tiny_autoencoder()
    first = np.array(encode(tmp_path, autoencoder).values)
    for layer in autoencoder.modules():
        if isinstance(layer, torch.nn.GroupNorm):
            layer.num_groups = 2  # the weights stay as they are
    assert np.abs(np.array(encode(tmp_path, autoencoder).values) - first).max() > 1e-3


def test_variants_are_drawn_by_epoch_and_step_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    latents = encode(tmp_path, tiny_autoencoder(), views=Views.paper(), variants=3)
    loader = SeededLoader(latents, 2, seed=1, steps=5)

    def epoch(number: int) -> torch.Tensor:
        loader.order.epoch = number
        return torch.cat([batch["image"] for batch in loader])

    torch.manual_seed(5)
    first = epoch(2)
    torch.manual_seed(6)
    torch.randn(3)
    assert torch.equal(epoch(2), first) and not torch.equal(epoch(3), first)
    plain = {tuple(latents[i]["image"].flatten().tolist()) for i in range(7)}
    drawn = [tuple(image.flatten().tolist()) in plain for image in torch.cat([epoch(i) for i in range(20)])]
    assert 0.2 < np.mean(drawn) < 0.47, "every third is the plain image"
    assert torch.equal(latents[4, 3]["image"], latents[4]["image"])

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What makes sampling and training copy less, on models in closed form: each test shows the effect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

from monai_memo.errors import ConfigurationError, GeneratorError
from monai_memo.generators.ambient import AmbientBatch, AmbientLatents, WeightedInferer
from monai_memo.generators.batches import LatentBatch
from monai_memo.generators.clean_latent import CorrectedDiffusion, Correction
from monai_memo.generators.dissimilarity import DissimilarityGuidance, nearness, nearness_limit
from monai_memo.generators.dropout import with_dropout
from monai_memo.generators.latents import Latents
from monai_memo.generators.lowest_loss import StopAtLowestLoss
from monai_memo.generators.rejection import RejectingGenerator
from monai_memo.generators.repellency import SparseRepellency, distances, shield_radius
from monai_memo.generators.weights import read_record
from monai_memo.study.memorizer import ClosedFormMemorizer

SHAPE = (2, 4, 4)


class Unchanged(Correction):
    def forward(self, noisy: Tensor, predict: Any, alpha: Tensor) -> Tensor:
        return predict(noisy)


def scheduler_of(kind: str = "epsilon") -> DDIMScheduler:
    scheduler = DDIMScheduler(
        num_train_timesteps=1000, schedule="scaled_linear_beta", beta_start=0.0015, beta_end=0.0205, clip_sample=False,
        prediction_type=kind,
    )  # fmt: skip
    scheduler.set_timesteps(25)
    return scheduler


def draw(network: nn.Module, scheduler: DDIMScheduler, n: int = 24) -> Tensor:
    noise = torch.randn((n, *SHAPE), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return DiffusionInferer(scheduler).sample(noise, network, scheduler, verbose=False)


def latents(n: int, seed: int) -> Tensor:
    return torch.randn((n, *SHAPE), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_shields_keep_the_samples_of_a_perfect_memorizer_away_from_every_training_latent(kind: str) -> None:
    training, scheduler = latents(20, 2), scheduler_of(kind)
    memorizer = ClosedFormMemorizer(training, scheduler)
    copies = distances(draw(memorizer, scheduler), training).min(dim=1).values
    assert copies.max() < 0.5, "all of its samples are training latents"
    radius = 0.5 * shield_radius(training, latents(50, 3), 0.05)
    shielded = CorrectedDiffusion(memorizer, scheduler, SparseRepellency(training, radius))
    assert distances(draw(shielded, scheduler), training).min() >= 0.99 * radius


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_correction_that_changes_nothing_leaves_the_samples_as_they_are(kind: str) -> None:
    training, scheduler = latents(5, 2), scheduler_of(kind)
    memorizer = ClosedFormMemorizer(training, scheduler)
    same = draw(CorrectedDiffusion(memorizer, scheduler, Unchanged()), scheduler)
    assert torch.allclose(same, draw(memorizer, scheduler), atol=1e-3)


def test_a_shield_moves_latents_straight_to_its_surface_and_leaves_others_alone() -> None:
    training = torch.zeros(1, *SHAPE)
    inside, outside = torch.full((1, *SHAPE), 0.1), torch.full((1, *SHAPE), 2.0)
    shield = SparseRepellency(training, radius=3.0)
    moved = shield(inside, lambda noisy: noisy, torch.tensor(0.5))
    assert torch.allclose(moved.flatten().norm(), torch.tensor(3.0))
    assert torch.allclose(moved / moved.norm(), inside / inside.norm())
    assert torch.equal(shield(outside, lambda noisy: noisy, torch.tensor(0.5)), outside)


def test_the_radius_leaves_the_asked_share_of_unseen_patients_within_shields() -> None:
    training, heldout = latents(40, 2), latents(200, 3)
    radius = shield_radius(training, heldout, 0.1)
    inside = (distances(heldout, training).min(dim=1).values < radius).float().mean()
    assert inside == pytest.approx(0.1, abs=0.01)
    with pytest.raises(ConfigurationError, match="repel must lie between 0 and 1"):
        shield_radius(training, heldout, 1.5)


def test_guidance_away_from_the_nearest_latent_grows_with_its_scale_and_spares_what_is_not_near() -> None:
    training, scheduler = latents(20, 2), scheduler_of()
    memorizer = ClosedFormMemorizer(training, scheduler)
    limit = nearness_limit(training, latents(100, 3))

    def apart(scale: float) -> float:
        guided = CorrectedDiffusion(memorizer, scheduler, DissimilarityGuidance(training, limit, scale))
        return float(nearness(draw(guided, scheduler), training).mean())

    plain = float(nearness(draw(memorizer, scheduler), training).mean())
    weak, strong = apart(5.0), apart(50.0)
    assert plain < weak < strong
    far = DissimilarityGuidance(training, limit=0.0, scale=50.0)
    same = draw(CorrectedDiffusion(memorizer, scheduler, far), scheduler)
    assert torch.allclose(same, draw(memorizer, scheduler), atol=1e-3)


class HalfCopies:
    """Every other image is a copy: its first value is 1."""

    spatial_dims, batch_size, parameters = 2, 4, 7

    def sample(self, seeds: Sequence[int], conditions: Any = None) -> np.ndarray:
        return np.stack([np.full((1, 4, 4), seed % 2 if seed < 10**6 else (seed // 2) % 3 == 0) for seed in seeds])


def first_value(images: np.ndarray) -> np.ndarray:
    return np.asarray(images[:, 0, 0, 0], dtype=float)


def test_copies_are_drawn_again_from_seeds_of_their_own_until_none_is_left() -> None:
    rejecting = RejectingGenerator(HalfCopies(), first_value, 0.5, attempts=30)
    images = rejecting.sample(range(20))
    assert first_value(images).max() == 0 and len(images) == 20
    assert rejecting.rejected >= 10 and rejecting.drawn == 20 + rejecting.rejected
    assert np.array_equal(images[:6], rejecting.sample(range(6))), "equal seeds give equal images in any batch"
    assert (rejecting.spatial_dims, rejecting.batch_size, rejecting.parameters) == (2, 4, 7)


def test_a_generator_that_knows_copies_alone_ends_with_the_counts_and_nan_is_no_pass() -> None:
    with pytest.raises(GeneratorError, match=r"2 of 2 images are copies after 3 attempts each \(6 of 6 drawn"):
        RejectingGenerator(HalfCopies(), lambda images: np.ones(len(images)), 0.5, attempts=3).sample([1, 3])
    with pytest.raises(GeneratorError, match="2 of 2 images"):
        RejectingGenerator(HalfCopies(), lambda images: np.full(len(images), np.nan), 0.5, attempts=2).sample([0, 2])


def values(n: int, sigma: float = 0.3) -> Latents:
    found = np.stack([latents(n, 4).numpy(), np.full((n, *SHAPE), sigma)], axis=1)[:, None]
    return Latents(found.astype(np.float16), 1.5)


def ddpm(kind: str = "epsilon") -> DDPMScheduler:
    return DDPMScheduler(
        num_train_timesteps=1000, schedule="scaled_linear_beta", beta_start=0.0015, beta_end=0.0205, clip_sample=False,
        prediction_type=kind,
    )  # fmt: skip


def batch_of(data: AmbientLatents, repeats: int = 1) -> dict[str, Tensor]:
    items = [data[(place, 0)] for place in range(len(data))] * repeats
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_above_the_level_nothing_of_a_clean_latent_but_its_noisy_version_is_seen(kind: str) -> None:
    """Whatever is drawn, input and target are made of the one noisy latent, and noise: two clean latents with the same
    noisy one give the same input and the same target."""
    scheduler, level = ddpm(kind), 500
    prepare = AmbientBatch(1.0, scheduler, above=0.5)
    keep, share = (
        float(value) ** 0.5 for value in (scheduler.alphas_cumprod[level], 1 - scheduler.alphas_cumprod[level])
    )
    one, other = latents(1, 5), latents(1, 6)
    noise = latents(1, 7)
    # the same noisy latent: keep * one + share * noise == keep * other + share * further
    further = noise + keep / share * (one - other)
    seen = []
    for clean, own in ((one, noise), (other, further)):
        batch = {
            "image": torch.stack([clean, torch.zeros_like(clean)], dim=1).expand(64, -1, -1, -1, -1),
            "noise": torch.stack([torch.zeros_like(own), own], dim=1).expand(64, -1, -1, -1, -1),
        }
        torch.manual_seed(0)
        inputs, target, _, options = prepare(batch, "cpu")
        high = options["timesteps"] > level
        assert 10 < high.sum() < 54
        noisy = scheduler.add_noise(inputs, options["noise"], options["timesteps"])
        seen.append((noisy[high], target[high], target[~high]))
    assert torch.allclose(seen[0][0], seen[1][0], atol=1e-4)
    assert torch.allclose(seen[0][1], seen[1][1], atol=1e-3)
    assert (kind == "epsilon") or not torch.allclose(seen[0][2], seen[1][2]), "below the level it is the clean latent"


def test_the_expected_target_is_that_of_the_plain_loss() -> None:
    """What a linear network would learn, from many draws with fresh noise of their own, is the same for both losses."""
    n, scheduler = 40_000, ddpm()
    draws = torch.Generator().manual_seed(0)
    clean = torch.randn((n, 1, 1, 1), generator=draws) * 0.5 + 0.2
    image = torch.stack([clean, torch.zeros_like(clean)], dim=1)
    own = torch.stack([torch.zeros_like(clean), torch.randn(clean.shape, generator=draws)], dim=1)
    torch.manual_seed(1)
    inputs, target, _, options = AmbientBatch(1.0, scheduler, above=0.3)({"image": image, "noise": own}, "cpu")
    torch.manual_seed(2)
    plain_inputs, plain, _, plainly = LatentBatch(1.0, scheduler)({"image": image}, "cpu")

    def slope(inputs: Tensor, target: Tensor, options: dict[str, Tensor], weights: Tensor) -> float:
        steps = options["timesteps"]
        chosen = (steps > 400) & (steps < 500)
        noisy = scheduler.add_noise(inputs, options["noise"], steps)[chosen].flatten()
        weight, aim = weights[chosen].flatten(), target[chosen].flatten()
        return float((noisy * aim / weight).sum() / (noisy * noisy).sum())

    ambient = slope(inputs, target, options, options["weights"])
    assert ambient == pytest.approx(slope(plain_inputs, plain, plainly, torch.ones_like(plain)), abs=0.05)


def test_the_weighted_loss_stays_bounded_just_above_the_level() -> None:
    scheduler = ddpm()
    batch = batch_of(AmbientLatents(values(8)), repeats=200)
    torch.manual_seed(0)
    _, target, _, options = AmbientBatch(1.5, scheduler, above=0.3)(batch, "cpu")
    assert target.abs().max() < 8 and float(options["weights"].max()) <= 1.0
    assert "weights" not in LatentBatch(1.5, scheduler)({"image": batch["image"]}, "cpu")[3]
    plainly = AmbientBatch(1.5, scheduler, above=0.3)({"image": batch["image"]}, "cpu")
    assert "weights" not in plainly[3], "held-out images are measured by the plain loss"


def test_noise_belongs_to_the_image_and_stays_from_epoch_to_epoch() -> None:
    data = AmbientLatents(values(4), seed=3)
    assert torch.equal(data[(1, 0)]["noise"], data[(1, 0)]["noise"])
    assert not torch.equal(data[(1, 0)]["noise"], data[(2, 0)]["noise"])
    assert not torch.equal(data[(1, 0)]["noise"], AmbientLatents(values(4), seed=4)[(1, 0)]["noise"])
    with pytest.raises(ConfigurationError, match="ambient_above must lie between 0 and 1"):
        AmbientBatch(1.0, ddpm(), 1.0)


def test_weights_multiply_what_the_network_says() -> None:
    inferer, network = WeightedInferer(ddpm()), ClosedFormMemorizer(latents(3, 1), scheduler_of())
    noise, steps = latents(2, 8), torch.tensor([100, 900])
    plain = inferer(latents(2, 9), network, noise, steps)
    half = inferer(latents(2, 9), network, noise, steps, weights=torch.tensor([1.0, 0.5]).view(2, 1, 1, 1))
    assert torch.allclose(half[0], plain[0]) and torch.allclose(half[1], 0.5 * plain[1])


def unet() -> DiffusionModelUNet:
    torch.manual_seed(0)
    return DiffusionModelUNet(
        spatial_dims=2, in_channels=2, out_channels=2, channels=(8, 8), attention_levels=(False, False),
        num_res_blocks=1, norm_num_groups=4, num_head_channels=(0, 8),
    )  # fmt: skip


def test_dropout_draws_anew_while_training_and_rests_in_evaluation_with_the_same_weights() -> None:
    plain, dropped = unet(), with_dropout(unet(), 0.5)
    assert plain.state_dict().keys() == dropped.state_dict().keys()
    for network in (plain, dropped):
        for parameter in network.parameters():
            torch.manual_seed(parameter.numel())
            nn.init.normal_(parameter, std=0.2)  # the last convolutions begin at zero
    x, steps = latents(2, 3), torch.tensor([10, 20])
    with torch.no_grad():
        assert torch.equal(dropped.eval()(x, steps), plain.eval()(x, steps))
        dropped.train()
        assert not torch.equal(dropped(x, steps), dropped(x, steps))
        assert torch.equal(with_dropout(unet(), 0.0).train()(x, steps), unet().train()(x, steps))
    with pytest.raises(ConfigurationError, match="dropout must lie"):
        with_dropout(unet(), 1.0)
    with pytest.raises(ConfigurationError, match="Linear has no residual block"):
        with_dropout(nn.Linear(1, 1), 0.1)


def trained(folder: Path, losses: Sequence[float], patience: int | None, stop: Any = None) -> tuple[Any, Engine, float]:
    """A training whose weight is the number of the epoch, with these held-out losses."""
    network = nn.Linear(1, 1, bias=False)
    evaluator = Engine(lambda engine, batch: None)
    trainer = Engine(lambda engine, batch: nn.init.constant_(network.weight, float(engine.state.epoch)))
    handler = StopAtLowestLoss(
        evaluator, folder / "model.pt", folder / "kept.pt", network, patience, {"scale_factor": 2.0}
    )
    if stop is not None:
        handler.load_state_dict(stop)

    def validate(engine: Engine) -> None:
        evaluator.state.metrics["val_loss"] = losses[engine.state.epoch - 1]
        evaluator.run([0])

    @evaluator.on(Events.STARTED)
    def keep(engine: Engine) -> None:
        engine.state.metrics["val_loss"] = losses[trainer.state.epoch - 1]

    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    handler.attach(trainer)
    trainer.run([0], max_epochs=len(losses))
    path = folder / "model.pt"
    return handler, trainer, float(read_record(path)["state_dict"]["weight"]) if path.is_file() else float("nan")


@pytest.mark.parametrize(("losses", "said"), [([3.0, 1.0, 2.0, 4.0], True), ([4.0, 3.0, 1.0, 2.0], False)])
def test_a_lowest_loss_after_the_first_epochs_is_called_early(
    losses: list[float], said: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handler, _, _ = trained(tmp_path, losses, patience=2)
    assert handler.best_epoch == (2 if said else 3)
    assert ("look at samples before you use these weights" in caplog.text) == said


def test_the_training_stops_after_the_lowest_held_out_loss_and_ends_with_its_weights(tmp_path: Path) -> None:
    losses = [5.0, 3.0, 4.0, float("nan"), 6.0, 1.0]
    handler, trainer, weight = trained(tmp_path, losses, patience=3)
    assert trainer.state.epoch == 5 == handler.stopped_at, "three validations without a lower loss"
    assert handler.best_epoch == 2 and weight == 2.0
    assert read_record(tmp_path / "model.pt")["scale_factor"] == 2.0
    again, trainer, weight = trained(tmp_path, losses, patience=3, stop=handler.state_dict())
    assert trainer.state.epoch == 1 and again.stopped_at == 5 and weight == 2.0, "it stays stopped"


def test_without_patience_nothing_is_kept_and_nothing_stops(tmp_path: Path) -> None:
    handler, trainer, _ = trained(tmp_path, [1.0, 2.0, 3.0], patience=None)
    assert trainer.state.epoch == 3 and handler.best_epoch is None and not list(tmp_path.iterdir())

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""DP-SGD: that gradients are clipped and noised, that the budget is kept, and what is said of it."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_memo.errors import ConfigurationError
from monai_memo.training.private import PrivacyBudget, PrivateTraining, group_privacy

pytest.importorskip("opacus")


def private(n: int = 20, steps: int = 10, batch_size: int = 5, **changes: Any) -> PrivateTraining:
    asked: dict[str, Any] = {"epsilon": 8.0, "delta": 1e-3, "clip": 1.0}
    asked |= {name: changes.pop(name) for name in asked if name in changes}
    budget = PrivacyBudget(**asked, n=n, batch_size=batch_size, steps=steps)
    return PrivateTraining(budget, **{"images_per_patient": 3, "seed": 0, **changes})


def moved(training: PrivateTraining, images: Tensor, learning_rate: float = 1.0) -> Tensor:
    """What one step of plain gradient descent on these images does to the weights of a linear layer."""
    layer = nn.Linear(3, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(layer.parameters(), learning_rate)
    training.step(layer, optimizer, len(images), lambda part: (layer(images[part]) - 5).square().mean())
    return torch.cat([layer.weight.detach().flatten(), layer.bias.detach()])


@pytest.mark.parametrize("n", [1, 8, 9, 24])
def test_one_image_more_changes_a_step_by_at_most_the_bound(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_memo.training.private.HELD", 8 * 4)  # gradients of eight images of four numbers
    images = 100 * torch.randn((n, 3), generator=torch.Generator().manual_seed(1))
    clip, batch_size = 0.7, 5
    with_it, without = (
        moved(private(clip=clip, batch_size=batch_size, n=40), some) for some in (images, images[:-1])
    )  # the same seed: the same noise
    change = float((with_it - without).norm()) * batch_size  # the step divides by the images it expects
    assert change == pytest.approx(clip, rel=1e-3)


def test_small_gradients_are_left_as_they_are() -> None:
    images = torch.zeros((4, 3))
    image = moved(private(clip=1000.0, epsilon=5000.0), images) - moved(
        private(clip=1000.0, epsilon=5000.0), images[:3]
    )
    assert image.tolist() == pytest.approx([0, 0, 0, 2.0], abs=1e-3)  # gradient -10 of the bias, of 5 images expected


def test_noise_has_the_size_that_was_found_for_the_budget() -> None:
    steps, clip = 300, 0.5
    training = private(steps=steps, clip=clip, batch_size=5)
    layer = nn.Linear(30, 30)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), 1.0)
    for _ in range(20):  # nobody is drawn: noise alone
        training.step(layer, optimizer, 0, lambda _: pytest.fail("there is no image"))
    deviation = float((layer.weight.detach() - before).std())
    assert deviation == pytest.approx(20**0.5 * training.noise_multiplier * clip / 5, rel=0.05)


def test_a_small_budget_fits_worse_than_a_large_one() -> None:
    values = torch.randn((200, 4), generator=torch.Generator().manual_seed(2))
    wanted = values @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]])

    def error(epsilon: float) -> float:
        training = private(epsilon=epsilon, n=200, batch_size=20, steps=200)
        layer = nn.Linear(4, 1)
        optimizer = torch.optim.SGD(layer.parameters(), 0.1)
        for _ in range(200):
            rows = training.chosen()
            training.step(
                layer,
                optimizer,
                len(rows),
                lambda part, rows=rows: (layer(values[rows[part]]) - wanted[rows[part]]).square().mean(),
            )
        return float((layer(values) - wanted).square().mean().detach())

    strict, loose = error(0.5), error(1000.0)
    assert strict > 5 * loose and loose < 0.1


def test_the_budget_is_kept_and_no_step_is_taken_beyond_it() -> None:
    training, images = private(epsilon=2.0, steps=6), torch.ones((2, 3))
    layer = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    spent = []
    for _ in range(6):
        training.step(layer, optimizer, 2, lambda part: layer(images[part]).mean())
        spent.append(training.spent())
    assert spent == sorted(spent) and 1.9 < spent[-1] <= 2.0
    with pytest.raises(ConfigurationError, match="the budget is spent: it was made for 6 steps"):
        training.step(layer, optimizer, 2, lambda part: layer(images[part]).mean())


def test_every_image_takes_part_on_its_own_with_the_probability_that_is_accounted_for() -> None:
    training = private(n=50, batch_size=10)
    drawn = [training.chosen() for _ in range(2000)]
    counts = torch.bincount(torch.cat(drawn), minlength=50) / 2000
    assert training.budget.sampling_rate == 0.2
    assert counts.min() > 0.15 and counts.max() < 0.25
    sizes = torch.tensor([len(rows) for rows in drawn]).float()
    assert float(sizes.var()) == pytest.approx(50 * 0.2 * 0.8, rel=0.15)  # binomial: not batches of one size
    assert private(n=4, batch_size=10, delta=1e-3).budget.sampling_rate == 1


def test_without_a_seed_nobody_knows_the_noise() -> None:
    images = torch.ones((2, 3))
    torch.manual_seed(0)
    first = moved(private(seed=None), images)
    torch.manual_seed(0)
    assert not torch.equal(first, moved(private(seed=None), images))
    assert torch.equal(moved(private(seed=3), images), moved(private(seed=3), images))
    assert "guarantee nothing" in private(seed=3).record()["statement"]
    assert "guarantee nothing" not in private(seed=None).record()["statement"]


def test_a_training_goes_on_with_the_budget_that_is_left() -> None:
    first, images = private(steps=4), torch.ones((2, 3))
    moved(first, images)
    second = private(steps=4)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.taken == 1 and second.spent() == first.spent()
    with pytest.raises(ConfigurationError, match="had another privacy budget"):
        private(steps=5).load_state_dict(first.state_dict())
    with pytest.raises(ConfigurationError, match="had another privacy budget"):
        private(steps=4).load_state_dict({})  # of a training without


def test_the_record_says_what_is_promised_and_what_is_not() -> None:
    training = private(epsilon=1.0, delta=1e-5, steps=10, not_covered=("the autoencoder", ""))
    record = training.record()
    assert json.loads(json.dumps(record)) == record
    assert 0.9 < record["epsilon"] <= 1.0 and record["delta"] == 1e-5 and record["unit"] == "one image"
    assert record["steps"] == 0 and record["planned_steps"] == 10 and record["not_covered"] == ["the autoencoder"]
    assert record["patient"] == {
        "images": 3, "epsilon": 3.0, "delta": group_privacy(1.0, 1e-5, 3)[1]
    }  # fmt: skip
    statement = record["statement"]
    assert "DP-SGD) of the diffusion model only: epsilon 1, delta 1e-05 for one image" in statement
    assert "For a patient with 3 images: epsilon" in statement and "Not covered: the autoencoder." in statement
    assert "guarantees nothing (delta would be 1 or more)" in private(epsilon=8.0).record()["statement"]
    assert "Patients are not known" in private(images_per_patient=None).record()["statement"]


def test_group_privacy_is_that_of_the_formula() -> None:
    epsilon, delta = group_privacy(0.5, 1e-6, 4)
    assert epsilon == 2.0
    assert delta == pytest.approx(1e-6 * (2.718281828**2.0 - 1) / (2.718281828**0.5 - 1))
    assert group_privacy(1000.0, 1e-5, 3)[1] == float("inf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"delta": 0.05}, "privacy_delta must be less than 1 / 20"),
        ({"epsilon": 1e-4}, "no noise keeps privacy_epsilon 0.0001"),
    ],
)
def test_budgets_that_mean_nothing_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        private(**changes)


def test_a_network_whose_images_see_one_another_is_refused() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    with pytest.raises(ConfigurationError, match="Sequential cannot be trained with privacy_epsilon"):
        private().step(
            network, torch.optim.SGD(network.parameters(), 0.1), 2, lambda _: network(torch.ones(2, 3)).mean()
        )


def test_without_opacus_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(ConfigurationError, match=r"pip install monai-memo\[private\]"):
        private()

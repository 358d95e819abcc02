# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""DP-SGD (Abadi et al., arXiv 1607.00133) by Opacus: training steps that bound what weights tell of a single image.

At each step every image takes part with the same probability, on its own (Poisson sampling), its gradient is clipped to
a norm, and Gaussian noise is added to the sum (``pip install monai-memo[private]``).
"""

from __future__ import annotations

import math
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from monai_memo.errors import ConfigurationError

PRIVACY = "privacy"  # of a record beside weights
MECHANISM = "rdp"  # an upper bound whatever the number of steps; others are tighter and less robust
COVERS = "the diffusion model only"
LAST_ORDER = "Optimal order is the"  # the epsilon is a bound all the same
HELD = 2**28  # numbers of gradients that are held together: each image has as many as the network


def group_privacy(epsilon: float, delta: float, images: int) -> tuple[float, float]:
    """Epsilon and delta for several images of one patient together (Dwork and Roth, 2014, Theorem 2.2 and its proof).

    Example:
        >>> group_privacy(1.0, 1e-5, 1)
        (1.0, 1e-05)
        >>> epsilon, delta = group_privacy(1.0, 1e-5, 3)
        >>> epsilon, round(delta, 6)
        (3.0, 0.000111)
    """
    try:
        factor = math.fsum(math.exp(i * epsilon) for i in range(images))  # (e^(k epsilon) - 1) / (e^epsilon - 1)
    except OverflowError:
        factor = math.inf
    return images * epsilon, delta * factor


@dataclass(frozen=True)
class PrivacyBudget:
    """What is asked of a training.

    Attributes:
        epsilon, delta: of all ``steps`` together.
        clip: norm that the gradient of an image is clipped to.
        n: training images.
        batch_size: images of a step on average; all where there are fewer.
        steps: of the whole training.

    Raises:
        ConfigurationError: a delta that means nothing.
    """

    epsilon: float
    delta: float
    clip: float
    n: int
    batch_size: int
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.delta < 1 / self.n:
            raise ConfigurationError(
                f"privacy_delta must be less than 1 / {self.n}, the number of training images, got {self.delta:g}: "
                "with more, giving away one image whole would count as private"
            )

    @property
    def expected(self) -> int:
        """Images of a step on average."""
        return min(self.batch_size, self.n)

    @property
    def sampling_rate(self) -> float:
        """Probability of an image to take part in a step."""
        return self.expected / self.n


class PrivateTraining:
    """The steps of one training under a privacy budget, and what may be said of its weights afterwards.

    Whose noise, order of images, timesteps and dropout are known can be undone: all come from a seed that is drawn from
    the operating system and kept nowhere. So the same training twice has other weights.

    Args:
        budget: what is asked for.
        images_per_patient: most that a patient has; None: patients are not known.
        not_covered: what saw the images without noise, a phrase each; empty ones are left out.
        seed: of noise and order, for measurements that have to be done again alike; such weights are for no release.

    Attributes:
        noise_multiplier: standard deviation of the noise, over ``clip``.
        planned: epsilon of all steps, at most what is asked for.

    Raises:
        ConfigurationError: Opacus is missing, or no noise keeps the budget.
    """

    def __init__(
        self,
        budget: PrivacyBudget,
        images_per_patient: int | None = None,
        not_covered: Sequence[str] = (),
        seed: int | None = None,
    ) -> None:
        self._opacus = _opacus()
        self.budget, self.images_per_patient, self.public_seed = budget, images_per_patient, seed is not None
        self.not_covered = tuple(phrase for phrase in not_covered if phrase)
        self.accountant = self._opacus.accountants.create_accountant(mechanism=MECHANISM)
        self.noise_multiplier = _noise(budget.epsilon, budget.delta, budget.sampling_rate, budget.steps)
        self.planned = self._epsilon_of([(self.noise_multiplier, budget.sampling_rate, budget.steps)])
        self.draws = torch.Generator().manual_seed(secrets.randbits(63) if seed is None else seed)
        self._private: tuple[nn.Module, Optimizer, Any] | None = None

    def chosen(self) -> Tensor:
        """Positions of the images of the next step; there may be none."""
        return (
            (torch.rand(self.budget.n, generator=self.draws, dtype=torch.float64) < self.budget.sampling_rate)
            .nonzero()
            .flatten()
        )

    def versions(self, images: Tensor, variants: int) -> Tensor:
        """Rows of one version of each of these images, where an image has ``variants`` rows one after another."""
        return images * variants + torch.randint(variants, images.shape, generator=self.draws)

    def _number(self) -> int:
        return int(torch.randint(2**62, (), generator=self.draws))

    def step(self, network: nn.Module, optimizer: Optimizer, n: int, loss_of: Callable[[slice], Tensor]) -> float:
        """One step on ``n`` images; the mean of their losses, which is not private.

        Args:
            network: in training mode; ``loss_of`` calls it.
            optimizer: of its parameters.
            loss_of: mean loss of some of the images, a loss for each on its own.

        Raises:
            ConfigurationError: more steps than the budget was made for, or a network whose images see one another.
        """
        if self.taken >= self.budget.steps:
            raise ConfigurationError(f"the budget is spent: it was made for {self.budget.steps} steps")
        if self._private is None or self._private[:2] != (network, optimizer):
            self._private = (network, optimizer, self._wrapped(network, optimizer))
        private = self._private[2]
        torch.manual_seed(self._number())
        at_once = max(1, HELD // sum(parameter.numel() for parameter in private.params))
        total = 0.0
        private.zero_grad()
        if n == 0:  # noise alone: a step that is left out would tell that nobody was there
            for parameter in private.params:
                parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
            private.step()
        for start in range(0, n, at_once):
            part = slice(start, min(start + at_once, n))
            loss = loss_of(part)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Full backward hook is firing")  # as it should
                loss.backward()
            private.signal_skip_step(do_skip=part.stop < n)
            private.step()
            private.zero_grad()
            total += float(loss.detach()) * (part.stop - start)
        return total / max(n, 1)

    @property
    def taken(self) -> int:
        """Steps so far."""
        return sum(steps for _, _, steps in self.accountant.history)

    def spent(self) -> float:
        """Epsilon of the steps so far."""
        return self._epsilon_of(self.accountant.history)

    def record(self) -> dict[str, Any]:
        """What stands beside the weights, plain values and one statement in words.

        A training that stopped before its last planned step is counted as if it had not: when to stop was decided by
        looking at it.
        """
        patient = None
        if self.images_per_patient is not None:
            epsilon, delta = group_privacy(self.budget.epsilon, self.budget.delta, self.images_per_patient)
            patient = {
                "images": self.images_per_patient, "epsilon": epsilon, "delta": delta if delta < 1 else None
            }  # fmt: skip
        budget = self.budget
        return {
            "epsilon": budget.epsilon, "accounted": self.planned, "delta": budget.delta,
            "noise_multiplier": self.noise_multiplier, "clipping": budget.clip,
            "steps": self.taken, "planned_steps": budget.steps, "images": budget.n,
            "images_per_step": budget.expected, "sampling_rate": budget.sampling_rate, "unit": "one image",
            "patient": patient, "accountant": MECHANISM, "opacus": str(self._opacus.__version__),
            "public_seed": self.public_seed, "covers": COVERS, "not_covered": list(self.not_covered),
            "statement": self._statement(patient),
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Of the accountant, and what it was made for."""
        history = [list(entry) for entry in self.accountant.history]
        return {"history": history, "plan": self._plan()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a budget that is spent in part.

        Raises:
            ConfigurationError: it was made for another training, such as one of fewer steps.
        """
        if not state or list(state["plan"]) != self._plan():
            raise ConfigurationError(
                "the training to go on with had another privacy budget: noise is chosen for all steps, so that epochs, "
                "steps and batch size cannot be changed on the way. Ask for what it had, or name another output_dir."
            )
        self.accountant.history = [(float(noise), float(rate), int(steps)) for noise, rate, steps in state["history"]]

    def _plan(self) -> list[float]:
        return [*astuple(self.budget), self.noise_multiplier]

    def _epsilon_of(self, history: list[tuple[float, float, int]]) -> float:
        accountant = self._opacus.accountants.create_accountant(mechanism=MECHANISM)
        accountant.history = list(history)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=LAST_ORDER)
            return float(accountant.get_epsilon(self.budget.delta))

    def _wrapped(self, network: nn.Module, optimizer: Optimizer) -> Any:
        """The optimiser that clips and adds noise. The hooks are put on late: copies of a network have none."""
        if errors := self._opacus.validators.ModuleValidator.validate(network, strict=False):
            raise ConfigurationError(
                f"{type(network).__name__} cannot be trained with privacy_epsilon: {errors[0]}. Take layers in which "
                "images of a batch do not see one another, such as GroupNorm."
            )
        self._opacus.GradSampleModule(network, loss_reduction="mean")
        parameters = next(network.parameters())
        noise = torch.Generator(device=parameters.device).manual_seed(self._number())
        private = self._opacus.optimizers.DPOptimizer(
            optimizer, noise_multiplier=self.noise_multiplier, max_grad_norm=self.budget.clip,
            expected_batch_size=self.budget.expected, loss_reduction="mean", generator=noise,
        )  # fmt: skip
        private.attach_step_hook(self.accountant.get_optimizer_hook_fn(sample_rate=self.budget.sampling_rate))
        return private

    def _statement(self, patient: Mapping[str, Any] | None) -> str:
        asked = self.budget
        parts = [
            f"Differential privacy (DP-SGD) of {COVERS}: epsilon {asked.epsilon:g}, delta {asked.delta:g} for one "
            f"image, that is whether it was trained on or its place was empty; noise multiplier "
            f"{self.noise_multiplier:.3g}, gradients clipped to {asked.clip:g}, {asked.steps} steps of "
            f"{asked.expected} of {asked.n} images on average."
        ]
        if patient is None:
            parts.append("Patients are not known: nothing is said of somebody with several images.")
        elif patient["images"] > 1:
            said = f"epsilon {patient['epsilon']:g}, delta {patient['delta'] or 1:.3g}"
            parts.append(
                f"For a patient with {patient['images']} images: {said}."
                if patient["delta"] is not None
                else f"For a patient with {patient['images']} images it guarantees nothing (delta would be 1 or more)."
            )
        if self.not_covered:
            parts.append(f"Not covered: {'; '.join(self.not_covered)}.")
        if self.public_seed:
            parts.append(
                "The noise came from a seed that is known, for a measurement: these weights guarantee nothing."
            )
        return " ".join(parts)


@cache
def _noise(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The least noise that keeps a budget."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=LAST_ORDER)
            found = import_module("opacus.accountants.utils").get_noise_multiplier(
                target_epsilon=epsilon, target_delta=delta, sample_rate=sampling_rate, steps=steps,
                accountant=MECHANISM, epsilon_tolerance=min(0.01, epsilon / 100),
            )  # fmt: skip
    except ValueError as error:
        raise ConfigurationError(
            f"no noise keeps privacy_epsilon {epsilon:g} at privacy_delta {delta:g} over {steps} steps: "
            "ask for more of either, or for fewer steps"
        ) from error
    return float(found)


def _opacus() -> Any:
    try:
        opacus = import_module("opacus")
        for name in ("accountants", "optimizers", "validators"):
            import_module(f"opacus.{name}")
        return opacus
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "opacus":
            raise
        raise ConfigurationError(
            "privacy_epsilon needs Opacus, which is not installed: pip install monai-memo[private]"
        ) from error

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How large the networks of a generator bundle are, and what one training step of them takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from monai_memo.generators.bundle_model import read_bundle
from monai_memo.generators.memory import StepMemory, measure_step, step_memory


@dataclass(frozen=True)
class NetworkStep:
    """One training step of one network of a bundle.

    Attributes:
        build: makes the network.
        inputs: shapes of the arguments of ``forward``, batch included.
        copies: further copies of the weights that training keeps (averaged weights).
    """

    build: Callable[[], nn.Module]
    inputs: tuple[tuple[int, ...], ...]
    copies: int = 0

    @property
    def batch_size(self) -> int:
        """Images in the step."""
        return self.inputs[0][0]

    def on_meta_device(self) -> StepMemory:
        """Weights and what autograd keeps, without computing anything."""
        return step_memory(self.build, *self.inputs, copies=self.copies)

    def measured(self) -> int:
        """Bytes that a real step takes on this CPU, without the further copies. See ``measure_step``."""
        return measure_step(self.build, *self.inputs)


def bundle_steps(
    folder: str | Path, profile: str | None = None, batch_size: int | None = None, **overrides: Any
) -> dict[str, NetworkStep]:
    """The steps of autoencoder, discriminator and diffusion model.

    Args:
        folder: of one of the three generator bundles.
        profile: name of a further config file, such as ``"small"``.
        batch_size: of all three; by default each has its own from the config.
        overrides: config values by id.

    Raises:
        GeneratorError: no such bundle.
    """

    def step(network: str, batch: str, *shape: int, diffusion: bool = False) -> NetworkStep:
        n = batch_size or int(config.get_parsed_content(batch))
        inputs = ((n, *shape), (n,)) if diffusion else ((n, *shape),)

        def build() -> nn.Module:
            # A parser of its own: one parser gives the same network, on the same device, each time.
            made: nn.Module = read_bundle(folder, profile, **overrides).get_parsed_content(network)
            return made

        return NetworkStep(build, inputs, copies=int(diffusion))

    config = read_bundle(folder, profile, **overrides)
    image = (config.get_parsed_content("image_channels"), *config.get_parsed_content("image_size"))
    latent = config.get_parsed_content("latent_shape")
    return {
        "autoencoder": step("autoencoder_def", "autoencoder_batch_size", *image),
        "discriminator": step("discriminator_def", "autoencoder_batch_size", *image),
        "diffusion model": step("network_def", "diffusion_batch_size", *latent, diffusion=True),
    }


def memory_table(folder: str | Path, profile: str | None = None, **overrides: Any) -> str:
    """Parameters and memory of one training step of each network, as a table in Markdown, in GiB.

    Found on the meta device in seconds, for any size. See ``bundle_steps`` for the arguments.
    """
    lines = ["| network | parameters | float32 | mixed precision |", "| --- | --- | --- | --- |"]
    for name, step in bundle_steps(folder, profile, **overrides).items():
        memory = step.on_meta_device()
        lines.append(
            f"| {name}, batch {step.batch_size} | {memory.parameters / 1e6:.1f} million | {memory.gib():.1f} "
            f"| {memory.gib(autocast=True):.1f} |"
        )
    return "\n".join(lines) + "\n"

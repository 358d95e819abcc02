# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Diffusion models of the model zoo that want to be told what to draw: numbers, spacings, embeddings of a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from monai_memo.errors import ConfigurationError
from monai_memo.sampling import Conditions

CONDITIONING, PROMPT = "conditioning", "prompt_embeds"
MAISI = {
    "spacing": "spacing_tensor",
    "top_region": "top_region_index_tensor",
    "bottom_region": "bottom_region_index_tensor",
}
MAISI_DEFAULTS: dict[str, Sequence[float]] = {"top_region": (0, 1, 0, 0), "bottom_region": (0, 0, 1, 0)}
MAISI_UNIT = 100.0  # MAISI's networks take spacings and regions times 100
MODALITIES = {"ct": 1}  # classes of MAISI's network

Inputs = Callable[[Mapping[str, Any]], dict[str, Tensor]]


class Conditioned(nn.Module):
    """A diffusion model with its conditions, which are set for each batch. Takes its place in ``LatentDiffusion``.

    Args:
        network: the diffusion model.
        inputs: from the conditions of one image, by name, to further arguments of ``network.forward``, one row each.
        names: of the conditions that can be chosen.
        concatenated: the context is also put beside the latents as channels.
    """

    def __init__(self, network: nn.Module, inputs: Inputs, names: Sequence[str], concatenated: bool = False) -> None:
        super().__init__()
        self.network, self.inputs, self.names, self.concatenated = network, inputs, tuple(names), concatenated
        self._given: dict[str, Tensor] = {}  # no part of what the model is
        for name in ("block_out_channels",):
            if hasattr(network, name):
                setattr(self, name, getattr(network, name))

    def choose(self, conditions: Conditions | None, images: range, seeds: Sequence[int]) -> None:
        """Take the conditions of these images, of which ``seeds`` has all.

        Raises:
            ConfigurationError: a condition that the model does not know.
        """
        chosen = dict(conditions or {})
        if unknown := [name for name in chosen if name not in self.names]:
            raise ConfigurationError(f"this generator takes the conditions {', '.join(self.names)}, got {unknown[0]!r}")
        rows = [self.inputs({name: values[i] for name, values in chosen.items()}) for i in images]
        self._given = {name: torch.cat([row[name] for row in rows]) for name in rows[0]} if rows else {}

    def forget(self) -> None:
        """Let go of the conditions that were chosen."""
        self._given = {}

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, **further: Any) -> Tensor:
        """The network's output for the conditions that were chosen last."""
        given = {name: value.to(x.device) for name, value in self._given.items()}
        if self.concatenated:
            maps = given["context"].squeeze(1)
            x = torch.cat([x, maps.view(*maps.shape, *(1,) * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])], dim=1)
        timesteps = timesteps.expand(len(x))  # MAISI's network adds the classes in place
        found: Tensor = self.network(x, timesteps=timesteps, **{"context": context, **given, **further})
        return found


def conditioned(network: nn.Module, config: ConfigParser, latent_channels: int) -> nn.Module:
    """The network as it is, or with the conditions that its bundle's config describes."""
    raw = config.get()
    if CONDITIONING in raw:
        names = [name for name in re.findall(r"@(\w+)", str(raw[CONDITIONING])) if name != "device"]

        def of_config(values: Mapping[str, Any]) -> dict[str, Tensor]:
            found = ConfigParser({**raw, **values}).get_parsed_content(CONDITIONING)
            return {"context": torch.as_tensor(found, dtype=torch.float32)}

        return Conditioned(network, of_config, names, int(getattr(network, "in_channels", 0)) > latent_channels)
    if PROMPT in raw:
        return Conditioned(network, _prompted, [PROMPT])
    if hasattr(network, "include_spacing_input"):
        return Conditioned(network, _maisi(network, config), [*_maisi_inputs(network), "modality"])
    return network


def _prompted(values: Mapping[str, Any]) -> dict[str, Tensor]:
    if PROMPT not in values:
        raise ConfigurationError(
            f"this generator draws for a text: give its embedding for each image (tokens, length) as the condition "
            f"{PROMPT}"
        )
    return {"context": torch.as_tensor(values[PROMPT], dtype=torch.float32)[None]}


def _maisi_inputs(network: nn.Module) -> dict[str, str]:
    wanted = {"spacing": "include_spacing_input", "top_region": "include_top_region_index_input",
              "bottom_region": "include_bottom_region_index_input"}  # fmt: skip
    return {name: MAISI[name] for name, flag in wanted.items() if getattr(network, flag, False)}


def _maisi(network: nn.Module, config: ConfigParser) -> Inputs:
    raw = config.get()
    defaults = dict(MAISI_DEFAULTS)
    if "spacing" in raw:
        defaults["spacing"] = [float(mm) for mm in config.get_parsed_content("spacing")]
    modality = str(raw.get("modality", "ct"))
    classes = getattr(network, "num_class_embeds", None)

    def inputs(values: Mapping[str, Any]) -> dict[str, Tensor]:
        found = {
            argument: MAISI_UNIT * torch.tensor([[float(x) for x in values.get(name, defaults.get(name, (1, 1, 1)))]])
            for name, argument in _maisi_inputs(network).items()
        }
        kind = values.get("modality", modality)
        if classes is not None:
            found["class_labels"] = torch.tensor([MODALITIES[kind] if kind in MODALITIES else int(kind)])
        return found

    return inputs

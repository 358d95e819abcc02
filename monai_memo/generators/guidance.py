# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Diffusion models that were trained with conditions: what they are told, and classifier-free guidance.

Guidance: Ho & Salimans, arXiv 2207.12598. A share of the training images comes without its conditions, so that one
network knows both, and sampling goes ``guidance_scale`` times the way from the one to the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from monai_memo.data.cohort import Cohort
from monai_memo.errors import ConfigurationError
from monai_memo.generators.conditioned import Conditioned
from monai_memo.generators.conditions import RECORD, ConditionCode, columns_of
from monai_memo.generators.weights import read_record
from monai_memo.sampling import Conditions
from monai_memo.settings import Number, value_of

Model = TypeVar("Model")
TOLD = "told "  # before names of a batch


class Guided(Conditioned):
    """A diffusion model with the conditions that it was trained with. Takes its place in ``LatentDiffusion``.

    Args:
        network: takes ``class_labels`` or ``context``, as the code says.
        code: of its training.
        guidance_scale: 1 draws what the network learnt of a condition, 0 forgets it, more exaggerates it.
    """

    def __init__(self, network: nn.Module, code: ConditionCode, guidance_scale: float = 1.0) -> None:
        super().__init__(network, code.encoded_row, code.names)
        self.code, self.guidance_scale = code, float(guidance_scale)
        if hasattr(network, "in_channels"):
            self.in_channels = network.in_channels

    def choose(self, conditions: Conditions | None, images: range, seeds: Sequence[int]) -> None:
        """Take the conditions of these images: as given, the others as the training images have them.

        Raises:
            ConfigurationError: conditions that the model does not know.
        """
        chosen = {name: [values[i] for i in images] for name, values in self._whole(conditions, len(seeds)).items()}
        self._given = self.code.encoded(self.code.resolved(chosen, [seeds[i] for i in images]))

    def tell(self, inputs: Mapping[str, Tensor], images: range) -> None:
        """Take what the network takes (``ConditionCode.encoded``) of these images, of which ``inputs`` has all."""
        self._given = {name: rows[images.start : images.stop] for name, rows in inputs.items()}

    @staticmethod
    def _whole(conditions: Conditions | None, n: int) -> Conditions:
        for name, values in (conditions or {}).items():
            if len(values) != n:
                raise ConfigurationError(f"{name} must have one value for each of the {n} images, got {len(values)}")
        return conditions or {}

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, **further: Any) -> Tensor:
        """The network's output for the conditions that were chosen last; where none are, for none."""
        timesteps = timesteps.expand(len(x)) if timesteps.numel() == 1 else timesteps
        told = {name: value.to(x.device) for name, value in self._given.items()}
        untold = {name: value.to(x.device) for name, value in self.code.untold(len(x)).items()}

        def said(inputs: Mapping[str, Tensor]) -> Tensor:
            found: Tensor = self.network(x, timesteps=timesteps, **{**further, **inputs})
            return found

        if not told or self.guidance_scale == 0.0:
            return said(untold)
        if self.guidance_scale == 1.0:
            return said(told)
        without = said(untold)
        return without + self.guidance_scale * (said(told) - without)


@dataclass(frozen=True)
class ConditionedItems(Dataset[dict[str, Tensor]]):
    """Items of a data set, each with its conditions.

    Attributes:
        items: ``{"image": ...}``.
        inputs: what the network takes, one row for each item.
    """

    items: Any
    inputs: Mapping[str, Tensor]

    @property
    def draws(self) -> bool:
        """See ``SeededLoader``."""
        return bool(getattr(self.items, "draws", False))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        """The item, with ``told class_labels`` and the like."""
        position = key[0] if isinstance(key, tuple) else key
        told = {f"{TOLD}{name}": rows[position] for name, rows in self.inputs.items()}
        return {**self.items[key], **told}


class ConditionalBatch:
    """``prepare_batch`` of a training with conditions: what the network is told, beside latents, noise and timesteps.

    Args:
        batches: without conditions.
        code: of the training.
        dropout: share of the images that come without their conditions.
    """

    def __init__(self, batches: Any, code: ConditionCode, dropout: float) -> None:
        self.batches, self.code, self.dropout = batches, code, float(dropout)

    def __call__(
        self, batchdata: dict[str, Tensor], device: Any = None, non_blocking: bool = False, **kwargs: Any
    ) -> Any:
        """See ``LatentBatch``; the arguments of the inferer have ``class_labels`` and ``condition`` as well."""
        told = {name.removeprefix(TOLD): rows for name, rows in batchdata.items() if name.startswith(TOLD)}
        plain = {name: rows for name, rows in batchdata.items() if not name.startswith(TOLD)}
        inputs, target, arguments, further = self.batches(plain, device, non_blocking, **kwargs)
        if self.dropout:
            told = self.code.left_out(told, torch.rand(len(inputs)) < self.dropout)
        named = {"condition" if name == "context" else name: rows.to(inputs.device) for name, rows in told.items()}
        return inputs, target, arguments, {**further, **named}


# For bundles' configs: each of these leaves things as they are where there are no conditions.


def conditional(network: nn.Module, code: ConditionCode, guidance_scale: float = 1.0) -> nn.Module:
    """The network with its conditions."""
    return Guided(network, code, guidance_scale) if code else network


def at_scale(model: Model, guidance_scale: float = 1.0) -> Model:
    """A ``LatentDiffusion`` that samples with this guidance.

    Raises:
        ConfigurationError: another scale than 1 for a model without conditions, or one that is not from 0 to 100.
    """
    network = getattr(model, "conditioned", None)
    guidance_scale = value_of("guidance_scale", guidance_scale, Number(0, 100))
    if isinstance(network, Guided):
        network.guidance_scale = float(guidance_scale)
    elif guidance_scale != 1.0:
        raise ConfigurationError(
            f"guidance_scale {guidance_scale:g} is for models that were trained with conditions: leave it out"
        )
    return model


def conditional_items(items: Any, cohort: Cohort, code: ConditionCode, strict: bool = True) -> Any:
    """Items of a cohort's images with their conditions.

    Args:
        strict: refuse conditions that no training image has.
    """
    return ConditionedItems(items, code.encoded(columns_of(cohort), strict)) if code else items


def conditional_batch(batches: Any, code: ConditionCode, dropout: float = 0.0) -> Any:
    """``prepare_batch`` that tells the network the conditions."""
    return ConditionalBatch(batches, code, dropout) if code else batches


def trained_on(values: Any, items: Any) -> list[Any]:
    """The arrays that decide a training: latents, and conditions where there are some."""
    told = items.inputs if isinstance(items, ConditionedItems) else {}
    return [values, *(told[name].numpy() for name in sorted(told))]


def with_code(record: Mapping[str, Any], code: ConditionCode) -> dict[str, Any]:
    """What stands beside weights, with the code."""
    return {**record, RECORD: code.record()} if code else dict(record)


def code_of_weights(path: str) -> ConditionCode:
    """The code in a weights' file; without one there are no conditions, and without a file others say so."""
    return ConditionCode.of_record(read_record(path).get(RECORD)) if Path(path).is_file() else ConditionCode()

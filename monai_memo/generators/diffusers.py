# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Pipelines of Hugging Face ``diffusers`` from a folder, as generators (``pip install monai-memo[diffusers]``)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from monai_memo.errors import ConfigurationError, GeneratorError
from monai_memo.generators.weights import weights_sha256
from monai_memo.sampling import Conditions, understood
from monai_memo.settings import Whole, value_of

INDEX = "model_index.json"
OURS = ("batch_size", "generator", "output_type", "return_dict", "num_images_per_prompt")


class DiffusersGenerator:
    """A pipeline as a generator: each image has a ``torch.Generator`` of its own, seeded by its seed.

    Args:
        pipeline: an object of ``diffusers``, whose call takes ``generator`` and gives ``images``.
        call: further arguments of every call (``num_inference_steps``, ``prompt``, ``guidance_scale``, ...).
        batch_size: images at once.
        device: that the pipeline is moved to.

    Raises:
        ConfigurationError: arguments that the pipeline's call does not have, or that are set here.
    """

    def __init__(
        self,
        pipeline: object,
        call: Mapping[str, object] | None = None,
        batch_size: int = 4,
        device: str | torch.device = "cpu",
    ) -> None:
        whole: Any = pipeline
        self.call, self.device = dict(call or {}), torch.device(device)
        self.batch_size: int = value_of("batch_size", batch_size, Whole(1, 65_536))
        self.takes = list(inspect.signature(whole.__call__).parameters)
        self._require_known(self.call)
        whole.set_progress_bar_config(disable=True)
        self.pipeline: Any = whole.to(self.device)

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        call: Mapping[str, object] | None = None,
        batch_size: int = 4,
        device: str | torch.device = "cpu",
    ) -> DiffusersGenerator:
        """The pipeline that ``save_pretrained`` wrote to a folder; nothing is fetched from anywhere.

        Raises:
            GeneratorError: ``diffusers`` is not installed, or the folder holds no pipeline.
        """
        if not (Path(folder) / INDEX).is_file():
            raise GeneratorError(f"{folder} holds no pipeline of diffusers: there is no {INDEX}")
        try:
            from diffusers import DiffusionPipeline
        except ModuleNotFoundError as error:
            raise GeneratorError("diffusers is not installed: pip install monai-memo[diffusers]") from error
        try:
            pipeline = DiffusionPipeline.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, AttributeError, ImportError) as error:
            raise GeneratorError(f"{folder} cannot be loaded as a pipeline of diffusers: {error}") from error
        return cls(pipeline, call, batch_size, device)

    def _require_known(self, names: Mapping[str, object]) -> None:
        for name in names:
            if name in OURS or name not in self.takes:
                free = ", ".join(one for one in self.takes if one not in OURS)
                raise ConfigurationError(f"{type(self).__name__} cannot hand on {name!r}: the pipeline takes {free}")

    def identity(self) -> Mapping[str, Any]:
        """Everything that decides the images."""
        parts = {
            name: weights_sha256(part) if isinstance(part, nn.Module) else repr(getattr(part, "config", part))
            for name, part in sorted(self.pipeline.components.items())
        }
        return {"pipeline": type(self.pipeline).__name__, "parts": parts, "call": repr(sorted(self.call.items())),
                "batch_size": self.batch_size, "device": self.device}  # fmt: skip

    def sample(self, seeds: Sequence[int], conditions: Conditions | None = None) -> NDArray[np.float32]:
        """See ``monai_memo.sampling.Generator``.

        Args:
            seeds: one for each image.
            conditions: arguments of the pipeline's call with one value for each image, such as ``prompt`` or
                ``class_labels``.

        Raises:
            ConfigurationError: conditions that the pipeline does not know, or not one for each image.
        """
        given = dict(conditions or {})
        self._require_known(given)
        for name, values in given.items():
            if len(values) != len(seeds):
                raise ConfigurationError(f"conditions: {len(values)} values of {name} for {len(seeds)} images")
        drawn = []
        # Some pipelines draw from torch's own generator beside those that they are handed.
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            for start in range(0, len(seeds), self.batch_size):
                chosen = slice(start, start + self.batch_size)
                drawn.append(self._images(seeds[chosen], {name: list(v[chosen]) for name, v in given.items()}))
        if not drawn:
            return np.empty((0,), dtype=np.float32)
        whole = understood(np.concatenate(drawn), len(seeds), type(self.pipeline).__name__)
        repeated = whole.ndim == 4 and whole.shape[1] == 3 and (whole == whole[:, :1]).all()
        return whole[:, :1] if repeated else whole  # decoders of colour repeat a grey image

    def _images(self, seeds: Sequence[int], conditions: Mapping[str, list[Any]]) -> NDArray[np.floating]:
        torch.manual_seed(int(seeds[0]))
        further: dict[str, Any] = {**self.call, **conditions}
        if "batch_size" in self.takes:
            further["batch_size"] = len(seeds)
        if isinstance(further.get("prompt"), str):
            further["prompt"] = [further["prompt"]] * len(seeds)
        if "output_type" in self.takes:
            further["output_type"] = "np"
        each = [torch.Generator(self.device).manual_seed(int(seed)) for seed in seeds]
        found = self.pipeline(generator=each, **further)
        return np.asarray(found.images if hasattr(found, "images") else found[0])

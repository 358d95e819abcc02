# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A latent diffusion model from networks and weights files, or from the folder of a bundle."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import Scheduler

from monai_memo.errors import GeneratorError
from monai_memo.generators.conditioned import Conditioned, conditioned
from monai_memo.generators.conditions import RECORD, ConditionCode
from monai_memo.generators.first_stage import FirstStage, PixelSpace
from monai_memo.generators.guidance import Guided, at_scale
from monai_memo.generators.latent_diffusion import LatentDiffusion
from monai_memo.generators.latents import check_latents
from monai_memo.generators.schedulers import RECTIFIED, process_of
from monai_memo.generators.weights import load_state, load_weights, read_record, state_dict_of, weights_sha256

logger = logging.getLogger(__name__)

# What bundles call things: this library first, then the model zoo.
DIFFUSION_KEYS = ("diffusion_def", "diffusion_unet_def", "network_def")  # of some the last is the autoencoder
SCHEDULER_KEYS = ("noise_scheduler", "scheduler")
AUTOENCODER_FILES = ("autoencoder_file", "load_autoencoder_path", "trained_autoencoder_path")
DIFFUSION_FILES = ("diffusion_file", "load_diffusion_path", "trained_diffusion_path", "ckpt_path")
GENERATIVE = "generative."
OF_MONAI = {"scripts.rectified_flow.RFlowScheduler": "monai.networks.schedulers.RFlowScheduler"}
ENDINGS = (".json", ".yaml", ".yml")


def assemble(
    autoencoder: FirstStage,
    diffusion: DiffusionModelUNet | Conditioned,
    scheduler: Scheduler,
    autoencoder_file: str | Path,
    diffusion_file: str | Path,
    latent_shape: Sequence[int],
    scale_factor: float | None = None,
    num_inference_steps: int = 50,
    batch_size: int = 16,
    device: str | torch.device = "cpu",
    other_bundle: str | Path | None = None,
) -> LatentDiffusion:
    """Load both weights files and put the model together.

    Args:
        autoencoder, diffusion: networks as the config describes them.
        scale_factor: of the latents; None takes the one in the diffusion model's file, or 1 where there is none.
        other_bundle: sample this bundle instead; of the other arguments only the last three are then looked at.

    Raises:
        GeneratorError: weights missing, damaged or of another network, an autoencoder or a prediction type that the
            diffusion model was not trained with, or latents of the wrong shape.
    """
    if other_bundle is not None:
        return load_bundle(other_bundle, num_inference_steps, batch_size, device)
    check_latents(autoencoder, diffusion, latent_shape)
    load_weights(autoencoder, autoencoder_file, "autoencoder weights")
    record = read_record(diffusion_file, "diffusion weights")
    network = diffusion.network if isinstance(diffusion, Conditioned) else diffusion
    load_state(network, state_dict_of(record), diffusion_file).eval()
    if code := ConditionCode.of_record(record.get(RECORD)):
        diffusion = Guided(network, code).eval()
    known = record.get("autoencoder_sha256")
    if known is not None and known != weights_sha256(autoencoder):
        raise GeneratorError(
            f"{diffusion_file} was trained with another autoencoder than {autoencoder_file}: its latents mean "
            "something else. Name the autoencoder that it was trained with."
        )
    trained, sampled = record.get("prediction_type"), process_of(scheduler)
    if trained is not None and trained != sampled:
        wanted = "scheduler to rflow" if trained == RECTIFIED else f"prediction_type to {trained}"
        wanted = "scheduler to ddim, ddpm or pndm" if sampled == RECTIFIED else wanted
        raise GeneratorError(
            f"{diffusion_file} was trained with prediction_type {trained}, the sampling scheduler has {sampled}: set "
            f"{wanted}"
        )
    factor = record.get("scale_factor") if scale_factor is None else scale_factor
    if factor is None:
        logger.warning("%s does not say by which factor latents were scaled: taking 1", diffusion_file)
        factor = 1.0
    return LatentDiffusion(
        autoencoder, diffusion, scheduler, float(factor), latent_shape, num_inference_steps, batch_size, device
    )


def load_bundle(
    folder: str | Path,
    num_inference_steps: int = 50,
    batch_size: int = 16,
    device: str | torch.device = "cpu",
    profile: str | None = None,
    **overrides: Any,
) -> LatentDiffusion:
    """The model of a bundle in the layout of the model zoo's latent diffusion models.

    Read are ``configs/inference.json`` and the profile (``"small"``) if one is named, for ``autoencoder_def``,
    ``network_def``, ``noise_scheduler``, ``latent_shape``, the paths of both weights files and, if there,
    ``scale_factor``, ``conditioning`` and what MAISI's network wants to know; without ``autoencoder_def`` the model
    draws images themselves. The bundle is not run, but expressions in its config are evaluated: load only bundles that
    you trust. Switches against copying are those of ``generators.guarded.load_guarded``.

    Args:
        profile: name of a further config file.
        overrides: config values by id.

    Raises:
        GeneratorError: a config that lacks one of these, or weights that do not fit.
    """
    config = read_bundle(folder, profile, **overrides)

    def first(*keys: str) -> Any:
        found = next((key for key in keys if key in config), None)
        if found is None:
            raise GeneratorError(f"{folder} has no {' or '.join(keys)}: it is no latent diffusion model")
        return config.get_parsed_content(found)

    shape = [int(n) for n in (first("latent_shape") if "latent_shape" in config else first("noise").shape[1:])]
    in_pixels = "autoencoder_def" not in config
    factor = config.get("scale_factor", None)
    if isinstance(factor, str) and "checkpoint" in factor:  # it stands in the weights' file, which is read here
        factor = None
    model = assemble(
        PixelSpace(signed=False) if in_pixels else first("autoencoder_def"),
        conditioned(first(*DIFFUSION_KEYS), config, shape[0]),
        first(*SCHEDULER_KEYS),
        "" if in_pixels else first(*AUTOENCODER_FILES),
        first(*DIFFUSION_FILES),
        shape,
        None if factor is None else first("scale_factor"),
        num_inference_steps,
        batch_size,
        device,
    )
    # The zoo's guidance is not taken part in: what it is told of has no counterpart here.
    ours = isinstance(model.conditioned, Guided) or "guidance_scale" in overrides
    return at_scale(model, float(first("guidance_scale"))) if ours and "guidance_scale" in config else model


def config_files(folder: str | Path, name: str, profile: str | None = None) -> list[Path]:
    """What is merged to one config: the one that is named, and a profile with other numbers after it.

    Bundles that keep what all their configs share in a ``common.json`` have it first.
    """
    configs = Path(folder) / "configs"
    common = [path for path in [configs / "common.json"] if path.is_file()]
    return [*common, config_file(folder, name), *([config_file(folder, profile)] if profile else [])]


def config_file(folder: str | Path, name: str) -> Path:
    """A config of a bundle, in JSON or YAML; where there is none, as JSON would have it."""
    paths = [Path(folder) / "configs" / f"{name}{ending}" for ending in ENDINGS]
    return next((path for path in paths if path.is_file()), paths[0])


def read_bundle(folder: str | Path, profile: str | None = None, **overrides: Any) -> ConfigParser:
    """The config of a bundle: what it builds is built when it is asked for. See ``load_bundle`` for the arguments.

    Raises:
        GeneratorError: no ``configs/inference.json`` there, or no such profile.
    """
    paths = config_files(folder, "inference", profile)
    for path in paths:
        if not path.is_file():
            raise GeneratorError(f"{folder} is no bundle: there is no configs/{path.name}")
    config = _without_requirements(ConfigParser.load_config_files([str(path) for path in paths]))
    return ConfigParser({**config, "bundle_root": str(folder), **overrides})


def _without_requirements(config: Any) -> Any:
    """``_requires_`` makes a zoo bundle load its weights, in its own way, as soon as its scheduler is built.

    Classes of monai-generative, whose schedulers cannot be imported beside newer MONAI, and those that the zoo keeps in
    a bundle's own scripts are taken from MONAI, which has them as well.
    """
    plain = json.loads(json.dumps(config))

    def strip(node: Any) -> Any:
        if isinstance(node, dict):
            kept = {key: strip(value) for key, value in node.items() if key != "_requires_"}
            target = str(kept.get("_target_", ""))
            if target.startswith(GENERATIVE):
                kept["_target_"] = f"monai.{target.removeprefix(GENERATIVE)}"
                kept |= {"channels": kept.pop("num_channels")} if "num_channels" in kept else {}
            elif target in OF_MONAI:
                kept["_target_"] = OF_MONAI[target]
            return kept
        return [strip(value) for value in node] if isinstance(node, list) else node

    return strip(plain)

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Generative bundles of MONAI's model zoo, each built from a config of its own layout with small networks, and sampled.

The configs below are written after those of the zoo (Project-MONAI/model-zoo, Apache-2.0): the same keys, classes and
expressions, with fewer channels and smaller latents, and random weights where the zoo's would lie.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from monai_memo import audit_images
from monai_memo.data.phantoms import chest_phantom
from monai_memo.errors import ConfigurationError
from monai_memo.generators.bundle_model import load_bundle
from tests.audit.small import untrained

BETAS = {"num_train_timesteps": 1000, "beta_start": 0.0015, "schedule": "scaled_linear_beta", "clip_sample": False}


def plain(
    dims: int, latent: int, width: str, package: str, sides: tuple[int, ...], **autoencoder: Any
) -> dict[str, Any]:
    """What the zoo's latent diffusion models without conditions have in common."""
    return {
        "imports": ["$import torch", "$from scripts.utils import visualize_2d_image"],
        "bundle_root": ".", "model_dir": "$@bundle_root + '/models'", "device": "$torch.device('cpu')",
        "spatial_dims": dims, "image_channels": 1, "latent_channels": latent,
        "latent_shape": ["@latent_channels", *sides],
        "autoencoder_def": {
            "_target_": f"{package}.networks.nets.AutoencoderKL", "spatial_dims": "@spatial_dims",
            "in_channels": "@image_channels", "out_channels": "@image_channels", "latent_channels": "@latent_channels",
            width: [4, 8, 8], "num_res_blocks": 1, "norm_num_groups": 4, "norm_eps": 1e-6,
            "attention_levels": [False, False, False], **autoencoder,
        },
        "network_def": {
            "_target_": f"{package}.networks.nets.DiffusionModelUNet", "spatial_dims": "@spatial_dims",
            "in_channels": "@latent_channels", "out_channels": "@latent_channels", width: [8, 8],
            "attention_levels": [False, True], "num_head_channels": [0, 4], "num_res_blocks": 1, "norm_num_groups": 4,
        },
        "load_autoencoder_path": "$@bundle_root + '/models/model_autoencoder.pt'",
        "load_autoencoder": "$@autoencoder_def.load_state_dict(torch.load(@load_autoencoder_path))",
        "load_diffusion_path": "$@model_dir + '/model.pt'",
        "load_diffusion": "$@network_def.load_state_dict(torch.load(@load_diffusion_path))",
        "noise_scheduler": {
            "_target_": f"{package}.networks.schedulers.DDIMScheduler", "_requires_": ["@load_diffusion"],
            **BETAS, "beta_end": 0.0195,
        },
        "noise": "$torch.randn([1]+@latent_shape).to(@device)",
        "inferer": {"_target_": "scripts.ldm_sampler.LDMSampler"},
    }  # fmt: skip


def conditional(dims: int, sides: tuple[int, ...], network: dict[str, Any], **further: Any) -> dict[str, Any]:
    """Those of brain MRI and chest X-ray, which are told what to draw."""
    return {
        "imports": ["$import torch", "$from transformers import CLIPTextModel"],
        "bundle_root": ".", "model_dir": "$@bundle_root + '/models'", "device": "$torch.device('cpu')", "load_old": 1,
        "autoencoder_def": {
            "_target_": "monai.networks.nets.AutoencoderKL", "spatial_dims": dims, "in_channels": 1, "out_channels": 1,
            "latent_channels": 3, "channels": [4, 8], "num_res_blocks": 1, "norm_num_groups": 4, "norm_eps": 1e-6,
            "attention_levels": [False, False], "with_encoder_nonlocal_attn": False,
            "with_decoder_nonlocal_attn": False,
        },
        "load_autoencoder_path": "$@model_dir + '/autoencoder.pt'",
        "diffusion_def": {
            "_target_": "monai.networks.nets.DiffusionModelUNet", "spatial_dims": dims, "out_channels": 3,
            "channels": [8, 8], "num_res_blocks": 1, "attention_levels": [False, True], "norm_num_groups": 4,
            "norm_eps": 1e-6, "num_head_channels": [0, 4], "with_conditioning": True,
            "transformer_num_layers": 1, **network,
        },
        "load_diffusion_path": "$@model_dir + '/model.pt'",
        "scheduler": {
            "_target_": "monai.networks.schedulers.DDIMScheduler", "_requires_": ["@load_diffusion"], **BETAS,
            "beta_end": 0.0205,
        },
        "noise": f"$torch.randn((1, 3, {', '.join(map(str, sides))})).to(@device)",
        **further,
    }  # fmt: skip


def maisi(scheduler: dict[str, Any], **network: Any) -> dict[str, Any]:
    """The image model of MAISI: as it draws without masks, which its ControlNet is for."""
    return {
        "imports": ["$import torch", "$import scripts"],
        "bundle_root": ".", "model_dir": "$@bundle_root + '/models'", "spatial_dims": 3, "image_channels": 1,
        "latent_channels": 4, "output_size": [16, 16, 16], "spacing": [1.5, 1.5, 2.0], "modality": "ct",
        "latent_shape": ["@latent_channels", "$@output_size[0]//2", "$@output_size[1]//2", "$@output_size[2]//2"],
        "autoencoder_def": {
            "_target_": "monai.apps.generation.maisi.networks.autoencoderkl_maisi.AutoencoderKlMaisi",
            "spatial_dims": "@spatial_dims", "in_channels": "@image_channels", "out_channels": "@image_channels",
            "latent_channels": "@latent_channels", "num_channels": [4, 8], "num_res_blocks": [1, 1],
            "norm_num_groups": 4, "norm_eps": 1e-6, "attention_levels": [False, False],
            "with_encoder_nonlocal_attn": False, "with_decoder_nonlocal_attn": False, "use_checkpointing": False,
            "use_convtranspose": False, "norm_float16": False, "num_splits": 2, "dim_split": 1,
        },
        "diffusion_unet_def": {
            "_target_": "monai.apps.generation.maisi.networks.diffusion_model_unet_maisi.DiffusionModelUNetMaisi",
            "spatial_dims": "@spatial_dims", "in_channels": "@latent_channels", "out_channels": "@latent_channels",
            "num_channels": [8, 8], "attention_levels": [False, True], "num_head_channels": [0, 4], "num_res_blocks": 1,
            "norm_num_groups": 4, "include_spacing_input": True, "resblock_updown": True, "include_fc": True, **network,
        },
        "trained_autoencoder_path": "$@model_dir + '/autoencoder.pt'",
        "trained_diffusion_path": "$@model_dir + '/diff_unet.pt'",
        "checkpoint_diffusion_unet": "$torch.load(@trained_diffusion_path, weights_only=False)",
        "scale_factor": "$@checkpoint_diffusion_unet['scale_factor'].to(@device)",
        "noise_scheduler": scheduler,
    }  # fmt: skip


FLOW = {
    "_target_": "scripts.rectified_flow.RFlowScheduler", "num_train_timesteps": 1000, "use_discrete_timesteps": False,
    "use_timestep_transform": True, "sample_method": "logit-normal", "scale": 1.2,
}  # fmt: skip
BRAIN = {
    "gender": 0.0, "age": 0.1, "ventricular_vol": 0.2, "brain_vol": 0.4,
    "conditioning": "$torch.tensor([[@gender, @age, @ventricular_vol, @brain_vol]]).to(@device).unsqueeze(1)",
    "network_def": "@autoencoder_def",
}  # fmt: skip
BRAIN_NETWORK = {"in_channels": 7, "cross_attention_dim": 4, "resblock_updown": True, "upcast_attention": True}
CXR = {
    "prompt_list": "$['', 'effusion']", "guidance_scale": 7.0,
    "prompt_embeds": "$@text_encoder(@tokenized_prompt.input_ids.squeeze(1))[0].to(@device)",
}  # fmt: skip
MEDNIST = {
    "imports": ["$import scripts"], "device": "$torch.device('cpu')", "bundle_root": ".", "image_dim": 16,
    "network_def": {
        "_target_": "monai.networks.nets.DiffusionModelUNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 1,
        "channels": [8, 8], "attention_levels": [False, True], "num_res_blocks": 1, "num_head_channels": 8,
        "norm_num_groups": 4,
    },
    "ckpt_path": "$@bundle_root + '/models/model.pt'",
    "scheduler": {"_target_": "monai.networks.schedulers.DDPMScheduler", "num_train_timesteps": 1000},
    "noise": "$torch.rand(1,1,@image_dim,@image_dim)",
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "brats_mri_axial_slices_generative_diffusion": plain(2, 1, "num_channels", "generative", (8, 8)),
    "brats_mri_generative_diffusion": plain(
        3, 4, "channels", "monai", (4, 4, 4), with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False
    ),
    "brain_image_synthesis_latent_diffusion_model": conditional(3, (8, 8, 8), BRAIN_NETWORK, **BRAIN),
    "cxr_image_synthesis_latent_diffusion_model": conditional(
        2, (8, 8), {"in_channels": 3, "cross_attention_dim": 6}, **CXR
    ),
    "maisi_ct_generative": maisi(
        {"_target_": "monai.networks.schedulers.ddpm.DDPMScheduler", **BETAS, "beta_end": 0.0195},
        include_top_region_index_input=True, include_bottom_region_index_input=True,
    ),
    "maisi_ct_generative (rectified flow)": maisi(
        FLOW, include_top_region_index_input=False, include_bottom_region_index_input=False, num_class_embeds=128
    ),
    "mednist_ddpm": MEDNIST,
}  # fmt: skip
ZEROS = np.zeros((5, 6))
SIZES = {2: (1, 16, 16), 3: (1, 16, 16, 16)}
OTHER_SIZES = {"brats_mri_axial_slices_generative_diffusion": (1, 32, 32)}
FILES = ("load_autoencoder_path", "trained_autoencoder_path")
DIFFUSION = ("diffusion_def", "diffusion_unet_def", "network_def")


def written(name: str, folder: Path) -> Path:
    """The bundle's folder, with random weights where its config says that they lie."""
    config = CONFIGS[name]
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    if name == "mednist_ddpm":
        (folder / "configs" / "inference.yaml").write_text(yaml.safe_dump(config))
    else:
        (folder / "configs" / "inference.json").write_text(json.dumps(config))
    parser = ConfigParser({**config, "bundle_root": str(folder)})
    torch.manual_seed(0)
    if "autoencoder_def" in config:
        path = parser.get_parsed_content(next(key for key in FILES if key in config))
        torch.save(parser.get_parsed_content("autoencoder_def").state_dict(), path)
    network = parser.get_parsed_content(next(key for key in DIFFUSION if key in config))
    for parameter in network.parameters():  # the last convolution of a new network is zero, and hides the conditions
        torch.nn.init.normal_(parameter, std=0.2)
    weights = network.state_dict()
    path = parser.get_parsed_content(
        next(key for key in ("load_diffusion_path", "trained_diffusion_path", "ckpt_path") if key in config)
    )
    torch.save({"unet_state_dict": weights, "scale_factor": torch.tensor(0.9)} if "maisi" in name else weights, path)
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_each_bundle_of_the_zoo_is_built_from_its_config_and_sampled(name: str, tmp_path: Path) -> None:
    noisy = "DDPM" in str(CONFIGS[name].get("noise_scheduler", CONFIGS[name].get("scheduler")))  # noise at every step
    model = load_bundle(written(name, tmp_path), num_inference_steps=3, batch_size=1 if noisy else 2)
    told: dict[str, Any] = {}
    if name.startswith("cxr"):
        told["prompt_embeds"] = [torch.full((5, 6), value) for value in (0.1, 0.1, -2.0)]
        with pytest.raises(ConfigurationError, match="give its embedding for each image"):
            model.sample([1])
    images = model.sample([3, 3, 7], told)
    assert images.shape == (3, *OTHER_SIZES.get(name, SIZES[model.spatial_dims])) and np.isfinite(images).all()
    np.testing.assert_allclose(images[0], images[1], atol=1e-5)
    assert model.scale_factor == pytest.approx(0.9 if "maisi" in name else 1.0)


def test_real_images_are_denoised_under_the_conditions_of_the_config(tmp_path: Path) -> None:
    """Whatever was drawn before, and in batches of any size."""
    model = load_bundle(written("brain_image_synthesis_latent_diffusion_model", tmp_path), 2, batch_size=2)
    images = np.random.default_rng(0).random((3, 1, 16, 16, 16)).astype(np.float32)
    first = model.denoise_from(images, 0.6)
    model.sample([1], {"age": [0.9]})
    np.testing.assert_array_equal(model.denoise_from(images, 0.6), first)


def test_a_model_of_the_zoo_is_audited(tmp_path: Path) -> None:
    model = load_bundle(written("brats_mri_axial_slices_generative_diffusion", tmp_path / "bundle"), 2)
    pixels = np.stack([chest_phantom(number, (32, 32)) for number in range(32)])
    detector = str(untrained(tmp_path / "detector.pt"))
    quick: dict[str, Any] = {"n_bootstrap": 100, "planted": 0, "limit_copies": 0, "verification": False}
    found = audit_images(pixels[:8], pixels[8:], model, detector=detector, n_samples=6, progress=False, **quick)
    assert found.n_synthetic == 6 and "6 images of 32 x 32 pixels" in found.cohorts["synthetic"].notes[0]


@pytest.mark.parametrize(
    ("name", "condition", "values"),
    [
        ("brain_image_synthesis_latent_diffusion_model", "age", [0.1, 0.1, 0.9]),
        ("cxr_image_synthesis_latent_diffusion_model", "prompt_embeds", [ZEROS, ZEROS, ZEROS + 1]),
        ("maisi_ct_generative", "top_region", [(0, 1, 0, 0), (0, 1, 0, 0), (1, 0, 0, 0)]),
        ("maisi_ct_generative (rectified flow)", "modality", ["ct", 1, 8]),
    ],
)  # fmt: skip
def test_conditions_reach_the_images_one_by_one(name: str, condition: str, values: list[Any], tmp_path: Path) -> None:
    model = load_bundle(written(name, tmp_path), num_inference_steps=2, batch_size=1)
    latents = []
    decode = model.autoencoder.decode_stage_2_outputs
    model.autoencoder.decode_stage_2_outputs = lambda z: latents.append(z) or decode(z)  # type: ignore[method-assign]
    model.sample([3, 3, 3], {condition: values})
    drawn = torch.cat(latents)
    torch.testing.assert_close(drawn[0], drawn[1], atol=1e-4, rtol=1e-4)
    assert (drawn[0] - drawn[2]).abs().max() > 1e-3
    if condition == "age":
        np.testing.assert_allclose(model.sample([3]), model.sample([3], {"age": [0.1]}), atol=1e-6)
    with pytest.raises(ConfigurationError, match=r"this generator takes the conditions .*, got 'weight'"):
        model.sample([3], {"weight": [1]})

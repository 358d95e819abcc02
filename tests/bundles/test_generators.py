# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The three generator bundles, run as a user runs them, on phantoms of 16 pixels or voxels per axis."""

from __future__ import annotations

import csv
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

import monai
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out

from monai_memo.data.cohort import Cohort
from monai_memo.data.phantoms import knee_phantom
from monai_memo.data.writing import save_image
from monai_memo.errors import GeneratorError, MemoError, TrainingError
from monai_memo.generators.bundle_model import load_bundle
from monai_memo.generators.latent_diffusion import sample_seeds
from monai_memo.generators.weights import load_weights, save_weights, weights_sha256
from tests.generators.conftest import tiny_autoencoder, tiny_diffusion

ROOT = Path(__file__).parents[2]
BUNDLES = ("chest_xray_ldm", "knee_mri_ldm", "ct_angiography_ldm")
SHARED = ("train_autoencoder", "train_diffusion", "inference", "evaluate")
MULTI_GPU = ("multi_gpu_train_autoencoder", "multi_gpu_train_diffusion", "multi_gpu_inference")
DIFFERENT = {"spatial_dims", "image_format", "image_size"}
PREDICTIONS = ("epsilon", "v_prediction")
TINY: dict[str, Any] = {
    "latent_channels": 2,
    "autoencoder_channels": [4, 8],
    "autoencoder_res_blocks": 1,
    "autoencoder_norm_groups": 4,
    "autoencoder_batch_size": 4,
    "autoencoder_steps_per_epoch": 2,
    "autoencoder_epochs": 2,
    "discriminator_channels": 4,
    "discriminator_layers": 1,
    "diffusion_channels": [8, 8],
    "diffusion_attention": [False, True],
    "diffusion_head_channels": [0, 8],
    "diffusion_res_blocks": 1,
    "diffusion_norm_groups": 4,
    "diffusion_batch_size": 4,
    "diffusion_steps_per_epoch": 2,
    "diffusion_epochs": 2,
    "num_train_timesteps": 20,
    "num_inference_steps": 2,
    "sampling_batch_size": 4,
    "latent_variants": 2,
    "heldout_fraction": 0.5,
    "monitor_every": 1,
    "monitor_samples": 6,
    "device": "cpu",
    "workers": 1,
    "progress": False,
}


def config(bundle: str, name: str) -> Path:
    return ROOT / "bundles" / bundle / "configs" / f"{name}.json"


def record(bundle: str, name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(config(bundle, name).read_text(encoding="utf-8"))
    return result


def values(bundle: str, data: Path, out: Path, **further: Any) -> dict[str, Any]:
    size = [16] * record(bundle, "inference")["spatial_dims"]
    paths = {"bundle_root": ROOT / "bundles" / bundle, "dataset_dir": data, "output_dir": out, "model_dir": out}
    merged = {**TINY, "image_size": size, **paths, **further}
    return {key: str(value) if isinstance(value, Path) else value for key, value in merged.items()}


def run(bundle: str, name: str, kind: str | None = None, **overrides: Any) -> ConfigWorkflow:
    files = [str(config(bundle, part)) for part in (name, "small")]
    flow = ConfigWorkflow(config_file=files, workflow_type=kind, logging_file=False, **overrides)
    flow.initialize()
    if kind is not None:
        assert flow.check_properties() == []
    flow.run()
    return flow


def cause(caught: pytest.ExceptionInfo[BaseException]) -> BaseException:
    """What went wrong, under the wrapping of MONAI's config parser."""
    error: BaseException = caught.value
    while error.__cause__ is not None and not isinstance(error, MemoError):
        error = error.__cause__
    return error


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    path = list(sys.path)
    yield
    sys.path[:] = path
    monai.utils.set_determinism(None)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    for i in range(12):
        save_image(folder / f"p{i:02d}.nii.gz", knee_phantom(i, (16, 16, 16)))
    return folder


@pytest.fixture(scope="module")
def trained(chests: Path, detector_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Autoencoder and diffusion model of the chest bundle, after a few steps, with a monitor."""
    out = tmp_path_factory.mktemp("trained")
    run("chest_xray_ldm", "train_autoencoder", "train", **values("chest_xray_ldm", chests, out))
    settings = values("chest_xray_ldm", chests, out, detector_file=detector_file, keep_under=1.0)
    run("chest_xray_ldm", "train_diffusion", "train", **settings)
    return out


def test_bundles_differ_in_configuration_alone() -> None:
    for name in MULTI_GPU:
        assert len({config(bundle, name).read_bytes() for bundle in BUNDLES}) == 1, name
    for name in SHARED:
        first, *others = [record(bundle, name) for bundle in BUNDLES]
        for key in first:
            if any(other[key] != first[key] for other in others):
                assert key in DIFFERENT or not isinstance(first[key], dict), "numbers differ, components do not"
        assert all(list(other) == list(first) for other in others)
    for bundle in BUNDLES:
        for key, value in record(bundle, "small").items():
            assert all(key in record(bundle, name) for name in SHARED), key
            items = value if isinstance(value, list) else [value]
            assert all(isinstance(item, int | float) or item in PREDICTIONS for item in items), key


def components(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict) and "_target_" in node:
        yield node
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from components(item)


@pytest.mark.parametrize("name", [*SHARED, *MULTI_GPU])
def test_every_target_takes_the_arguments_it_is_given(name: str) -> None:
    for item in components(record("chest_xray_ldm", name)):
        target = locate(item["_target_"]) if "." in item["_target_"] else None
        if target is None or item.get("_mode_") == "callable":
            continue
        inspect.signature(target).bind(**{key: value for key, value in item.items() if not key.startswith("_")})


@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_and_networks_are_verified(bundle: str) -> None:
    schema = config(bundle, "schema")
    verify_metadata(meta_file=str(config(bundle, "metadata")), filepath=str(schema))
    meta, dims = record(bundle, "metadata"), record(bundle, "inference")["spatial_dims"]
    tiny = {key: value for key, value in TINY.items() if key.startswith(("auto", "diff", "disc", "latent_ch"))}
    for network, described, side in (
        ("network_def", "network_data_format", 8),
        ("verify#autoencoder", "autoencoder_data_format", 16),
        ("verify#discriminator", "discriminator_data_format", 16),
    ):
        form = json.loads(json.dumps(meta[described]))
        for tensor in (form["inputs"]["image"], form["outputs"]["pred"]):
            tensor["spatial_shape"] = [side] * dims
            if network == "network_def":
                assert tensor["num_channels"] == record(bundle, "inference")["latent_channels"]
                tensor["num_channels"] = 2
        arguments: dict[str, Any] = {
            "meta_file": str(config(bundle, "metadata")),
            "config_file": [str(config(bundle, "inference"))],
            "device": "cpu",
            "extra_forward_args": {"timesteps": torch.zeros(1)} if network == "network_def" else {},
            **tiny,
        }
        verify_net_in_out(network, **arguments, **{"_meta_#network_data_format": form})
        form["outputs"]["pred"]["num_channels"] += 1
        with pytest.raises(ValueError, match="doesn't match"):
            verify_net_in_out(network, **arguments, **{"_meta_#network_data_format": form})


@pytest.mark.parametrize("bundle", BUNDLES)
def test_full_size_networks_have_the_shapes_of_the_metadata(bundle: str) -> None:
    parser, meta = ConfigParser(record(bundle, "inference")), record(bundle, "metadata")
    with torch.device("meta"):
        autoencoder, diffusion = (parser.get_parsed_content(name) for name in ("autoencoder_def", "network_def"))
    latent = meta["network_data_format"]["inputs"]["image"]
    shape = [latent["num_channels"], *latent["spatial_shape"]]
    assert parser.get_parsed_content("latent_shape") == shape
    with torch.no_grad():
        images = torch.empty(1, 1, *record(bundle, "inference")["image_size"], device="meta")
        assert autoencoder.encode(images)[0].shape[1:] == torch.Size(shape)
        assert autoencoder.decode(torch.empty(1, *shape, device="meta")).shape == images.shape
    readme = (ROOT / "bundles" / bundle / "docs" / "README.md").read_text(encoding="utf-8")
    for network in (autoencoder, diffusion):
        millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        assert f"{millions:.1f} million" in readme


def test_training_leaves_its_split_and_sampling_ends_with_the_audit_of_it(
    chests: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training, heldout = (Cohort.from_source(trained / f"{name}.csv", name) for name in ("training", "heldout"))
    assert not set(training.patient_ids) & set(heldout.patient_ids)
    assert len(training) + len(heldout) == len(list(chests.iterdir()))
    run("chest_xray_ldm", "inference", **values("chest_xray_ldm", chests, tmp_path, model_dir=trained, n_samples=2))
    told = capsys.readouterr().out
    assert f"--train {trained / 'training.csv'} --heldout {trained / 'heldout.csv'}" in told
    assert f"--synthetic {tmp_path / 'manifest.csv'}" in told


def test_training_leaves_weights_curves_and_a_table(trained: Path) -> None:
    for stage in ("autoencoder", "diffusion"):
        assert (trained / stage / "checkpoint_epoch=2.pt").exists()
        assert list((trained / stage / "tensorboard").iterdir())
    with open(trained / "diffusion" / "copy_rate.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["epoch"], row["n_synthetic"]) for row in rows] == [("1", "6.0"), ("2", "6.0")]
    kept = torch.load(trained / "diffusion" / "model_under_limit.pt", weights_only=True)
    assert kept["latent_shape"] == [2, 8, 8] and kept["scale_factor"] > 0


@pytest.mark.parametrize("stage", ["autoencoder", "diffusion"])
def test_training_goes_on_after_a_kill_with_the_same_weights(
    stage: str, chests: Path, trained: Path, detector_file: Path, tmp_path: Path
) -> None:
    settings = values("chest_xray_ldm", chests, tmp_path, autoencoder_file=trained / "model_autoencoder.pt")
    if stage == "autoencoder":
        settings["autoencoder_file"] = str(tmp_path / "model_autoencoder.pt")
    else:
        settings |= {"detector_file": str(detector_file), "keep_under": 1.0}
    run("chest_xray_ldm", f"train_{stage}", **settings)
    final = tmp_path / stage / "checkpoint_epoch=2.pt"
    expected = torch.load(final, weights_only=True)
    final.unlink()
    run("chest_xray_ldm", f"train_{stage}", **settings)
    again = torch.load(final, weights_only=True)
    assert again["trainer"]["iteration"] == 4
    for name, tensor in expected["network"].items():
        assert torch.equal(again["network"][name], tensor), name
    if stage == "diffusion":
        histories = [[{**row, "seconds": 0} for row in s["copy_rate"]["monitor"]["history"]] for s in (expected, again)]
        assert histories[0] == histories[1] and len(histories[0]) == 2


def test_samples_follow_from_the_seed(chests: Path, trained: Path, tmp_path: Path) -> None:
    settings = values("chest_xray_ldm", chests, tmp_path / "samples", model_dir=trained, n_samples=5, seed=7)
    flow = run("chest_xray_ldm", "inference", "infer", **settings)
    assert len(list((tmp_path / "samples").glob("*.png"))) == 5
    assert flow.dataset[2]["image"].shape == (2, 8, 8)
    overrides = {**TINY, "image_size": [16, 16], "model_dir": str(trained)}
    model = load_bundle(ROOT / "bundles" / "chest_xray_ldm", profile="small", **overrides)
    np.testing.assert_allclose(
        model.sample(sample_seeds(7, range(5))),
        flow.parser.get_parsed_content("model").sample(sample_seeds(7, range(5))),
        atol=1e-5,
    )


def test_evaluation_gives_numbers_and_sheets(chests: Path, trained: Path, detector_file: Path, tmp_path: Path) -> None:
    settings = values("chest_xray_ldm", chests, trained, detector_file=detector_file, n_samples=10)
    run("chest_xray_ldm", "evaluate", **settings, **{"evaluation#output_dir": str(tmp_path)})
    found = json.loads((tmp_path / "evaluation.json").read_text())
    distances = {name: item["fid"] for name, item in found["distance_from_heldout"].items()}
    assert distances["training"] < distances["samples"], "real images are nearer than those of an untrained model"
    assert 0 < found["reconstruction"]["psnr"] < 40
    assert (tmp_path / "samples.png").exists() and (tmp_path / "reconstructions.png").exists()


@pytest.mark.parametrize("bundle", BUNDLES[1:])
def test_3d_bundles_train_and_sample(bundle: str, volumes: Path, tmp_path: Path) -> None:
    settings = values(bundle, volumes, tmp_path, autoencoder_epochs=1, diffusion_epochs=1)
    for name in ("train_autoencoder", "train_diffusion"):
        run(bundle, name, "train", **settings)
    run(bundle, "inference", "infer", **{**settings, "output_dir": str(tmp_path / "samples"), "n_samples": 2})
    assert len(list((tmp_path / "samples").glob("*.nii.gz"))) == 2


def test_missing_and_foreign_weights_are_named(chests: Path, trained: Path, tmp_path: Path) -> None:
    for file, words in (("nothing.pt", "no autoencoder weights at"), ("model.pt", "does not fit AutoencoderKL")):
        settings = values("chest_xray_ldm", chests, tmp_path, autoencoder_file=trained / file)
        with pytest.raises(Exception) as caught:
            run("chest_xray_ldm", "train_diffusion", **settings)
        assert isinstance(cause(caught), GeneratorError) and words in str(cause(caught))
    settings = values("chest_xray_ldm", chests, tmp_path / "out", model_dir=trained, n_samples=1)
    other = save_weights(tmp_path / "other.pt", tiny_autoencoder())
    for changed, words in (
        ({"autoencoder_file": str(other)}, "was trained with another autoencoder"),
        ({"latent_channels": 3}, "does not fit AutoencoderKL"),
        ({"network_def#in_channels": 3}, "takes 3 channels, the autoencoder's latents have 2"),
        ({"diffusion_channels": [16, 16]}, "another shape"),
        ({"prediction_type": "v_prediction"}, "trained with prediction_type epsilon"),
    ):
        with pytest.raises(Exception) as caught:
            run("chest_xray_ldm", "inference", **{**settings, **changed})
        assert isinstance(cause(caught), GeneratorError) and words in str(cause(caught))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["autoencoder", "diffusion"])
def test_nan_loss_stops_and_keeps_the_last_good_checkpoint(
    stage: str, chests: Path, trained: Path, tmp_path: Path
) -> None:
    settings = values("chest_xray_ldm", chests, tmp_path, autoencoder_file=trained / "model_autoencoder.pt")
    settings["autoencoder_file"] = str(tmp_path / "a.pt") if stage == "autoencoder" else settings["autoencoder_file"]
    files = [str(config("chest_xray_ldm", part)) for part in (f"train_{stage}", "small")]
    flow = ConfigWorkflow(config_file=files, logging_file=False, **settings)
    flow.initialize()
    trainer = flow.parser.get_parsed_content("train#trainer")
    network = flow.parser.get_parsed_content("network")

    def break_weights(engine: Any) -> None:
        if engine.state.iteration == 3:
            with torch.no_grad():
                next(network.parameters()).fill_(float("nan"))

    trainer.add_event_handler(monai.engines.workflow.Events.ITERATION_STARTED, break_weights)
    with pytest.raises(Exception) as caught:
        flow.run()
    assert isinstance(cause(caught), TrainingError) and "nan at step 3 (epoch 2)" in str(cause(caught))
    assert [path.name for path in (tmp_path / stage).glob("*.pt")] == ["checkpoint_epoch=1.pt"]
    kept = torch.load(tmp_path / stage / "checkpoint_epoch=1.pt", weights_only=True)["network"]
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())


def test_a_bundle_of_the_model_zoo_is_sampled_by_its_folder(tmp_path: Path) -> None:
    """The layout of the zoo's latent diffusion models: everything in inference.json, plain state dicts."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "models").mkdir()
    common = record("chest_xray_ldm", "inference")
    numbers = {key: value for key, value in TINY.items() if key.startswith(("auto", "diff", "latent_ch", "num_train"))}
    kept = ("spatial_dims", "image_channels", "prediction_type", "beta_start", "beta_end", "scheduler", "first_stage")
    kept += ("codebook_size",)
    kept += ("autoencoder_def", "network_def", "noise_scheduler")
    zoo = {
        **{key: common[key] for key in kept},
        **numbers,
        "condition_code": {"_target_": "monai_memo.generators.conditions.ConditionCode"},
        "latent_shape": [2, 8, 8],
        "load_autoencoder_path": "$@bundle_root + '/models/model_autoencoder.pt'",
        "load_diffusion_path": "$@bundle_root + '/models/model.pt'",
        "load_autoencoder": "$1 / 0",
        "run": ["$1 / 0"],
    }
    zoo["noise_scheduler"] = {**zoo["noise_scheduler"], "_requires_": ["@load_autoencoder"]}
    (tmp_path / "configs" / "inference.json").write_text(json.dumps(zoo))
    torch.manual_seed(0)
    autoencoder, diffusion = tiny_autoencoder(), tiny_diffusion()
    torch.save(autoencoder.state_dict(), tmp_path / "models" / "model_autoencoder.pt")
    torch.save(diffusion.state_dict(), tmp_path / "models" / "model.pt")
    model = load_bundle(tmp_path, num_inference_steps=2)
    assert weights_sha256(model.diffusion) == weights_sha256(diffusion) and model.scale_factor == 1
    assert model.sample([1, 2]).shape == (2, 1, 16, 16)
    out = tmp_path / "samples"
    run("chest_xray_ldm", "inference", **values("chest_xray_ldm", tmp_path, out, other_bundle=tmp_path, n_samples=2))
    assert len(list(out.glob("*.png"))) == 2
    with pytest.raises(GeneratorError, match="is no bundle"):
        load_bundle(tmp_path / "models")


def on_two_ranks(bundle: str, names: Sequence[str], folder: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    """What ``torchrun`` makes of a config, on the CPU."""
    files = [str(config(bundle, name)) for name in (names[0], "small", *names[1:])]
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"),
            *("monai.bundle", "run", f"--config_file={files}"),
            *(f"--{key}={value}" for key, value in settings.items()),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["autoencoder", "diffusion"])
def test_two_ranks_train_one_model(
    stage: str, chests: Path, trained: Path, detector_file: Path, tmp_path: Path
) -> None:
    settings = values("chest_xray_ldm", chests, tmp_path, autoencoder_epochs=1, diffusion_epochs=1)
    settings.pop("device")
    if stage == "diffusion":
        settings |= {"autoencoder_file": str(trained / "model_autoencoder.pt"), "detector_file": str(detector_file)}
    done = on_two_ranks("chest_xray_ldm", (f"train_{stage}", f"multi_gpu_train_{stage}"), tmp_path, **settings)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (done.stdout + done.stderr).count("weights written to") == 1
    if stage == "autoencoder":
        load_weights(tiny_autoencoder(), tmp_path / "model_autoencoder.pt")
        return
    load_weights(tiny_diffusion(), tmp_path / "model.pt")
    with open(tmp_path / "diffusion" / "copy_rate.csv", newline="") as stream:
        assert [row["n_synthetic"] for row in csv.DictReader(stream)] == ["6.0"], "three samples by each rank"


@pytest.mark.slow
def test_two_ranks_draw_the_files_of_one(tmp_path: Path) -> None:
    """Three batches for two ranks, the last one short."""
    torch.manual_seed(0)
    save_weights(tmp_path / "model_autoencoder.pt", tiny_autoencoder())
    save_weights(tmp_path / "model.pt", tiny_diffusion(), scale_factor=1.3)
    settings = values("chest_xray_ldm", tmp_path, tmp_path / "one", model_dir=tmp_path, n_samples=11, seed=5)
    run("chest_xray_ldm", "inference", "infer", **settings)
    settings["output_dir"] = str(tmp_path / "two")
    settings.pop("device")
    done = on_two_ranks("chest_xray_ldm", ("inference", "multi_gpu_inference"), tmp_path, **settings)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert len(one) == 12 and sorted(one) == sorted(two)
    assert one["manifest.csv"] == two["manifest.csv"]
    assert [name for name in one if one[name] != two[name]] == []


@pytest.mark.parametrize(("first_stage", "sampler"), [("none", "rflow"), ("vqvae", "pndm")])
def test_other_first_stages_and_samplers_train_and_sample_by_one_word_of_the_config(
    first_stage: str, sampler: str, chests: Path, tmp_path: Path
) -> None:
    chosen = {"first_stage": first_stage, "scheduler": sampler, "codebook_size": 8, "num_inference_steps": 4}
    settings = values("chest_xray_ldm", chests, tmp_path, autoencoder_epochs=1, diffusion_epochs=1, **chosen)
    if first_stage == "none":
        with pytest.raises(Exception) as caught:
            run("chest_xray_ldm", "train_autoencoder", **settings)
        assert "there is no autoencoder to train" in str(cause(caught))
    else:
        run("chest_xray_ldm", "train_autoencoder", "train", **settings)
    run("chest_xray_ldm", "train_diffusion", "train", **settings)
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    assert weights["latent_shape"] == ([1, 16, 16] if first_stage == "none" else [2, 8, 8])
    assert weights["prediction_type"] == ("rflow" if sampler == "rflow" else "epsilon")
    run("chest_xray_ldm", "inference", "infer", **{**settings, "output_dir": str(tmp_path / "samples"), "n_samples": 2})
    assert len(list((tmp_path / "samples").glob("*.png"))) == 2
    other = "ddim" if sampler == "rflow" else "ddpm"
    again = {**settings, "output_dir": str(tmp_path / "again"), "n_samples": 1, "scheduler": other}
    if sampler == "rflow":
        with pytest.raises(Exception) as caught:
            run("chest_xray_ldm", "inference", **again)
        assert isinstance(cause(caught), GeneratorError) and "set scheduler to rflow" in str(cause(caught))
    else:
        run("chest_xray_ldm", "inference", **again)

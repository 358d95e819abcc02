# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""One type for what gives images for seeds: a plain function, a model, a bundle, a folder of files."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image
from monai_memo.detector.detector import Detector
from monai_memo.errors import CohortError, ConfigurationError, OutputError
from monai_memo.generators.bundle_model import load_bundle
from monai_memo.generators.folder import FolderGenerator
from monai_memo.generators.latent_diffusion import LatentDiffusion
from monai_memo.generators.sampler import Sampler
from monai_memo.generators.weights import parameters_of
from monai_memo.handlers.copy_rate_monitor import CopyRateMonitor
from monai_memo.metrics.copy_rate import CopyRate
from monai_memo.sampling import FunctionGenerator, Generator, TrainedGenerator, as_generator
from monai_memo.study.pixel_training import PriorGenerator
from tests.generators.conftest import tiny_autoencoder, tiny_diffusion

SIZE = (16, 16)


def phantoms(seeds: Sequence[int]) -> np.ndarray:
    return np.stack([chest_phantom(int(seed), SIZE) for seed in seeds])


def tiny_bundle(folder: Path) -> Path:
    """The layout of the model zoo's latent diffusion models, with weights."""
    common = json.loads(
        (Path(__file__).parents[2] / "bundles" / "chest_xray_ldm" / "configs" / "inference.json").read_text()
    )
    parts = ("autoencoder_def", "network_def", "condition_code", "noise_scheduler")
    numbers = {
        "spatial_dims": 2, "image_channels": 1, "latent_channels": 2, "autoencoder_channels": [4, 8],
        "autoencoder_res_blocks": 1, "autoencoder_norm_groups": 4, "diffusion_channels": [8, 8],
        "diffusion_attention": [False, True], "diffusion_head_channels": [0, 8], "diffusion_res_blocks": 1,
        "diffusion_norm_groups": 4, "scheduler": "ddim",
        "first_stage": "autoencoder", "codebook_size": 8, "num_train_timesteps": 20,
        "prediction_type": "epsilon", "beta_start": 0.0015,
        "beta_end": 0.0205, "latent_shape": [2, 8, 8], "autoencoder_file": str(folder / "autoencoder.pt"),
        "diffusion_file": str(folder / "diffusion.pt"),
    }  # fmt: skip
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps({**{k: common[k] for k in parts}, **numbers}))
    torch.manual_seed(0)
    torch.save(tiny_autoencoder().state_dict(), folder / "autoencoder.pt")
    torch.save(tiny_diffusion().state_dict(), folder / "diffusion.pt")
    return folder


def written(folder: Path) -> list[np.ndarray]:
    """Pixels of a folder's samples, in order."""
    preprocessing = Preprocessing(2, SIZE)
    return [preprocessing(path) for path in sorted(folder.glob("*.png"))]


def test_a_plain_function_is_a_generator(tmp_path: Path) -> None:
    made = as_generator(phantoms)
    assert isinstance(made, Generator) and as_generator(made) is made
    np.testing.assert_array_equal(made.sample([3, 1]), phantoms([3, 1]))
    assert made.sample(range(2)).dtype == np.float32
    manifest = Sampler(made, tmp_path, 18, seed=2, progress=False, identity="phantoms").run()
    with open(manifest, newline="") as stream:
        rows = list(csv.DictReader(stream))
    expected = phantoms([int(row["seed"]) for row in rows])
    assert len(rows) == 18
    for image, wanted in zip(written(tmp_path), expected, strict=True):
        assert np.corrcoef(image.ravel(), wanted.ravel())[0, 1] > 0.999
    with pytest.raises(OutputError, match="another model or another seed"):
        Sampler(made, tmp_path, 18, seed=2, progress=False, identity="others").run()


def test_a_function_that_gives_something_else_is_told_what_is_asked_for() -> None:
    for wrong, words in (
        (lambda seeds: np.zeros((16, 16)), r"gave the shape \(16, 16\) for 3 seeds: \(3, channels, \*spatial\)"),
        (lambda seeds: phantoms(seeds)[:2], r"gave the shape \(2, 1, 16, 16\) for 3 seeds"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            FunctionGenerator(wrong).sample([1, 2, 3])
    with pytest.raises(ConfigurationError, match=r"by an object with a method sample\(seeds\), not by 5"):
        as_generator(5)  # type: ignore[arg-type]


def test_a_bundle_is_a_generator(tmp_path: Path) -> None:
    model: TrainedGenerator = load_bundle(tiny_bundle(tmp_path / "bundle"), num_inference_steps=2)
    assert isinstance(model, Generator) and as_generator(model) is model
    assert model.parameters == parameters_of(tiny_diffusion())
    images = model.sample([4, 9, 4])
    assert images.shape == (3, 1, 16, 16) and images.min() >= 0 and images.max() <= 1
    np.testing.assert_allclose(images[0], images[2], atol=1e-5)
    assert np.abs(images[0] - images[1]).max() > 1e-3


def test_a_folder_of_files_is_a_generator(tmp_path: Path) -> None:
    for number in range(4):
        save_image(tmp_path / "plain" / f"image{number}.png", chest_phantom(number, SIZE))
    folder: Generator = FolderGenerator(tmp_path / "plain", Preprocessing(2, SIZE))
    images = folder.sample([2, 0])
    assert images.shape == (2, 1, 16, 16) and images.dtype == np.float32
    for image, number in zip(images, (2, 0), strict=True):
        assert np.corrcoef(image.ravel(), chest_phantom(number, SIZE).ravel())[0, 1] > 0.999
    with pytest.raises(ConfigurationError, match="has no image for the seed 4: they go from 0 to 3"):
        folder.sample([1, 4])
    (tmp_path / "empty").mkdir()
    with pytest.raises(CohortError):
        FolderGenerator(tmp_path / "empty", Preprocessing(2, SIZE))


def test_seeds_of_a_manifest_name_the_images_of_its_folder(model: LatentDiffusion, tmp_path: Path) -> None:
    manifest = Sampler(model, tmp_path, 5, seed=3, progress=False).run()
    with open(manifest, newline="") as stream:
        seeds = [int(row["seed"]) for row in csv.DictReader(stream)]
    files = written(tmp_path)
    for source in (tmp_path, manifest):
        drawn = FolderGenerator(source, Preprocessing(2, SIZE)).sample([seeds[4], seeds[1]])
        np.testing.assert_array_equal(drawn, [files[4], files[1]])
    with pytest.raises(ConfigurationError, match=r"has no image for the seed 0: seeds stand in its manifest\.csv"):
        FolderGenerator(tmp_path, Preprocessing(2, SIZE)).sample([0])
    text = manifest.read_text()
    for found, other, words in (
        (str(seeds[2]), "many", r"the seed of sample_000002\.png must be a whole number, got 'many'"),
        (str(seeds[2]), str(seeds[0]), f"has two images with the seed {seeds[0]}"),
    ):
        manifest.write_text(text.replace(found, other))
        with pytest.raises(ConfigurationError, match=words):
            FolderGenerator(tmp_path, Preprocessing(2, SIZE))


def test_generators_without_conditions_refuse_them(model: LatentDiffusion, tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", chest_phantom(0, SIZE))
    decode = torch.nn.Linear(2, 4)
    prior = PriorGenerator(lambda latents: decode(latents).view(-1, 1, 2, 2), decode, 2, "cpu", 12)
    assert prior.sample([1, 2]).shape == (2, 1, 2, 2)
    generators: list[Generator] = [
        model, FunctionGenerator(phantoms), FolderGenerator(tmp_path, Preprocessing(2, SIZE)), prior
    ]  # fmt: skip
    for generator in generators:
        assert len(generator.sample([0], {})) == len(generator.sample([0], None)) == 1
        with pytest.raises(ConfigurationError, match="takes no conditions, got age, sex"):
            generator.sample([0], {"age": [50], "sex": ["F"]})


def test_the_sampler_asks_for_an_identity_and_a_format_that_fits(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="FunctionGenerator does not say what decides its images"):
        Sampler(FunctionGenerator(phantoms), tmp_path, 2)
    with pytest.raises(ConfigurationError, match=r"image_format must be 'png' for a 2D model, got 'nii\.gz'"):
        Sampler(FunctionGenerator(phantoms), tmp_path, 2, image_format="nii.gz", identity="a", progress=False).run()
    assert not list(tmp_path.glob("sample*"))
    with pytest.raises(ConfigurationError, match=r"image_format must be one of png, nii\.gz, got 'jpg'"):
        Sampler(FunctionGenerator(phantoms), tmp_path, 2, image_format="jpg", identity="a")


@pytest.mark.parametrize("kind", ["function", "object", "folder"])
def test_the_monitor_draws_from_each_of_them(kind: str, detector_file: Path, tmp_path: Path) -> None:
    detector = Detector.load(detector_file)
    known = np.stack([chest_phantom(i, (32, 32)) for i in range(60)])
    metric = CopyRate(detector.embed(known[:30]), detector.embed(known[30:]), n_bootstrap=20)
    for number in range(6):
        save_image(tmp_path / "drawn" / f"{number}.png", known[number])

    def copies(seeds: Sequence[int]) -> np.ndarray:
        return known[list(seeds)]

    draws: dict[str, Any] = {
        "function": copies,
        "object": FunctionGenerator(copies),
        "folder": FolderGenerator(tmp_path / "drawn", detector.preprocessing),
    }
    monitor = CopyRateMonitor(draws[kind], detector, metric, tmp_path / "copy_rate.csv", n_samples=6)
    engine = Engine(lambda *_: None)
    monitor.attach(engine)
    engine.run([0], max_epochs=1)
    assert monitor.history[0]["n_synthetic"] == 6 and monitor.history[0]["n_copies"] == 6

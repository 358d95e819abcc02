# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Other generators behind one door: TorchScript, pipelines of diffusers, bundles in YAML, folders, functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image
from monai_memo.errors import ConfigurationError, GeneratorError
from monai_memo.generators.anything import load_generator
from monai_memo.generators.diffusers import DiffusersGenerator
from monai_memo.generators.folder import FolderGenerator
from monai_memo.generators.latent_diffusion import LatentDiffusion, starting_noise
from monai_memo.generators.sampler import Sampler
from monai_memo.generators.torchscript import TorchScriptGenerator
from monai_memo.sampling import FunctionGenerator, Generator
from tests.generators.test_protocol import tiny_bundle


class Decoder(nn.Module):
    """A GAN's generator, with images in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 64)

    def forward(self, noise: Tensor) -> Tensor:
        return torch.tanh(self.layer(noise)).view(-1, 1, 8, 8)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "generator.ts"
    torch.jit.trace(Decoder(), torch.zeros(2, 4)).save(str(path))
    return path


def test_a_torchscript_file_is_a_generator(script: Path, tmp_path: Path) -> None:
    model = load_generator(script, noise_shape=[4], batch_size=2)
    assert isinstance(model, TorchScriptGenerator) and isinstance(model, Generator)
    images = model.sample([3, 1, 3])
    assert images.shape == (3, 1, 8, 8) and images.dtype == np.float32
    with torch.no_grad():
        wanted = (Decoder()(starting_noise([3, 1, 3], (4,))).numpy() + 1) / 2
    np.testing.assert_allclose(images, wanted, atol=1e-6)
    assert model.sample([]).shape == (0,)
    manifest = Sampler(model, tmp_path / "samples", 3, progress=False).run()
    assert len(list(manifest.parent.glob("*.png"))) == 3
    with pytest.raises(ConfigurationError, match="takes no conditions, got age"):
        model.sample([1], {"age": [50]})


def test_what_is_no_torchscript_or_takes_another_noise_is_told_what_to_do(script: Path, tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match=r"does not take noise of the shape \(1, 5\).*noise_shape"):
        TorchScriptGenerator(script, (5,)).sample([1])
    (tmp_path / "weights.pt").write_bytes(b"nothing")
    with pytest.raises(
        GeneratorError, match=r"weights\.pt is no TorchScript file: save the model with torch\.jit\.save"
    ):
        TorchScriptGenerator(tmp_path / "weights.pt", (4,))
    with pytest.raises(GeneratorError, match="no TorchScript file at"):
        TorchScriptGenerator(tmp_path / "nowhere.ts", (4,))
    with pytest.raises(ConfigurationError, match="noise_shape"):
        TorchScriptGenerator(script, ())


class Pipeline:
    """What is asked of a pipeline of diffusers, which draws the seed, the class and the step as grey values."""

    components: dict[str, object] = {}  # noqa: RUF012

    def set_progress_bar_config(self, **_: object) -> None: ...

    def to(self, device: torch.device) -> Pipeline:
        return self

    def __call__(
        self, class_labels: Any = (0,), generator: Any = None, num_inference_steps: int = 50, output_type: str = "pil"
    ) -> tuple[np.ndarray]:
        assert output_type == "np" and len(class_labels) in (1, len(generator))
        labels = np.broadcast_to(np.asarray(class_labels), len(generator))
        values = [
            [one.initial_seed() / 100, label / 10, num_inference_steps / 100]
            for one, label in zip(generator, labels, strict=True)
        ]
        return (np.broadcast_to(np.array(values)[:, None, None, :], (len(values), 8, 8, 3)),)


def test_seeds_and_conditions_reach_a_pipeline_one_by_one() -> None:
    model = DiffusersGenerator(Pipeline(), {"num_inference_steps": 7}, batch_size=2)
    images = model.sample([3, 5, 9], {"class_labels": [1, 2, 3]})
    assert images.shape == (3, 3, 8, 8)
    np.testing.assert_allclose(images[:, :, 0, 0], [[0.03, 0.1, 0.07], [0.05, 0.2, 0.07], [0.09, 0.3, 0.07]], atol=1e-6)
    with pytest.raises(
        ConfigurationError, match=r"cannot hand on 'age': the pipeline takes class_labels, num_inference"
    ):
        model.sample([1], {"age": [3]})
    with pytest.raises(ConfigurationError, match="conditions: 1 values of class_labels for 2 images"):
        model.sample([1, 2], {"class_labels": [3]})
    with pytest.raises(ConfigurationError, match="cannot hand on 'generator'"):
        DiffusersGenerator(Pipeline(), {"generator": None})


def test_a_pipeline_of_diffusers_is_a_generator_by_its_folder(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=16, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=10)
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(str(tmp_path / "pipeline"))
    model = load_generator(tmp_path / "pipeline", call={"num_inference_steps": 2}, batch_size=2)
    assert isinstance(model, DiffusersGenerator)
    before = torch.random.get_rng_state()
    images = model.sample([4, 9, 4])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert images.shape == (3, 1, 16, 16) and images.min() >= 0 and images.max() <= 1
    np.testing.assert_allclose(images[0], images[2], atol=1e-5)
    assert np.abs(images[0] - images[1]).max() > 1e-3
    assert Sampler(model, tmp_path / "samples", 2, progress=False).run().is_file()
    other = DiffusersGenerator.from_folder(tmp_path / "pipeline", {"num_inference_steps": 3})
    assert other.identity() != model.identity()
    with pytest.raises(GeneratorError, match=r"holds no pipeline of diffusers: there is no model_index\.json"):
        DiffusersGenerator.from_folder(tmp_path)


def test_a_bundle_in_yaml_gives_the_images_of_the_same_one_in_json(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path / "bundle")
    of_json = load_generator(folder, num_inference_steps=2)
    assert isinstance(of_json, LatentDiffusion)
    config = folder / "configs" / "inference.json"
    (folder / "configs" / "inference.yaml").write_text(yaml.safe_dump(yaml.safe_load(config.read_text())))
    config.unlink()
    np.testing.assert_array_equal(load_generator(folder, num_inference_steps=2).sample([1]), of_json.sample([1]))


def test_functions_folders_and_tables_come_through_the_same_door(tmp_path: Path) -> None:
    def draw(seeds: Sequence[int]) -> Tensor:
        return torch.stack([torch.from_numpy(chest_phantom(seed, (16, 12))) for seed in seeds]).requires_grad_() * 2 - 1

    model = load_generator(draw)
    assert isinstance(model, FunctionGenerator)
    np.testing.assert_allclose(model.sample([5])[0], chest_phantom(5, (16, 12)), atol=1e-6)
    for number in range(3):
        save_image(tmp_path / "images" / f"{number}.png", chest_phantom(number, (16, 12)))
    folder = load_generator(tmp_path / "images")
    assert isinstance(folder, FolderGenerator) and folder.sample([2]).shape == (1, 1, 16, 12), "at their own size"
    (tmp_path / "table.csv").write_text("image,seed\nimages/1.png,77\n")
    np.testing.assert_array_equal(load_generator(tmp_path / "table.csv").sample([77]), folder.sample([1]))
    with pytest.raises(ConfigurationError, match="there is no generator at"):
        load_generator(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="batch_size: a generator of Python takes no options"):
        load_generator(draw, batch_size=4)


def test_a_torchscript_file_that_gives_no_tensor_is_told_what_to_do(tmp_path: Path) -> None:
    class Pair(nn.Module):
        def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
            return noise.view(-1, 1, 8, 8), noise

    torch.jit.trace(Pair(), torch.zeros(2, 64)).save(str(tmp_path / "pair.ts"))
    with pytest.raises(GeneratorError, match=r"gives tuple where images as one tensor.*a function of seeds"):
        load_generator(tmp_path / "pair.ts", noise_shape=[64]).sample([1, 2])


def test_options_of_another_kind_of_generator_are_named_with_those_that_there_are(script: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"a TorchScript file, which takes the options noise_shape, .*missing"):
        load_generator(script)
    save_image(tmp_path / "images" / "0.png", chest_phantom(0, (16, 12)))
    with pytest.raises(ConfigurationError, match=r"drawn earlier, which takes the options preprocessing: .*'size'"):
        load_generator(tmp_path / "images", size=64)


def test_a_folder_in_colour_stays_in_colour(tmp_path: Path) -> None:
    image = chest_phantom(0, (16, 12))
    for number in range(2):
        save_image(tmp_path / f"{number}.png", np.concatenate([image, image * 0.5, image * (0.2 + number / 10)]))
    assert load_generator(tmp_path).sample([0, 1]).shape == (2, 3, 16, 12)


def test_a_pipeline_is_grey_where_all_three_channels_are_equal_and_not_two_of_them() -> None:
    class Painted(Pipeline):
        def __call__(self, generator: Any = None, output_type: str = "np") -> tuple[np.ndarray]:  # type: ignore[override]
            shades = np.linspace(0, 1, 64).reshape(8, 8)
            middle = [one.initial_seed() % 2 for one in generator]
            return (np.stack([np.stack([shades, shades * (1 - each), shades], axis=-1) for each in middle]),)

    model = DiffusersGenerator(Painted(), batch_size=1)
    assert model.sample([2, 4]).shape == (2, 1, 8, 8)
    assert model.sample([2, 1]).shape == (2, 3, 8, 8), "a batch of grey images and one of coloured ones"


def test_values_that_a_file_would_cut_off_are_refused_before_they_are_written(tmp_path: Path) -> None:
    """All of them would be white."""
    model = FunctionGenerator(lambda seeds: [chest_phantom(seed, (16, 12)) * 255.0 for seed in seeds])
    with pytest.raises(ConfigurationError, match=r"has values from .* to 2\d\d.*, and files would cut them off"):
        Sampler(model, tmp_path / "samples", 2, progress=False, identity="of 255").run()
    assert not list((tmp_path / "samples").glob("*.png"))


def test_an_option_that_a_bundle_does_not_have_is_refused_and_not_ignored(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path / "bundle")
    with pytest.raises(ConfigurationError, match=r"has no num_inference_step, .*Did you mean num_inference_steps\?"):
        load_generator(folder, num_inference_step=2)
    with pytest.raises(ConfigurationError, match="guidance_scale must be a number from 0 to 100, got -1"):
        load_generator(folder, num_inference_steps=2, guidance_scale=-1)

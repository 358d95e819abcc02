# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from monai_memo.errors import ConfigurationError
from monai_memo.study.configuration import StudyConfiguration
from tests.study.conftest import ROOT, write_grid


def test_runs_differ_from_the_base_in_one_factor_and_stand_once(grid: dict[str, Any], tmp_path: Path) -> None:
    grid |= {
        "factors": {"n_patients": [12, 6], "steps": [4, 2, 6], "generator": ["vae", "gan"]},
        "seeds": [3, 5],
        "further": [{"n_patients": 6, "augmentation": "flips"}],
    }
    grid["generators"]["gan"]["base"] = {"steps": 8}
    plan = StudyConfiguration.read(write_grid(grid, tmp_path)).plan()
    assert [planned.run.name for planned in plan if planned.run.seed == 3] == [
        "vae-12p-none-small-2-seed3",
        "vae-12p-none-small-4-seed3",
        "vae-6p-none-small-4-seed3",
        "gan-12p-none-small-8-seed3",
        "vae-12p-none-small-6-seed3",
        "vae-6p-flips-small-4-seed3",
    ]
    assert [planned.run.seed for planned in plan] == [3] * 6 + [5] * 6, "the first seed comes first"
    assert plan[1].levels == (("steps", 4), ("n_patients", 12), ("generator", "vae"))
    assert plan[5].levels == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": None}, "dataset is missing: name it there or with --dataset"),
        ({"dataset": ""}, "dataset must be the name of a folder, a CSV or a MONAI datalist, got '': it is empty"),
        ({"seeds": []}, "seeds must be 1 to 1000 values"),
        ({"seeds": [0, -1]}, "seeds must be 1 to 1000 values, each a whole number from 0"),
        ({"seeds": [3, 3]}, "seeds has 3 more than once"),
        ({"n_samples": 3}, "n_samples must be a whole number from 20 to 1000000, got 3"),
        ({"n_samples": "many"}, "n_samples must be a whole number from 20 to 1000000, got 'many'"),
        ({"n_samples": True}, "n_samples must be a whole number"),
        ({"image_size": [32]}, "image_size must be 2 to 3 values"),
        ({"image_size": [32, 30]}, r"generators.vae.settings: 2 levels of channels need .* 4 divides"),
        ({"image_size": [32, 32, 32]}, r"generators.ldm.settings: the bundle is for 2D, image_size \[32, 32, 32\]"),
        ({"detector_epochs": 1.5}, "detector_epochs must be a whole number from 1"),
        ({"seed": "x"}, "seed must be a whole number"),
        ({"factors": None}, "factors must be keys with values, got None"),
        ({"factors": {"colour": [1]}}, "factors must be among n_patients"),
        ({"factors": {"step": [1]}}, "got 'step' .did you mean steps"),
        ({"factors": {"steps": 4}}, "factor steps needs a list of levels, got 4"),
        ({"factors": {"steps": [4, 8, 4]}}, "factors.steps has 4 more than once"),
        ({"factors": {"augmentation": ["mirrors"]}}, "augmentation must be one of none, flips, flips and rotations"),
        ({"factors": {"network": ["huge"]}}, "generator vae has the networks small, large, got 'huge'"),
        ({"factors": {"generator": ["flow"]}}, "generator must be one of ldm, vae, gan, got 'flow'"),
        ({"factors": {"n_patients": [0.5]}}, "factors.n_patients must be a whole number from 1 to 1000000, got 0.5"),
        ({"factors": {"steps": [3]}}, "steps of vae must be a multiple of its steps_per_epoch .2., got 3"),
        ({"base": {"generator": "vae"}}, "base must have all of .*: augmentation, n_patients, network, steps is miss"),
        ({"base": [1]}, "base must be keys with values, got "),
        ({"further": [{"patients": 3}]}, "unknown key further.1.patients: did you mean n_patients"),
        ({"further": [3]}, "further must be 0 to 1000 values, each keys with values"),
        ({"generators": {}}, "generators must have one entry at least"),
        ({"generators": {"vae": 3}}, "generators.vae must be keys with values, got 3"),
        ({"generators": {"vae": {}}}, "generators.vae.kind is missing"),
        ({"generators": {"vae": {"kind": "flow"}}}, "generators.vae.kind must be one of latent_diffusion, var"),
        ({"generators": {"vae": {"kind": "latent_diffusion"}}}, "generators.vae.bundle is missing: name the folder"),
        (
            {"generators": {"vae": {"kind": "gan", "layers": 3}}},
            "unknown key generators.vae.layers: known are kind, se",
        ),
        (
            {"generators": {"vae": {"kind": "gan", "bundle": "x"}}},
            "generators.vae.bundle is for latent_diffusion alone",
        ),
        ({"generators": {"vae": {"kind": "gan", "base": {"step": 3}}}}, "generators.vae.base.step: did you mean steps"),
        ({"generators": {"vae": {"kind": "gan", "networks": {"small": 3}}}}, "networks.small must be keys with values"),
        ({"weeks": 3}, "unknown key weeks: did you mean seeds"),
        ({"n_sample": 30}, "unknown key n_sample: did you mean n_samples"),
        ({7: 30}, "unknown key 7: known are base, factors, seeds"),
    ],
)
def test_what_is_wrong_is_named(grid: dict[str, Any], change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write_grid({**grid, **change}, tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        StudyConfiguration.read(path)


@pytest.mark.parametrize(
    ("generator", "change", "message"),
    [
        ("vae", {"latent_sise": 4}, "unknown key generators.vae.settings.latent_sise: did you mean latent_size"),
        (
            "vae",
            {"latent_size": 0},
            "generators.vae.settings.latent_size must be a whole number from 1 to 65536, got 0",
        ),
        ("gan", {"learning_rate": 1e30}, "generators.gan.settings.learning_rate must be a number between 0 and 1"),
        (
            "gan",
            {"learning_rate": float("nan")},
            "generators.gan.settings.learning_rate must be a number between 0 and",
        ),
        (
            "gan",
            {"discriminator_channels": []},
            "generators.gan.settings.discriminator_channels must be 1 to 10 values",
        ),
        ("gan", {"kl_weight": 1.0}, "unknown key generators.gan.settings.kl_weight: known are channels"),
        (
            "ldm",
            {"diffusion_chanels": [8, 8]},
            "unknown key generators.ldm.settings.diffusion_chanels: did you mean di",
        ),
        (
            "ldm",
            {"num_inference_steps": 0},
            "generators.ldm.settings.num_inference_steps must be a whole number from 1",
        ),
        ("ldm", {"num_inference_steps": 5000}, "num_inference_steps must be at most num_train_timesteps"),
        ("ldm", {"diffusion_channels": [8, 8, 8]}, "generators.ldm.settings: .* must have one value for each level"),
        ("ldm", {"seed": 3}, "generators.ldm.settings.seed is set by the study from seeds: leave it out"),
        ("ldm", {"diffusion_epochs": 3}, "generators.ldm.settings.diffusion_epochs is set by the study from steps"),
    ],
)
def test_settings_of_a_generator_are_checked_by_its_kind(
    grid: dict[str, Any], generator: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    entry = grid["generators"][generator]
    entry["settings"] = {**entry["settings"], **change}
    path = write_grid(grid, tmp_path)
    with pytest.raises(ConfigurationError, match=message) as refused:
        StudyConfiguration.read(path)
    assert all(line.startswith(f"{path}: ") for line in str(refused.value).splitlines())


def test_settings_of_a_network_size_are_named_by_it(grid: dict[str, Any], tmp_path: Path) -> None:
    grid["generators"]["vae"]["networks"]["large"] = {"channels": [8, 0], "bach_size": 2}
    with pytest.raises(ConfigurationError) as refused:
        StudyConfiguration.read(write_grid(grid, tmp_path))
    path = tmp_path / "study.yaml"
    assert str(refused.value).splitlines() == [
        f"{path}: generators.vae.networks.large.channels must be 1 to 10 values, each a whole number from 1 to 65536, "
        "such as 64,128, got [8, 0]",
        f"{path}: unknown key generators.vae.networks.large.bach_size: did you mean batch_size?",
    ]


def test_everything_that_is_wrong_is_told_at_once(grid: dict[str, Any], tmp_path: Path) -> None:
    grid["base"]["steps"] = 0
    grid["factors"] = {"augmentation": ["flipps"]}
    grid["generators"]["gan"]["settings"]["batch_size"] = "all"
    with pytest.raises(ConfigurationError) as refused:
        StudyConfiguration.read(write_grid(grid, tmp_path))
    lines = str(refused.value).splitlines()
    assert [line.split(": ")[1].split(" ")[0] for line in lines] == [
        "base.steps", "factors.augmentation", "generators.gan.settings.batch_size",
    ]  # fmt: skip


def test_values_arrive_in_their_types(grid: dict[str, Any], tmp_path: Path) -> None:
    """YAML reads 1e-3 as text, and a name 2024 as a number."""
    grid["base"] |= {"n_patients": "12", "network": 2024, "augmentation": "None"}
    grid["generators"]["vae"] |= {"networks": {2024: {"batch_size": "8"}}}
    grid["generators"]["vae"]["settings"]["learning_rate"] = "1e-3"
    grid["generators"]["ldm"]["networks"] = {"small": {"diffusion_learning_rate": "2e-4"}}
    found = StudyConfiguration.read(write_grid(grid, tmp_path))
    run = found.plan()[0].run
    assert (run.n_patients, run.network, run.augmentation) == (12, "2024", "none")
    settings = found.generators["vae"].settings_of(run.network)
    assert (settings["learning_rate"], settings["batch_size"], settings["channels"]) == (0.001, 8, [4, 8])
    assert found.generators["ldm"].settings_of("small")["diffusion_learning_rate"] == 0.0002


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: [0]\nseeds: [1]\n", "the key seeds stands there twice"),
        ("base: {steps: 3, steps: 4}\n", "the key steps stands there twice"),
        ("[" * 5000, "cannot read the study .*: "),
        ("base: !!python/object/apply:os.getcwd []\n", "cannot read the study"),
        ("? [1]\n: 2\n", "cannot read the study"),
        ("a: \x00\n", "cannot read the study"),
        ("2001-99-01\n", "cannot read the study"),
    ],
)
def test_text_that_is_no_study_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        StudyConfiguration.read(path)


def test_files_that_hold_no_study(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read the study"):
        StudyConfiguration.read(tmp_path / "nothing.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigurationError, match="must hold keys and values"):
        StudyConfiguration.read(tmp_path / "list.yaml")
    (tmp_path / "short.json").write_text('{"base": {}}')
    with pytest.raises(ConfigurationError, match="generators is missing"):
        StudyConfiguration.read(tmp_path / "short.json")


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_studies_of_the_docs_can_be_read(path: Path) -> None:
    configuration = StudyConfiguration.read(path, dataset="TRAIN", heldout="HELDOUT")
    assert len(configuration.plan()) > 3
    for entry in configuration.generators.values():
        assert entry.bundle is None or (Path(entry.bundle) / "configs" / "train_diffusion.json").is_file()
    # Their results are found by fingerprints of these values: none may change by being read.
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, entry in configuration.generators.items():
        raw = written["generators"][name]
        assert repr(sorted(entry.settings.items())) == repr(sorted(raw["settings"].items()))
        assert entry.networks == raw.get("networks", {}) and entry.base == raw.get("base", {})
    assert configuration.base == written["base"] and configuration.factors == written["factors"]

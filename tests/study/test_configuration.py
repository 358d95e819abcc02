# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
        ({"dataset": None}, "dataset is missing"),
        ({"seeds": []}, "seeds"),
        ({"n_samples": 3}, "n_samples must be at least 20"),
        ({"image_size": [32]}, "image_size must have 2 or 3 numbers"),
        ({"factors": {"colour": [1]}}, "factors must be among n_patients"),
        ({"factors": {"steps": 4}}, "factor steps needs a list"),
        ({"factors": {"augmentation": ["mirrors"]}}, "augmentation must be one of none, flips, flips and rotations"),
        ({"factors": {"network": ["huge"]}}, "generator vae has the networks small, large, got 'huge'"),
        ({"factors": {"generator": ["flow"]}}, "generator must be one of ldm, vae, gan, got 'flow'"),
        ({"factors": {"n_patients": [0.5]}}, "n_patients must be a whole number"),
        ({"base": {"generator": "vae"}}, "base must have all of"),
        ({"further": [{"patients": 3}]}, "a run has the values"),
        ({"generators": {"vae": {"kind": "flow"}}}, "kind must be one of"),
        ({"generators": {"vae": {"kind": "latent_diffusion"}}}, "name the folder of its bundle"),
        ({"generators": {"vae": {"kind": "gan", "layers": 3}}}, "a generator got an unexpected keyword"),
        ({"weeks": 3}, "the study got an unexpected keyword"),
    ],
)
def test_what_is_wrong_is_named(grid: dict[str, Any], change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write_grid({**grid, **change}, tmp_path)
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

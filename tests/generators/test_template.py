# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The three generator bundles are what the template and their parameters make."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from monai_memo.errors import ConfigurationError
from monai_memo.generators.template import read_parameters, render_bundle, write_bundles

BUNDLES = Path(__file__).parents[2] / "bundles"
TEMPLATE = BUNDLES / "template"
NAMES = ["chest_xray_ldm", "ct_angiography_ldm", "knee_mri_ldm"]
MADE = ("configs", "docs")  # folders that hold nothing but what the template makes; runs write into the others


def names(folder: Path, inside: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in (folder / inside).rglob("*") if path.is_file())


@pytest.fixture
def chest(tmp_path: Path) -> Path:
    """A template with the chest X-rays' parameters alone, to change."""
    shutil.copytree(TEMPLATE / "bundle", tmp_path / "template" / "bundle")
    (tmp_path / "template" / "parameters").mkdir()
    shutil.copy(TEMPLATE / "parameters" / "chest_xray_ldm.yaml", tmp_path / "template" / "parameters")
    return tmp_path / "template"


def change(template: Path, section: str | None, **values: object) -> Path:
    path = template / "parameters" / "chest_xray_ldm.yaml"
    found = yaml.safe_load(path.read_text())
    (found if section is None else found[section]).update(values)
    path.write_text(yaml.safe_dump(found))
    return path


def test_the_bundles_are_byte_for_byte_what_the_template_makes(tmp_path: Path) -> None:
    folders = write_bundles(TEMPLATE, tmp_path)
    assert [folder.name for folder in folders] == NAMES
    for folder in folders:
        committed = BUNDLES / folder.name
        differing = [
            name
            for name in names(folder, ".")
            if not (committed / name).is_file() or (committed / name).read_bytes() != (folder / name).read_bytes()
        ]
        for inside in MADE:
            differing += sorted(set(names(committed, inside)) - set(names(folder, inside)))
        assert not differing, (
            f"{folder.name}: change bundles/template, then run python -m monai_memo.generators.template "
            "bundles/template bundles"
        )


def test_files_that_a_bundle_has_besides_are_left_alone(tmp_path: Path) -> None:
    weights = tmp_path / "knee_mri_ldm" / "models" / "model.pt"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    write_bundles(TEMPLATE, tmp_path)
    assert weights.read_bytes() == b"weights" and (weights.parent / "README.md").is_file()


def test_sizes_of_latents_follow_from_the_parameters(chest: Path) -> None:
    change(chest, "full", image_size=[256, 128], latent_channels=2)
    (folder,) = write_bundles(chest, chest.parent / "out")
    latents = json.loads((folder / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    assert latents["num_channels"] == 2 and latents["spatial_shape"] == [32, 16]
    assert latents["channel_def"] == {"0": "latent", "1": "latent"}
    assert "256 x 128 pixels" in (folder / "docs" / "README.md").read_text()


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("full", {"diffusion_chanels": [8]}, r"full\.diffusion_chanels comes to stand in no place of common\.json"),
        ("small", {"predicton_type": "epsilon"}, r"small\.predicton_type comes to stand in no place of small\.json"),
        (None, {"axis": "left-right"}, "nothing in the template asks for axis"),
        ("full", {"image_size": [100, 100]}, r"image_size \[100, 100\] must be divisible by 8"),
        ("full", {"image_size": None}, "the section full needs image_size, latent_channels and autoencoder_channels"),
    ],
)
def test_parameters_that_would_vanish_or_do_not_fit_are_refused(
    chest: Path, section: str | None, values: dict[str, object], words: str
) -> None:
    path = change(chest, section, **values)
    with pytest.raises(ConfigurationError, match=words):
        render_bundle(chest, path)


def test_what_the_template_asks_for_and_nobody_gives_is_named(chest: Path, tmp_path: Path) -> None:
    path = chest / "parameters" / "chest_xray_ldm.yaml"
    path.write_text(path.read_text().replace("title: Chest X-ray\n", ""))
    with pytest.raises(ConfigurationError, match=r"chest_xray_ldm.yaml does not fill .*README.md.jinja: 'title'"):
        write_bundles(chest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for text, words in (("- a list", "holds list and no names"), ("a: [", "is no file of parameters")):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=words):
            read_parameters(path)
    for empty in (tmp_path / "nothing", tmp_path / "out"):
        with pytest.raises(ConfigurationError, match="is no template"):
            write_bundles(empty, tmp_path / "out")
    with pytest.raises(ConfigurationError, match="is no template: there is no folder bundle"):
        render_bundle(tmp_path, TEMPLATE / "parameters" / "chest_xray_ldm.yaml")

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The switches of a generator bundle against copying, run as a user runs them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from monai_memo.data.cohort import Cohort
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image
from monai_memo.duplicates.before_training import DONE, sources
from monai_memo.errors import ConfigurationError, GeneratorError
from monai_memo.generators.bundle_model import load_bundle, read_bundle
from monai_memo.generators.guarded import cohorts_of, guarded, load_guarded
from monai_memo.generators.weights import read_record
from tests.bundles.test_generators import ROOT, cause, restore, run, values  # noqa: F401

BUNDLE = "chest_xray_ldm"


@pytest.fixture(scope="module")
def trained(chests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle trained for a few steps with everything on."""
    out = tmp_path_factory.mktemp("trained")
    run(BUNDLE, "train_autoencoder", "train", **values(BUNDLE, chests, out))
    switches: dict[str, Any] = {"ambient_above": 0.5, "dropout": 0.2, "weight_decay": 0.01, "stop_patience": 1}
    flow = run(BUNDLE, "train_diffusion", "train", **values(BUNDLE, chests, out, **switches))
    optimizer = flow.parser.get_parsed_content("optimizer")
    assert isinstance(optimizer, torch.optim.AdamW) and optimizer.param_groups[0]["weight_decay"] == 0.01
    return out


def test_images_that_stand_twice_are_left_out_before_the_split(tmp_path: Path) -> None:
    """With so few images equal pixels alone are looked for, which takes no search."""
    data = tmp_path / "data"
    data.mkdir()
    for i in range(8):
        save_image(data / f"p{i:02d}.png", chest_phantom(i, (32, 32)))
    shutil.copy(data / "p03.png", data / "z03.png")
    overrides = values(BUNDLE, data, tmp_path / "out", remove_duplicates=True)
    cohorts = read_bundle(ROOT / "bundles" / BUNDLE, "small", **overrides).get_parsed_content("cohorts")
    names = {image.path.name for cohort in (cohorts.training, cohorts.heldout) for image in cohort.images}
    assert names == {f"p{i:02d}.png" for i in range(8)}
    given: dict[str, Any] = {"heldout": None, "remove": True, "folder": tmp_path / "out" / "duplicates"}
    stamp = (tmp_path / "out" / "duplicates" / DONE).stat().st_mtime_ns
    first = sources(data, **given)
    assert (tmp_path / "out" / "duplicates" / DONE).stat().st_mtime_ns == stamp, "looked for once"
    save_image(data / "new.png", chest_phantom(99, (32, 32)))
    sources(data, **given, progress=False)
    assert "new.png" in {image.path.name for image in Cohort.from_source(first.dataset, "training").images}
    untouched = sources(data, None, False, tmp_path / "none")
    assert untouched.dataset == str(data) and not (tmp_path / "none").exists()


def test_the_final_weights_are_those_of_the_lowest_held_out_loss(trained: Path) -> None:
    kept, final = (read_record(trained / name) for name in ("diffusion/model_lowest_loss.pt", "model.pt"))
    assert all(torch.equal(value, final["state_dict"][name]) for name, value in kept["state_dict"].items())
    assert final["steps"] == kept["steps"] and final["scale_factor"] == kept["scale_factor"]


def test_samples_leave_the_shields_and_nothing_of_the_images_lies_beside_them(trained: Path, tmp_path: Path) -> None:
    """The tables beside the weights say what the training images are."""
    common = {**values(BUNDLE, trained, tmp_path), "bundle_root": str(ROOT / "bundles" / BUNDLE)}
    common = {name: value for name, value in common.items() if name != "dataset_dir"} | {"model_dir": str(trained)}
    run(BUNDLE, "inference", None, **common, n_samples=4, repel=0.9)
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.csv", *(f"sample_{i:06d}.png" for i in range(4))}
    repelled = (tmp_path / "manifest.csv").read_text()
    plain = tmp_path / "plain"
    run(BUNDLE, "inference", None, **{**common, "output_dir": str(plain)}, n_samples=4)
    assert repelled != (plain / "manifest.csv").read_text()


def loading(trained: Path, **switches: Any) -> dict[str, Any]:
    further = {name: value for name, value in values(BUNDLE, trained, trained).items() if name not in LOADER}
    return {**further, **switches}


LOADER = ("bundle_root", "device", "num_inference_steps", "dataset_dir", "sampling_batch_size")


@pytest.mark.slow
def test_rejection_takes_a_detector_and_gives_up_where_all_are_rejected(
    trained: Path, detector_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_guarded(
        ROOT / "bundles" / BUNDLE, 2, 4, "cpu", "small", **loading(trained, reject_detector=str(detector_file))
    )
    first = model.sample([1, 2])
    assert first.shape == (2, 1, 16, 16) and 0.0 < model.threshold < 1.0  # type: ignore[union-attr]
    similarity = model.similarity_of(first)  # type: ignore[union-attr]
    assert similarity.shape == (2,) and (similarity <= model.threshold).all()  # type: ignore[union-attr]
    assert np.isnan(model.similarity_of([np.zeros((1, 16, 16)), first[0]])).tolist() == [True, False]  # type: ignore[union-attr]
    model.threshold = -1.0  # type: ignore[union-attr]
    with pytest.raises(GeneratorError, match=r"2 of 2 images are copies after 20 attempts"):
        model.sample([1, 2])


def test_switches_without_images_or_against_one_another_are_refused(trained: Path, tmp_path: Path) -> None:
    bundle = ROOT / "bundles" / BUNDLE
    plain = load_bundle(bundle, 2, 4, "cpu", "small", **loading(trained))
    assert guarded(plain, read_bundle(bundle, "small", **loading(trained))) is plain
    with pytest.raises(ConfigurationError, match="take one"):
        guarded(plain, read_bundle(bundle, "small", **loading(trained, repel=0.1, dissimilarity=3.0)))
    elsewhere = loading(trained, repel=0.1, diffusion_file=str(tmp_path / "model.pt"))
    config = read_bundle(bundle, "small", **elsewhere)
    assert isinstance(config, ConfigParser)
    with pytest.raises(ConfigurationError, match=r"has no training.csv and heldout.csv. Name them with dataset_dir"):
        cohorts_of(config)

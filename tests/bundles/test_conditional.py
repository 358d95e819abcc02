# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A generator bundle with conditions, trained and sampled as a user does."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import DiffusionModelUNet

from monai_memo.data.cohort import Cohort
from monai_memo.errors import ConfigurationError
from monai_memo.generators.bundle_model import load_bundle
from monai_memo.generators.conditions import columns_of
from monai_memo.generators.weights import read_record
from monai_memo.membership.denoiser import load_denoiser
from tests.bundles.test_generators import ROOT, TINY, cause, restore, run, values  # noqa: F401

BUNDLE = "chest_xray_ldm"
LABELS = ("normal", "pneumonia")
TOLD: dict[str, Any] = {
    "conditions": "label,age", "condition_dropout": 0.2, "diffusion_learning_rate": 0.01, "ema_momentum": 0.5
}  # fmt: skip


@pytest.fixture(scope="module")
def table(chests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of every third image the age is not known."""
    path = tmp_path_factory.mktemp("table") / "index.csv"
    rows = [
        f"{image},{image.stem},{LABELS[i % 2]},{'' if i % 3 == 0 else i}\n"
        for i, image in enumerate(sorted(chests.iterdir()))
    ]
    path.write_text("image,patient_id,label,age\n" + "".join(rows))
    return path


@pytest.fixture(scope="module")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("conditional")
    run(BUNDLE, "train_autoencoder", "train", **values(BUNDLE, table, out, autoencoder_epochs=1))
    run(BUNDLE, "train_diffusion", "train", **values(BUNDLE, table, out, **TOLD))
    return out


def model_of(trained: Path, **further: Any) -> Any:
    overrides = {**TINY, "image_size": [16, 16], "model_dir": str(trained), **further}
    return load_bundle(ROOT / "bundles" / BUNDLE, profile="small", **overrides)


def test_weights_and_split_know_the_conditions(trained: Path, table: Path) -> None:
    record = read_record(trained / "model.pt")["conditions"]
    assert record["classes"] == [["normal"], ["pneumonia"]] and sum(record["counts"]) == 22
    training = Cohort.from_source(trained / "training.csv", "training")
    known = {image.path.name: dict(image.columns) for image in Cohort.from_source(table, "training").images}
    assert all(dict(image.columns) == known[image.path.name] for image in training.images)
    ages = [float(image.columns["age"]) for image in training.images if image.columns["age"]]
    assert record["numbers"][0]["mean"] == pytest.approx(np.mean(ages))


def test_another_process_samples_by_class_and_by_number(trained: Path) -> None:
    """The config says nothing of conditions: the weights do."""
    model = model_of(trained)
    network = model.diffusion.network
    assert isinstance(network, DiffusionModelUNet) and network.num_class_embeds == 3 and network.with_conditioning
    seeds, ages = [1, 2, 3], ["10", "10", "10"]
    normal, pneumonia = (model.sample(seeds, {"label": [label] * 3, "age": ages}) for label in LABELS)
    assert np.abs(normal - pneumonia).max() > 1e-4
    np.testing.assert_array_equal(normal, model.sample(seeds, {"label": ["normal"] * 3, "age": ages}))
    older = model.sample(seeds, {"label": ["normal"] * 3, "age": ["40"] * 3})
    unknown = model.sample(seeds, {"label": ["normal"] * 3, "age": [""] * 3})
    assert np.abs(normal - older).max() > 1e-5 and np.abs(unknown - normal).max() > 1e-5
    untold = model_of(trained, guidance_scale=0)
    both = [untold.sample(seeds, {"label": [label] * 3, "age": ages}) for label in LABELS]
    np.testing.assert_array_equal(*both)
    strong = model_of(trained, guidance_scale=8)
    far = [strong.sample(seeds, {"label": [label] * 3, "age": ages}) for label in LABELS]
    assert np.abs(far[0] - far[1]).mean() > 2 * np.abs(normal - pneumonia).mean()


def test_the_tables_beside_the_weights_tell_a_membership_test_the_conditions(trained: Path) -> None:
    overrides = {**TINY, "image_size": [16, 16], "model_dir": str(trained), "guidance_scale": 0}
    denoiser, _ = load_denoiser(ROOT / "bundles" / BUNDLE, "small", **overrides)
    told = {}
    for name in ("training", "heldout"):
        cohort = Cohort.from_source(trained / f"{name}.csv", name)
        told[name] = denoiser.told(columns_of(cohort), name, strict=name == "training")
        expected = [LABELS.index(image.columns["label"]) for image in cohort.images]
        assert told[name]["class_labels"].tolist() == expected
        missing = [image.columns["age"] == "" for image in cohort.images]
        assert told[name]["context"][:, 0, 1].tolist() == [float(one) for one in missing] and any(missing)
    noisy = torch.randn(len(told["heldout"]["class_labels"]), *denoiser.model.latent_shape)
    heard, unheard = (denoiser.noise_in(noisy, 5, inputs) for inputs in (told["heldout"], None))
    assert (heard - unheard).abs().max() > 1e-5


def test_samples_by_a_table_stand_in_the_manifest(trained: Path, table: Path, tmp_path: Path) -> None:
    wanted = tmp_path / "wanted.csv"
    wanted.write_text("label\npneumonia\nnormal\n")
    common = values(BUNDLE, table, tmp_path / "samples", model_dir=trained, n_samples=3)
    run(BUNDLE, "inference", None, **common, condition_table=str(wanted), guidance_scale=2)
    with open(tmp_path / "samples" / "manifest.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["label"] for row in rows] == ["pneumonia", "normal", "pneumonia"]
    assert all(row["age"] == "" or 1 <= float(row["age"]) <= 43 for row in rows)


def test_a_training_with_other_conditions_does_not_go_on_from_this_one(trained: Path, table: Path) -> None:
    before = read_record(trained / "model.pt")["state_dict"]
    swapped = table.with_name("swapped.csv")
    text = table.read_text().replace("normal", "x").replace("pneumonia", "normal").replace("x,", "pneumonia,")
    swapped.write_text(text)
    same = run(BUNDLE, "train_diffusion", **values(BUNDLE, table, trained, **TOLD))
    assert same.parser.get_parsed_content("resume_from") is not None
    after = read_record(trained / "model.pt")["state_dict"]
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    other = run(BUNDLE, "train_diffusion", **values(BUNDLE, swapped, trained, **TOLD))
    assert other.parser.get_parsed_content("resume_from") is None


def test_a_column_that_is_not_there_is_named(trained: Path, table: Path, tmp_path: Path) -> None:
    settings = values(BUNDLE, table, tmp_path, autoencoder_file=trained / "model_autoencoder.pt", conditions="sex")
    with pytest.raises(Exception) as caught:
        run(BUNDLE, "train_diffusion", **settings)
    assert isinstance(cause(caught), ConfigurationError) and "has no column 'sex'" in str(cause(caught))

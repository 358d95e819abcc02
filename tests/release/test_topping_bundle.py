# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A release topped up from a generator bundle that was really trained, named by its folder."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_memo.release.release import Release
from tests.audit.small import SIZE
from tests.bundles.test_generators import ROOT, restore, run, values  # noqa: F401
from tests.release.conftest import options

BUNDLE = "chest_xray_ldm"


@pytest.mark.slow
def test_a_release_is_topped_up_from_a_trained_bundle_by_its_path(clinic: Path, tmp_path: Path) -> None:
    """The bundle is copied, trained on the audit's training images for a few steps, and its defaults are the tiny ones
    of this training, as those of a bundle that people keep are theirs."""
    bundle = tmp_path / "bundle"
    shutil.copytree(ROOT / "bundles" / BUNDLE / "configs", bundle / "configs")
    given = values(BUNDLE, clinic / "train", bundle / "out", image_size=list(SIZE), model_dir=bundle / "models")
    run(BUNDLE, "train_autoencoder", "train", **given)
    run(BUNDLE, "train_diffusion", "train", **given)
    sampling = bundle / "configs" / "inference.json"
    config = json.loads(sampling.read_text())
    small = json.loads((bundle / "configs" / "small.json").read_text())
    kept = {name: value for name, value in given.items() if name not in ("bundle_root", "dataset_dir", "output_dir")}
    sampling.write_text(json.dumps({**config, **small, **kept}))
    further = {"second_look": False, "second_detector": None, "top_up_to": 27, "generator": str(bundle)}
    done = Release(**options(clinic, tmp_path / "out", **further)).run()
    drawn = done.statement.drawn
    assert drawn is not None and done.statement.released == 27
    assert drawn["released"] == 27 - (25 - sum(done.statement.removed.values())) > 0
    assert drawn["drawn"] == sum(drawn[name] for name in ("released", "copies", "others", "unusable", "surplus"))
    with open(done.private / "key.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["synthetic"].startswith("drawn/")]
    assert len(rows) == drawn["released"] and {row["synthetic"].split("/")[2][:7] for row in rows} == {"sample_"}
    images = [np.asarray(Image.open(done.out / row["released"])) for row in rows]
    assert {image.shape for image in images} == {SIZE}
    assert len({image.tobytes() for image in images}) == len(images)

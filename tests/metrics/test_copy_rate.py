# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler
from PIL import Image

from monai_memo.audit.comparison import compare
from monai_memo.data.cohort import Cohort
from monai_memo.data.phantoms import chest_phantom
from monai_memo.detector.detector import Detector
from monai_memo.errors import CalibrationError, ConfigurationError
from monai_memo.metrics.copy_rate import CopyRate, copy_rates
from monai_memo.metrics.images import embed_images
from monai_memo.metrics.reference import copy_rate_from_cohorts
from monai_memo.metrics.verified import VerifiedCopyRate
from monai_memo.statistics.rates import audit_rates

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
TRAINING, HELDOUT = (RNG.normal(size=(n, 16)).astype(np.float32) for n in (50, 60))
COPIES = TRAINING[:12] + 0.01 * RNG.normal(size=(12, 16)).astype(np.float32)
SYNTHETIC = np.concatenate([COPIES, RNG.normal(size=(28, 16)).astype(np.float32)])
PATIENTS = [str(i // 2) for i in range(50)]


def metric(**arguments: object) -> CopyRate:
    return CopyRate(TRAINING, HELDOUT, PATIENTS, n_bootstrap=50, **arguments)  # type: ignore[arg-type]


def test_numbers_are_those_of_the_audit() -> None:
    patients = [str(i) for i in range(60)]
    sims = compare({"training": TRAINING, "heldout": HELDOUT, "synthetic": SYNTHETIC}, PATIENTS, patients).sims
    expected = audit_rates(sims, n_bootstrap=50, seed=4)
    found = copy_rates(TRAINING, HELDOUT, SYNTHETIC, PATIENTS, n_bootstrap=50, seed=4)
    assert found["n_copies"] == expected.n_copies >= 12
    assert (found["copies_low"], found["copies_high"]) == (expected.copies.low, expected.copies.high)
    assert found["excess_copies"] == expected.excess_copies.value
    assert found["n_mem"] == expected.n_memorized
    assert found["nearest_similarity"] == pytest.approx(float(np.median(sims.synthetic_to_training)))


def test_the_reference_control_tells_copies_from_look_alikes() -> None:
    """The same samples, once with their originals in the training cohort and once with them among unseen patients."""
    copies = copy_rates(TRAINING, HELDOUT, SYNTHETIC, n_bootstrap=50)
    swapped = copy_rates(HELDOUT, TRAINING, SYNTHETIC, n_bootstrap=50)
    assert copies["reference_excess_low"] > 0.05 and copies["reference_p"] < 0.01
    assert copies["reference_excess_low"] <= copies["reference_excess"] <= copies["reference_excess_high"]
    assert swapped["reference_excess"] < 0 and swapped["reference_p"] > 0.5


def test_rate_does_not_depend_on_the_batches() -> None:
    whole, parts = metric(), metric()
    whole(torch.from_numpy(SYNTHETIC))
    for block in np.array_split(SYNTHETIC, 7):
        parts(torch.from_numpy(block))
    assert parts.summary() == whole.summary()
    assert float(whole.aggregate()) == whole.summary()["copies"] >= 0.3
    whole.reset()
    with pytest.raises(ValueError, match="no synthetic embeddings"):
        whole.aggregate()
    whole(torch.from_numpy(SYNTHETIC[12:]))
    assert float(whole.aggregate()) < 0.2, "nothing is left of what was there before the reset"


def test_works_as_a_metric_of_an_engine() -> None:
    engine = Engine(lambda _, batch: {"embedding": batch})
    handler = IgniteMetricHandler(
        metric(quantity="excess_copies"), output_transform=lambda out: (out["embedding"], None), save_details=False
    )
    handler.attach(engine, "copy_rate")
    engine.run(list(torch.from_numpy(SYNTHETIC).split(10)))
    expected = copy_rates(TRAINING, HELDOUT, SYNTHETIC, PATIENTS, n_bootstrap=50)
    assert engine.state.metrics["copy_rate"] == pytest.approx(expected["excess_copies"])


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"got \(50, 16\) and \(60, 8\)"):
        CopyRate(TRAINING, HELDOUT[:, :8])
    with pytest.raises(ConfigurationError, match="50 patient ids for 60 embeddings"):
        CopyRate(TRAINING, HELDOUT, heldout_patients=PATIENTS)
    with pytest.raises(ValueError, match=r"must be embeddings \(batch, 16\)"):
        metric()(torch.zeros(3, 1, 8, 8))
    wrong = metric(quantity="rate")
    wrong(torch.from_numpy(SYNTHETIC))
    with pytest.raises(ConfigurationError, match="quantity must be one of n_synthetic"):
        wrong.aggregate()
    with pytest.raises(CalibrationError, match="10 held-out patients cannot support"):  # before anything is drawn
        CopyRate(TRAINING, HELDOUT[:10])
    for name, value, allowed in (
        ("mode", "papers", "one of size_matched, paper"), ("quantile", 95, "a number between 0 and 1"),
        ("confidence", "much", "a number between 0 and 1"), ("n_bootstrap", "a few", "a whole number from 1"),
        ("seed", -1, "a whole number from 0"),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=f"{name} must be {allowed}.*, got"):
            CopyRate(TRAINING, HELDOUT, **{name: value})
    assert CopyRate(TRAINING, HELDOUT, n_bootstrap="20").settings["n_bootstrap"] == 20  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"CopyRate\(\) .* 'quantil' \(did you mean quantile\?\)"):
        metric(quantil=0.9)
    holed = HELDOUT.copy()
    holed[3] = np.nan
    with pytest.raises(ConfigurationError, match=r"heldout embeddings must be finite numbers, 1 of 60 .* number 3"):
        CopyRate(TRAINING, holed)
    with pytest.raises(ConfigurationError, match="synthetic embeddings must be finite numbers"):
        metric()(torch.from_numpy(holed))


def test_cohorts_are_embedded_once(demo_folder: Path, detector_file: Path, tmp_path: Path) -> None:
    detector = Detector.load(detector_file)
    cohorts = [Cohort.from_source(demo_folder / name, name) for name in ("training", "heldout")]
    first = copy_rate_from_cohorts(detector, *cohorts, tmp_path, workers=1, progress=False)
    assert first.training.shape == (60, 128) and first.heldout.shape == (40, 128)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    again = copy_rate_from_cohorts(detector, *cohorts, tmp_path, workers=1, progress=False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")} == stamps
    np.testing.assert_array_equal(again.training, first.training)
    images = np.stack([detector.preprocessing(image.path) for image in cohorts[0].images[:5]])
    images = np.concatenate([images, np.zeros_like(images[:1])])
    embeddings, unusable = embed_images(detector, images)
    assert unusable == 1
    np.testing.assert_allclose((embeddings * first.training[:5]).sum(axis=1), 1, atol=1e-2)


RANKS = """
import sys
import ignite.distributed as idist
import numpy as np
import torch
from monai_memo.metrics.copy_rate import CopyRate
from monai_memo.training.ranks import leave_ranks

idist.initialize("gloo")
data = np.load(sys.argv[1])
metric = CopyRate(data["training"], data["heldout"], n_bootstrap=50)
mine = torch.from_numpy(data["synthetic"])[idist.get_rank() :: 2]
for block in mine.split(5):
    metric(block)
summary = metric.summary()
row = ["RANK", idist.get_world_size(), *(summary[k] for k in ("n_copies", "copies_low", "n_mem", "n_synthetic"))]
# One write, so that the ranks' lines do not run into each other where Python does not buffer.
sys.stdout.write(" ".join(map(str, row)) + "\\n")
leave_ranks()
"""


@pytest.mark.slow
def test_two_ranks_give_the_rate_of_one(tmp_path: Path) -> None:
    # 39 images: the ranks have 20 and 19, and nothing may be counted twice to even that out.
    np.savez(tmp_path / "data.npz", training=TRAINING, heldout=HELDOUT, synthetic=SYNTHETIC[:39])
    (tmp_path / "ranks.py").write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, str(tmp_path / "ranks.py"), str(tmp_path / "data.npz")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RANK")]
    one = copy_rates(TRAINING, HELDOUT, SYNTHETIC[:39], n_bootstrap=50)
    expected = ["2", *(str(one[name]) for name in ("n_copies", "copies_low", "n_mem", "n_synthetic"))]
    assert lines == [expected, expected]


def as_bytes(images: np.ndarray) -> np.ndarray:
    return np.round(images[:, 0] * 255).astype(np.uint8)


def test_images_are_taken_in_any_form_by_a_metric_with_a_detector(
    detector_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    detector = Detector.load(detector_file)
    known = np.stack([chest_phantom(i, (32, 32)) for i in range(60)])
    train, heldout = torch.from_numpy(known[:30]), [Image.fromarray(picture) for picture in as_bytes(known[30:])]
    patients = [str(i // 2) for i in range(30)]
    caplog.set_level("INFO", "monai_memo")
    rate = CopyRate(train, heldout, patients, n_bootstrap=20, detector=detector)
    np.testing.assert_allclose((rate.training * detector.embed(known[:30], progress=False)).sum(axis=1), 1, atol=2e-2)
    assert "heldout images: taken for 30 images of 32 x 32 pixels in grey" in caplog.text
    forms: list[Any] = [
        (torch.from_numpy(known[:6]) * 2 - 1).requires_grad_(), known[:6, 0], as_bytes(known[:6]),
        [Image.fromarray(picture) for picture in as_bytes(known[:6])], known[0, 0], list(known[:6]),
        np.repeat(known[:6].transpose(0, 2, 3, 1), 3, -1),
    ]  # fmt: skip
    for images in forms:
        rate.reset()
        assert rate.update(images) is rate
        assert float(rate.compute()) == float(rate.aggregate()) == 1.0, rate.taken_for
        assert rate.summary()["n_copies"] == (1 if rate.taken_for.startswith("taken for 1 image ") else 6)
    assert "synthetic images: taken for 6 images of 32 x 32 pixels in grey, from one array (N, C, H, W)" in caplog.text
    engine = Engine(lambda _, batch: batch)
    IgniteMetricHandler(rate, output_transform=lambda batch: (batch, None), save_details=False).attach(engine, "rate")
    engine.run([torch.from_numpy(known[:4]), torch.from_numpy(known[4:8])])
    assert engine.state.metrics["rate"] == 1.0 and rate.summary()["n_synthetic"] == 8


def test_what_is_no_images_is_refused_by_its_shape(detector_file: Path, demo_folder: Path, tmp_path: Path) -> None:
    detector = Detector.load(detector_file)
    cohorts = [Cohort.from_source(demo_folder / name, name) for name in ("training", "heldout")]
    rates = [
        copy_rate_from_cohorts(detector, *cohorts, tmp_path, workers=1, progress=False),
        VerifiedCopyRate(detector, *cohorts, tmp_path, workers=1, progress=False),
    ]
    for rate in rates:
        for images, words in (
            (np.zeros((0, 128)), r"synthetic images: got the shape \(0, 128\), where \(H, W\)"),
            (np.zeros((20, 128)), r"the shape \(20, 128\) may be 20 embeddings or one image: call the metric"),
            (np.zeros((2, 1, 8, 8, 8)), r"synthetic images: got the shape \(2, 1, 8, 8, 8\)"),
            (np.full((2, 1, 32, 32), np.nan), r"2 of 2 hold NaN or infinity.*shape \(1, 32, 32\)"),
            ([np.zeros((32, 32)), np.zeros((16, 32))], "have 2 shapes"),
        ):
            with pytest.raises(ConfigurationError, match=words):
                rate.update(images)
        assert len(rate) == 0
    with pytest.raises(ConfigurationError, match="has no detector to make them of images"):
        metric().update(np.zeros((2, 1, 8, 8)))
    with pytest.raises(ConfigurationError, match="training images: 30 of 30 are constant"):
        CopyRate(np.zeros((30, 1, 32, 32)), np.zeros((30, 1, 32, 32)), detector=detector)

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Copy rates by the search of an audit, with a detector that was never trained."""

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
from scipy.ndimage import gaussian_filter

from monai_memo.audit.sharpness import match_sharpness
from monai_memo.audit.verified_comparison import compare_verified, search_in
from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.data.writing import save_image
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.errors import CalibrationError, ConfigurationError
from monai_memo.metrics.copy_rate import flat_record
from monai_memo.metrics.verified import VerifiedCopyRate
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.runner import Runner
from monai_memo.statistics.similarities import Similarities

ROOT = Path(__file__).parents[2]
SIZE = (32, 32)
N_COPIES = 6


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    recipe = Recipe.named("default", 2, SIZE, epochs=1)
    return Detector(recipe.build_network(), recipe, Preprocessing(2, SIZE), 0, {})


def sample(number: int) -> np.ndarray:
    """Eight-bit, so that it is the same in memory and in a file; the first ones are training images, mirrored."""
    image = chest_phantom(number, SIZE)[..., ::-1] if number < N_COPIES else chest_phantom(500 + number, SIZE)
    return np.round(np.asarray(image) * 255).astype(np.uint8)


SAMPLES = np.stack([sample(number) for number in range(15)])


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cohort]:
    """24 training images of 12 patients, 24 held-out images of as many, and the samples as files."""
    folder = tmp_path_factory.mktemp("cohorts")
    for number in range(24):
        save_image(folder / "training" / f"p{number // 2:02d}_{number}.png", chest_phantom(number, SIZE))
        save_image(folder / "heldout" / f"q{number:02d}_0.png", chest_phantom(100 + number, SIZE))
    for number, image in enumerate(SAMPLES):
        save_image(folder / "synthetic" / f"{number:02d}.png", image / 255)
    pattern = r"([pq]\d+)_"
    names = {"training": pattern, "heldout": pattern, "synthetic": None}
    return {name: Cohort.from_source(folder / name, name, found) for name, found in names.items()}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is looked up once for several tests."""
    return tmp_path_factory.mktemp("kept")


def metric(detector: Detector, cohorts: dict[str, Cohort], folder: Path, **options: Any) -> VerifiedCopyRate:
    settings: dict[str, Any] = {"workers": 1, "progress": False, "n_bootstrap": 50, **options}
    return VerifiedCopyRate(detector, cohorts["training"], cohorts["heldout"], folder, **settings)


def audited(prepared: dict[str, PreparedCohort], detector: Detector, folder: Path) -> tuple[Similarities, bool]:
    """The steps of an audit, after its cohorts are prepared."""
    softening = match_sharpness(prepared["synthetic"].pixels, prepared["heldout"].pixels)
    alike = prepared if softening is None else {**prepared, "heldout": softening.cohort(prepared["heldout"])}
    embeddings = detector.embed(prepared["training"].pixels, progress=False)
    search = search_in(prepared["training"], embeddings, detector, Runner(seed=3))
    return compare_verified(alike, search, detector.sha256, folder).sims, softening is not None


def test_copies_of_held_out_images_do_not_hide_behind_these(
    detector: Detector, cohorts: dict[str, Cohort], tmp_path: Path
) -> None:
    """Somebody trained on them: copies of training images are called all the same, and the others are told of."""
    rate = metric(detector, cohorts, tmp_path, reference=True)
    theirs = [np.asarray(Image.open(image.path)) for image in cohorts["heldout"].images[:10]]
    rate.add([*SAMPLES, *theirs])
    found = rate.summary()
    assert found["n_copies_of_heldout"] >= 10 and found["n_copies"] >= N_COPIES


@pytest.mark.parametrize("soft", [False, True], ids=["sharp", "soft"])
def test_numbers_are_those_of_an_audit_of_the_same_images(
    soft: bool, detector: Detector, cohorts: dict[str, Cohort], tmp_path: Path
) -> None:
    images: list[np.ndarray] = list(SAMPLES)
    sources = dict(cohorts)
    if soft:
        images = [np.round(gaussian_filter(image.astype(float), (0, 1.5, 1.5))).astype(np.uint8) for image in images]
        for number, image in enumerate(images):
            save_image(tmp_path / "soft" / f"{number:02d}.png", image / 255)
        sources["synthetic"] = Cohort.from_source(tmp_path / "soft", "synthetic")
    prepared = {
        name: prepare(cohort, detector.preprocessing, tmp_path / "pixels", 1, False) for name, cohort in sources.items()
    }
    sims, softened = audited(prepared, detector, tmp_path / "verified")
    assert softened == soft
    rate = metric(detector, cohorts, tmp_path / "metric", seed=3)
    assert rate.add(images) == 15
    found = rate.summary()
    expected = flat_record(sims, n_bootstrap=50, seed=3)
    assert {name: found[name] for name in expected} == expected
    assert found["n_copies"] >= (1 if soft else N_COPIES)
    assert set(found) - set(expected) == {"fine_detail", "fine_detail_heldout", "softened"}
    assert found["softened"] == soft
    assert (found["fine_detail"] < 0.5 * found["fine_detail_heldout"]) == soft


def test_the_reference_control_looks_the_samples_up_among_both_kinds_of_patients(
    detector: Detector, cohorts: dict[str, Cohort], tmp_path: Path
) -> None:
    rate = metric(detector, cohorts, tmp_path, reference=True)
    rate.add(list(SAMPLES))
    found = rate.summary()
    joint = rate._reference.joint
    assert len(joint) == 48 and int(joint.gallery.patients.max()) + 1 == 12 + 24
    nearest = rate._reference.nearest(SAMPLES[:N_COPIES].astype(np.float16) / 255)
    assert nearest.training[nearest.patient].all() and nearest.ratio == 1.0
    assert found["reference_excess"] >= N_COPIES / 15 - 0.2 and 0 < found["reference_p"] <= 1


def test_softness_is_told_where_it_is_not_matched(
    detector: Detector, cohorts: dict[str, Cohort], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = watched(monkeypatch)
    rate = metric(detector, cohorts, kept, match_sharpness=False)
    rate.add([gaussian_filter(image.astype(float), (0, 1.5, 1.5)) for image in SAMPLES])
    found = rate.summary()
    assert found["softened"] == 0 and found["fine_detail"] < 0.5 * found["fine_detail_heldout"]
    assert looked_up == [15, 24]


def watched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many queries each call of the search really looks up."""
    looked_up: list[int] = []
    block = CopySearch._block
    run = CopySearch._run

    def counted(self: CopySearch, *arguments: Any) -> Any:
        looked_up.append(0)
        return run(self, *arguments)

    def counting(self: CopySearch, queries: torch.Tensor, *others: Any) -> Any:
        looked_up[-1] += len(queries)
        return block(self, queries, *others)

    monkeypatch.setattr(CopySearch, "_run", counted)
    monkeypatch.setattr(CopySearch, "_block", counting)
    return looked_up


def test_nothing_is_done_before_it_is_due_and_held_out_images_are_looked_up_once(
    detector: Detector, cohorts: dict[str, Cohort], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = watched(monkeypatch)
    rate = metric(detector, cohorts, tmp_path / "work")
    rate.add(SAMPLES)
    assert not (tmp_path / "work").exists() and not looked_up
    first = rate.summary()
    assert looked_up == [15, 24]
    rate.reset()
    rate.add(SAMPLES[:10])
    assert rate.summary()["n_synthetic"] == 10
    assert looked_up == [15, 24, 10], "the second time nothing but the samples"
    again = metric(detector, cohorts, tmp_path / "work")
    again.add(SAMPLES)
    assert again.summary() == first
    assert looked_up == [15, 24, 10, 15, 0], "after a restart the held-out matches come from the folder"


def test_works_as_a_metric_of_an_engine(detector: Detector, cohorts: dict[str, Cohort], kept: Path) -> None:
    whole = metric(detector, cohorts, kept)
    whole.add(SAMPLES)
    engine = Engine(lambda _, batch: batch)
    handler = IgniteMetricHandler(
        metric(detector, cohorts, kept, quantity="excess_copies"),
        output_transform=lambda batch: (batch, None),
        save_details=False,
    )
    handler.attach(engine, "copy_rate")
    engine.run(list(torch.from_numpy(SAMPLES).split(4)))
    assert engine.state.metrics["copy_rate"] == pytest.approx(whole.summary()["excess_copies"])


def test_images_that_cannot_be_used_are_counted(detector: Detector, cohorts: dict[str, Cohort], kept: Path) -> None:
    rate = metric(detector, cohorts, kept)
    assert rate.add([SAMPLES[0], np.zeros((1, *SIZE)), np.full((1, *SIZE), np.nan)]) == 1
    rate(torch.zeros(2, 1, *SIZE))
    assert rate.n_unusable == 4
    rate(torch.from_numpy(SAMPLES[1:3]))
    assert len(rate) == 3 and rate.n_unusable == 4
    rate.reset()
    assert rate.n_unusable == 0
    with pytest.raises(ValueError, match="no usable synthetic images were given since the last reset"):
        rate.summary()


def test_wrong_arguments_are_named(detector: Detector, cohorts: dict[str, Cohort], kept: Path) -> None:
    with pytest.raises(ConfigurationError, match="the paper's calibration is defined on embeddings"):
        metric(detector, cohorts, kept, mode="paper")
    with pytest.raises(TypeError, match="did you mean match_sharpness"):
        metric(detector, cohorts, kept, match_sharpnes=False)
    few = {**cohorts, "heldout": cohorts["heldout"].subset(range(10))}
    with pytest.raises(CalibrationError):
        metric(detector, few, kept)
    wrong = metric(detector, cohorts, kept, quantity="rate")
    wrong.add(SAMPLES[:2])
    with pytest.raises(ConfigurationError, match="quantity must be one of n_synthetic"):
        wrong.aggregate()


RANKS = """
import sys
from pathlib import Path
import ignite.distributed as idist
import numpy as np
from monai_memo.data.cohort import Cohort
from monai_memo.detector.detector import Detector
from monai_memo.metrics.verified import VerifiedCopyRate
from monai_memo.training.ranks import leave_ranks

idist.initialize("gloo")
work, cohorts = Path(sys.argv[1]), Path(sys.argv[2])
training, heldout = (Cohort.from_source(cohorts / n, n, r"([pq]\\d+)_") for n in ("training", "heldout"))
rate = VerifiedCopyRate(
    Detector.load(work / "detector.pt"), training, heldout, work / "kept", workers=1, progress=False, n_bootstrap=50
)
names = ("n_synthetic", "n_copies", "n_mem", "softened", "tau", "copies_low", "excess_copies_high")
for kind in ("sharp", "soft"):
    samples = np.load(work / f"{kind}.npy")
    rate.reset()
    rate.add(samples[:4] if idist.get_rank() == 0 else samples[4:])
    found = rate.summary()
    row = [kind, str(idist.get_world_size()), *(f"{found[n]:.6f}" for n in names)]
    sys.stdout.write(" ".join(row) + "\\n")
leave_ranks()
"""


@pytest.mark.slow
def test_two_ranks_give_the_rate_of_one(detector: Detector, cohorts: dict[str, Cohort], tmp_path: Path) -> None:
    sharp = SAMPLES.astype(np.float64)
    images = {"sharp": sharp, "soft": np.stack([gaussian_filter(image, (0, 1.5, 1.5)) for image in sharp])}
    for kind, some in images.items():
        np.save(tmp_path / f"{kind}.npy", some)
    detector.save(tmp_path / "detector.pt")
    (tmp_path / "ranks.py").write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, str(tmp_path / "ranks.py"), str(tmp_path), cohorts["training"].source.removesuffix("training")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    names = ("n_synthetic", "n_copies", "n_mem", "softened", "tau", "copies_low", "excess_copies_high")
    for kind, some in images.items():
        rate = metric(detector, cohorts, tmp_path / "one")
        rate.add(some)
        one = rate.summary()
        assert one["softened"] == (kind == "soft")
        expected = [kind, "2", *(f"{one[name]:.6f}" for name in names)]
        assert [line for line in lines if line[:1] == [kind]] == [expected, expected]

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from monai_memo.benchmark.baselines import PixelCorrelation, SquaredError, StructuralSimilarity
from monai_memo.benchmark.fdr import simulated_fdr
from monai_memo.benchmark.planted import APART, ladder, plant_at_source
from monai_memo.benchmark.run import DEFAULT, Benchmark
from monai_memo.benchmark.tables import curves, summarise_benchmark
from monai_memo.data.ladder import LADDER, Planted
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.planting import plant
from monai_memo.data.writing import save_image
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.errors import ConfigurationError, DetectorError
from monai_memo.search.copy_search import VERSION

CHEST = np.stack([chest_phantom(i, (32, 32)) for i in range(10)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("benchmark")
    for name, numbers in (("train", range(24)), ("negatives", range(24, 84))):
        for number in numbers:
            save_image(folder / name / f"p{number:03d}_a.png", chest_phantom(number, (64, 64)))
    record = Benchmark(
        train=str(folder / "train"), negatives=str(folder / "negatives"), out=str(folder / "out"), epochs=1,
        size=32, per_level=6, kinds=["flip", "rotation", "blur", "round_trip"], generator_steps=3, progress=False,
    ).run()  # fmt: skip
    return folder / "out", record


def test_all_detectors_are_measured_in_one_run(finished: tuple[Path, dict]) -> None:
    out, record = finished
    detectors = record["detectors"]
    assert {DEFAULT, "pixel correlation", "SSIM", "mean squared error", "random network"} <= set(detectors)
    names = [score["kind"] for score in detectors[DEFAULT]["scores"]]
    strengths = {kind: [f"{kind} {strength:g}" for strength in LADDER[kind]] for kind in ("rotation", "blur")}
    assert names == ["flip", *strengths["rotation"], *strengths["blur"], "round_trip"]
    own, pixels = (detectors[name]["summary"]["retrieval"] for name in (DEFAULT, "pixel correlation"))
    assert own > 0.8 and own > pixels
    rotation = next(row for row in detectors[DEFAULT]["limits"] if row["kind"] == "rotation")
    assert set(rotation["found"]) == {"5", "10", "20", "30", "45"}
    assert json.loads((out / "benchmark.json").read_text())["detectors"].keys() == detectors.keys()
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "benchmark.md").read_text()
    assert "| rotation 10 |" in text and "Limit of detection" in text


def test_a_second_call_reuses_what_is_done_and_after_a_change_of_the_search_all_but_its_scores(
    finished: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, record = finished
    arguments = {key: value for key, value in record["configuration"].items() if key != "progress"}
    again = Benchmark(**arguments, progress=False).run()
    assert again["detectors"] == record["detectors"]
    assert not any("per image" in name for name in again["seconds"])
    monkeypatch.setattr("monai_memo.benchmark.run.VERSION", VERSION + 1)
    changed = Benchmark(**arguments, progress=False).run()
    assert [name for name in changed["seconds"] if "per image" in name] == [f"{DEFAULT}, per image"]


def test_other_negatives_are_looked_up_anew(finished: tuple[Path, dict], tmp_path: Path) -> None:
    out, record = finished
    shutil.copytree(out, tmp_path / "out")
    shutil.copytree(out.parent / "negatives", tmp_path / "negatives")
    for number in range(84, 90):
        save_image(tmp_path / "negatives" / f"p{number:03d}_a.png", chest_phantom(number, (64, 64)))
    (tmp_path / "negatives" / "broken.png").write_bytes(b"no image")
    changed = {"out": str(tmp_path / "out"), "negatives": str(tmp_path / "negatives"), "baselines": False}
    again = Benchmark(**{**record["configuration"], **changed, "progress": False}).run()
    assert again["cohorts"]["negatives"] == 66 and again["skipped"]["negatives"] == 1
    with np.load(tmp_path / "out" / "scores.npz") as scores:
        assert len(scores["monai_memo|negatives"]) == 66


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"size": 24}, "multiples of 16"), ({"per_level": 1}, "per_level must be a whole number from 2")],
)
def test_refused_before_training(
    finished: tuple[Path, dict], tmp_path: Path, wrong: dict[str, int], message: str
) -> None:
    arguments = {**finished[1]["configuration"], "out": str(tmp_path), "progress": False, **wrong}
    with pytest.raises(ConfigurationError, match=message):
        Benchmark(**arguments).run()
    assert not (tmp_path / "work" / "training").exists()


def test_combinations_alone_have_a_curve_of_their_own() -> None:
    found = {"combination": (np.full(20, 2.0), np.arange(20)), "negatives": (np.linspace(0, 1, 200), np.zeros(200))}
    level = ladder(2, False, ["combination"])
    record = summarise_benchmark({"perfect": found}, {"combination": np.arange(20)}, level, 0)
    assert all(row["found"] == 1 for row in record["detectors"]["perfect"]["fdr"])
    line = curves({"perfect": found}, level).axes[0].lines[0]
    assert line.get_xdata()[1] == 1 / 200 and set(line.get_ydata()) == {1.0}


def test_a_detector_by_the_papers_recipe_is_a_baseline(finished: tuple[Path, dict], tmp_path: Path) -> None:
    out, record = finished
    settings = {key: record["configuration"][key] for key in ("train", "negatives", "size")}
    settings |= {"detector": str(out / "detector.pt"), "kinds": ["flip"], "per_level": 4, "progress": False}
    for size in (32, 16):
        preprocessing = Preprocessing(2, (size, size))
        recipe = Recipe.named("paper", 2, (size, size))
        paper = Detector(recipe.build_network(), recipe, preprocessing, 0, {"epochs": 0})
        paper.save(tmp_path / f"paper{size}.pt")
    wrong = Benchmark(**settings, out=str(tmp_path / "a"), paper_detector=str(tmp_path / "paper16.pt"))
    with pytest.raises(DetectorError, match="paper_detector prepares images otherwise"):
        wrong.run()
    found = Benchmark(**settings, out=str(tmp_path / "b"), paper_detector=str(tmp_path / "paper32.pt")).run()
    assert "paper's recipe" in found["detectors"]


def test_detectors_train_as_long_as_in_an_audit(
    finished: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(Exception):
        pass

    def training(pixels: np.ndarray, recipe: Recipe, *others: object, **settings: object) -> None:
        raise Asked(f"{recipe.epochs} epochs for {len(pixels)}")

    monkeypatch.setattr("monai_memo.benchmark.run.train_detector", training)
    settings = {key: finished[1]["configuration"][key] for key in ("train", "negatives", "size")}
    with pytest.raises(Asked, match="2500 epochs for 24"):
        Benchmark(**settings, out=str(tmp_path), kinds=["flip"], progress=False).run()


def test_ladders_differ_by_dimension_and_refuse_the_unknown() -> None:
    flat, deep = ladder(2, False), ladder(3, True)
    assert not any(level.kind == "slice_offset" for level in flat)
    assert {"slice_thickness", "round_trip", "denoising"} <= {level.kind for level in deep}
    assert Planted("denoising", 0.5) in APART and Planted("denoising", 0.1) not in APART
    with pytest.raises(ConfigurationError, match="kinds must be among flip"):
        ladder(2, False, ["twist"])


@pytest.mark.parametrize("dims", [2, 3])
def test_planted_copies_have_the_form_of_the_detector(dims: int) -> None:
    phantom = chest_phantom if dims == 2 else knee_phantom
    sources = np.stack([phantom(i, (32,) * dims) for i in range(3)])
    preprocessing = Preprocessing(dims, (16,) * dims)
    for level in ladder(dims, False):
        copies = plant_at_source(sources, level, preprocessing, seed=1)
        assert copies.shape == (3, 1, *([16] * dims)) and copies.min() >= 0 and copies.max() <= 1
        np.testing.assert_array_equal(copies, plant_at_source(sources, level, preprocessing, seed=1))


def test_pixel_baselines_find_an_unchanged_image() -> None:
    for scorer in (PixelCorrelation(CHEST), SquaredError(CHEST), StructuralSimilarity(CHEST)):
        similarity, nearest = scorer(CHEST[3:6])
        assert nearest.tolist() == [3, 4, 5], scorer.name
        assert (scorer(plant(CHEST[3:6], "noise", 0))[0] < similarity).all()


def test_kinds_that_need_a_generator_ask_for_one() -> None:
    with pytest.raises(ConfigurationError, match="denoising needs a generator"):
        plant_at_source(CHEST[:1], Planted("denoising", 0.1), Preprocessing(2, (32, 32)), seed=1)


def test_simulated_false_discoveries_stay_below_the_rate() -> None:
    rng = np.random.default_rng(0)
    found = simulated_fdr(rng.normal(5, 1, 300), rng.normal(size=800), 0.1, audits=100)
    assert found["false_discovery_proportion"] < 0.1 and found["found"] > 0.8

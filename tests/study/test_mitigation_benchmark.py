# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The mitigation benchmark on a study of phantoms: every unit is measured once, and judged by the registered rule."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image
from monai_memo.errors import CohortError, GeneratorError
from monai_memo.study.mitigation import MitigationBenchmark, arm_of, main
from monai_memo.study.study import GeneratorStudy
from tests.study.conftest import write_grid


def labelled(folder: Path, first: int, n: int) -> Path:
    """Phantoms with a label; the positive ones have a bright square."""
    lines = ["image,patient_id,label"]
    for number in range(first, first + n):
        image, sick = chest_phantom(number, (32, 32)), number % 2 == 1
        if sick:
            image = image.copy()
            image[:, 12:20, 12:20] = 1.0
        save_image(folder / f"{number}.png", image)
        lines.append(f"{folder / f'{number}.png'},p{number},{'SICK' if sick else 'WELL'}")
    table = folder.with_suffix(".csv")
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


@pytest.mark.slow
def test_every_arm_and_the_memorizer_behind_each_switch_are_measured_once_and_judged(
    grid: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ldm = grid["generators"]["ldm"]
    repelled = {**ldm, "settings": {**ldm["settings"], "repel": 0.3}}
    grid["generators"] = {"plain": ldm, "repellency": repelled}
    grid["base"] |= {"generator": "plain", "network": "any"}
    grid |= {"factors": {"generator": ["plain", "repellency"]}, "seeds": [0, 1]}
    grid["dataset"] = str(labelled(tmp_path / "pool", 0, 30))
    path, study, out = write_grid(grid, tmp_path), tmp_path / "study", tmp_path / "out"
    autoencoder = tmp_path / "autoencoder.pt"
    first = GeneratorStudy(config=path, out=study, autoencoder=autoencoder, progress=False)
    data = first.opened()
    base = first.configuration.plan()[0].run
    first._bundle(base, data).train_autoencoder(autoencoder, 0)
    first.run()
    for name in ("FEATURE_STEPS", "CLASSIFIER_STEPS", "TEACHER_STEPS"):
        monkeypatch.setattr(f"monai_memo.benchmark.neutral.{name}", 20)
    command = ["--study", str(study), "--config", str(path), "--autoencoder", str(autoencoder), "--out", str(out)]
    command += ["--metrics", str(labelled(tmp_path / "metrics", 2000, 24)), "--sanity_samples", "20", "--noprogress"]
    command += ["--neutral", str(labelled(tmp_path / "neutral", 3000, 24)), "--label", "label", "--positive", "SICK"]
    main(command)
    assert "| 12 | repellency | 2 of 2 |" in capsys.readouterr().out
    record = json.loads((out / "mitigation.json").read_text(encoding="utf-8"))
    assert [(row["arm"], row["n_patients"], row["seeds"]) for row in record["rows"]] == [
        ("plain", 12, [0, 1]), ("repellency", 12, [0, 1])
    ]  # fmt: skip
    units = record["units"]
    assert [(unit["arm"], unit["seed"], unit["sanity"]) for unit in units] == [
        ("plain", 0, False), ("repellency", 0, False), ("plain", 1, False), ("repellency", 1, False),
        ("plain", 0, True), ("repellency", 0, True),
    ]  # fmt: skip
    memorizer = units[4]
    assert memorizer["n_synthetic"] == 20 and memorizer["scores"]["auc"] is not None
    assert set(record["sanity"]["switches"]) == {"repellency"}
    assert {"kid", "gradient_ratio", "coverage", "auc"} <= set(record["real"]["12"])
    with open(out / "mitigation.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 6 and float(rows[0]["kid"]) == pytest.approx(units[0]["scores"]["kid"])
    assert (out / "mitigation.png").stat().st_size > 1000
    # Again: nothing is measured anew, and the same files come out.
    written = {name: (out / name).read_bytes() for name in ("mitigation.csv", "mitigation.md", "mitigation.png")}
    monkeypatch.setattr(MitigationBenchmark, "_called_by", lambda *_: pytest.fail("a unit was measured twice"))
    main(command)
    assert written == {name: (out / name).read_bytes() for name in written}
    with pytest.raises(CohortError, match="no image has the label TALL"):
        main([*command[:-1], "TALL"])
    # A switch that draws nothing from the memorizer ends nothing: that is the right answer, and is told.
    switched = hashlib.sha256(units[5]["run"].encode()).hexdigest()[:12]
    (out / "sanity" / f"{switched}.npy").unlink()
    monkeypatch.setattr(GeneratorStudy, "memorizer", refuse)
    main(command)
    record = json.loads((out / "mitigation.json").read_text(encoding="utf-8"))
    assert record["refused"] == {"repellency": "all are copies"} and len(record["units"]) == 5
    assert "repellency: gives no samples, which is right: all are copies" in capsys.readouterr().out


def refuse(*_: object) -> None:
    raise GeneratorError("all are copies")


def test_the_memorizer_draws_training_images_through_the_autoencoder_whatever_the_network_learnt(
    grid: dict[str, Any], tmp_path: Path
) -> None:
    grid["base"] |= {"generator": "ldm", "network": "any"}
    autoencoder = tmp_path / "autoencoder.pt"
    study = GeneratorStudy(
        config=write_grid(grid, tmp_path), out=tmp_path / "study", autoencoder=autoencoder, progress=False
    )
    data, run = study.opened(), study.configuration.plan()[0].run
    assert arm_of(run, study.configuration.base) == "plain"
    study._bundle(run, data).train_autoencoder(autoencoder, 0)
    model = study._train(run, data)
    memorizer = study.memorizer(run, data)
    drawn = memorizer.sample(range(6))
    pixels = np.asarray(data.prepared(data.training_cohort(12, 0)).pixels, dtype=np.float32)
    decoded = memorizer.round_trip(pixels)  # type: ignore[attr-defined]
    apart = np.abs(drawn[:, None] - decoded[None]).mean(axis=(2, 3, 4)).min(axis=1)
    others = np.abs(model.sample(range(6))[:, None] - decoded[None]).mean(axis=(2, 3, 4)).min(axis=1)
    assert apart.max() < others.min()

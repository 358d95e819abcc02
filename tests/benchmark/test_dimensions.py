# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_memo.benchmark.dimensions import cost, main
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image


def cohort(folder: Path, first: int, count: int) -> Path:
    for number in range(first, first + count):
        save_image(folder / f"{folder.name}{number}.png", chest_phantom(number, (64, 64)))
    return folder


def test_detectors_of_several_lengths_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, unseen, out = cohort(tmp_path / "train", 0, 24), cohort(tmp_path / "unseen", 100, 110), tmp_path / "out"
    main([
        "--train", str(train), "--unseen", str(unseen), "--out", str(out), "--size", "32", "--lengths", "4", "16",
        "--epochs", "2", "--images", "110", "--per_level", "3", "--kinds", "gamma", "flip", "--whole",
    ])  # fmt: skip
    rows = json.loads((out / "dimensions.json").read_text())["rows"]
    assert [row["length"] for row in rows] == [4, 16]
    for row in rows:
        assert 0 <= row["alone"]["retrieval"]["value"] <= row["proposed"] <= 1
        assert row["search"]["tpr"]["0.01"]["value"] >= row["alone"]["tpr"]["0.01"]["value"]
    lines = (out / "dimensions.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["4", "16"]
    assert "| 16 |" in capsys.readouterr().out


def test_longer_embeddings_take_more_room_and_time() -> None:
    short, long = (cost(length, gallery=20_000, queries=50) for length in (16, 512))
    assert long["mb"] == 32 * short["mb"] and long["ms"] > short["ms"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images", "60"], "needs 100 unseen patients at least, got 60"),
        (["--per_level", "30"], "24 images, too few for --per_level 30"),
        (["--lengths", "16", "0"], "--lengths: 2 at least, got 0"),
        (["--kinds", "nosuch"], "kinds must be among"),
    ],
)
def test_what_cannot_be_measured_is_told_before_anything_is_trained(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, unseen, out = cohort(tmp_path / "train", 0, 24), cohort(tmp_path / "unseen", 100, 110), tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        main(["--train", str(train), "--unseen", str(unseen), "--out", str(out), "--size", "32", *arguments])
    assert ended.value.code == 2 and words in capsys.readouterr().err
    assert not (out / "trainings").exists()

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from monai_memo.benchmark.partial_copies import KINDS, main, split

# Share of the result that is the training image's where it was: everything else is the host's or was moved.
KEPT = {"half": 0.5, "corner": 0.25, "anywhere": 0.25, "strip": 21 / 64, "box replaced": 1 - (45 / 64) ** 2}


@pytest.mark.parametrize(("kind", "share"), KEPT.items())
def test_so_much_of_the_training_image_is_kept(kind: str, share: float) -> None:
    part, host = np.full((64, 64), 0.8, dtype=np.float32), np.full((64, 64), 0.1, dtype=np.float32)
    for seed in range(5):
        made = KINDS[kind](part, host, np.random.default_rng(seed))
        assert (made == 0.8).mean() == pytest.approx(share) and set(np.unique(made)) == set(np.float32([0.1, 0.8]))


def test_a_moved_region_is_there_unaltered_and_elsewhere() -> None:
    part = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    made = KINDS["moved"](part, np.full((64, 64), -1.0, dtype=np.float32), np.random.default_rng(3))
    rows, columns = (np.unique(place) for place in np.nonzero(made >= 0))
    region = made[np.ix_(rows, columns)].astype(int)
    assert region.shape == (32, 32)
    assert (np.diff(region, axis=1) == 1).all() and (np.diff(region, axis=0) == 64).all()
    assert (region // 64 - rows[:, None] != 0).any() or (region % 64 - columns[None] != 0).any()


def test_no_quarter_stays_where_it_was() -> None:
    part = np.kron(np.arange(4, dtype=np.float32).reshape(2, 2), np.ones((32, 32), dtype=np.float32))
    for seed in range(10):
        made = KINDS["exchanged"](part, part, np.random.default_rng(seed))
        assert (made != part).all() and sorted(np.unique(made).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_exists_in_volumes(kind: str) -> None:
    rng = np.random.default_rng(0)
    part, host = rng.random((2, 16, 16, 16), dtype=np.float32)
    before = part.copy(), host.copy()
    made = KINDS[kind](part, host, rng)
    assert made.shape == (16, 16, 16) and made.dtype == np.float32 and (made != host).any()
    np.testing.assert_array_equal((part, host), before)


def test_patients_stand_on_one_side_only() -> None:
    patients = np.repeat([f"p{n}" for n in range(30)], 3)
    images = np.arange(90, dtype=np.float32).reshape(90, 1, 1, 1)
    training, codes, unseen = split(images, patients, 20, seed=0)
    assert len(training) == 21 and len(np.unique(codes)) == 7
    known = {int(value) // 3 for value in training.ravel()}
    others = [int(value) // 3 for value in unseen.ravel()]
    assert len(others) == 23 and len(set(others)) == 23 and not known & set(others)


def test_a_table_is_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.random((60, 1, 32, 32), dtype=np.float32))
    np.save(tmp_path / "patients.npy", np.arange(60))
    arguments = ["--images", str(tmp_path / "images.npy"), "--patients", str(tmp_path / "patients.npy")]
    main([*arguments, "--out", str(tmp_path / "out"), "--training", "24", "--unseen", "8", "--copies", "4"])
    record = json.loads((tmp_path / "out" / "partial_copies.json").read_text())
    rows = record["methods"]["parts"]["rows"]
    assert list(rows) == ["unseen images", "composites", *KINDS]
    assert rows["half"]["with_the_original"] == [1.0, 1.0]
    assert "| half | 100 (100) |" in (tmp_path / "out" / "partial_copies.md").read_text()

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_memo.audit.evidence import align, collect_evidence, pair_evidence
from monai_memo.audit.figures import distribution_figure, pair_figure, png_bytes, rates_figure
from monai_memo.audit.result import AuditResult, Match
from monai_memo.audit.slices import PLANES, central_planes, planes_at, telling_planes
from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.writing import save_image

MATCH = Match("s.png", "t.png", "t", 0.9, 0.7, True)


@pytest.mark.parametrize(
    ("axes", "words"), [((), ""), ((1,), "left-right"), ((0,), "up-down"), ((0, 1), "up-down and left-right")]
)
def test_mirrors_are_found_and_named(axes: tuple[int, ...], words: str) -> None:
    image = chest_phantom(0)[0]
    shown, mirrored, correlation = align(image, np.flip(image, axes))
    assert mirrored == words and correlation == pytest.approx(1.0)
    np.testing.assert_array_equal(shown, np.flip(image, axes))


def test_difference_shows_what_was_changed() -> None:
    training = chest_phantom(0)
    synthetic = training.copy()
    synthetic[0, 10:20, 30:40] = 1.0
    pair = pair_evidence(MATCH, synthetic, training)
    assert pair.planes == () and pair.synthetic.shape == (1, 64, 64)
    assert np.abs(pair.difference[0, 10:20, 30:40]).mean() > 0.2
    assert np.abs(pair.difference[0, 30:, :]).max() == 0


def test_volumes_show_three_planes_upright() -> None:
    volume = np.zeros((8, 10, 12), dtype=np.float32)
    volume[:, :, -1] = 1.0  # the top
    planes = central_planes(volume)
    assert planes.shape[0] == 3
    assert planes[0].sum(axis=1).argmax() == planes[1].sum(axis=1).argmax() == 0
    pair = pair_evidence(MATCH, knee_phantom(0, (16, 16, 16)), knee_phantom(1, (16, 16, 16)))
    assert [plane.name for plane in pair.planes] == [*PLANES, *PLANES] and pair.difference.shape == (6, 16, 16)
    assert [plane.shows for plane in pair.planes] == ["agrees"] * 3 + ["differs"] * 3


@pytest.mark.parametrize("with_map", [True, False])
def test_volumes_are_shown_where_the_pair_agrees_and_where_it_differs_most(with_map: bool) -> None:
    synthetic = np.random.default_rng(0).random((12, 14, 16)).astype(np.float32)
    training = np.random.default_rng(1).random((12, 14, 16)).astype(np.float32) * 0.2 + synthetic * 0.8
    for axis, other in enumerate((9, 11, 13)):
        training.swapaxes(0, axis)[other] = 1 - synthetic.swapaxes(0, axis)[other]
    for axis, same in enumerate((2, 4, 6)):
        training.swapaxes(0, axis)[same] = synthetic.swapaxes(0, axis)[same]
    synthetic[:, :, 0] = training[:, :, 0] = 0  # an empty slice agrees best of all, and says nothing
    agreement = 1 - np.abs(synthetic - training) if with_map else None
    planes = telling_planes(synthetic, training, agreement)
    assert [(plane.axis, plane.of) for plane in planes] == [(0, 12), (1, 14), (2, 16)] * 2
    assert [plane.place for plane in planes] == [2, 4, 6, 9, 11, 13]
    shown = planes_at(synthetic, planes)
    assert shown.shape == (6, 16, 14)  # as large as the largest plane
    np.testing.assert_array_equal(shown[0], np.rot90(synthetic[2]))
    np.testing.assert_array_equal(shown[2][1:-1, 1:-1], np.rot90(synthetic[:, :, 6]))


def test_pairs_are_loaded_at_a_size_for_people_and_lost_files_left_out(tmp_path: Path) -> None:
    for name, patient in (("s", 0), ("t", 0), ("u", 1)):
        save_image(tmp_path / name / f"{name}.png", chest_phantom(patient))
    synthetic, training = (
        Cohort.from_source(tmp_path / "s", "synthetic"),
        Cohort.from_source(tmp_path / "t", "training"),
    )
    found = collect_evidence([MATCH], synthetic, training, Preprocessing(2, (16, 16)))
    assert found[0].synthetic.shape == (1, 224, 224) and found[0].correlation > 0.99
    (tmp_path / "t" / "t.png").unlink()
    assert collect_evidence([MATCH], synthetic, training, Preprocessing(2, (16, 16))) == []


def test_figures_render_the_same_bytes_twice(record: AuditResult) -> None:
    pair = pair_evidence(MATCH, chest_phantom(0), chest_phantom(1))
    for make in (lambda: distribution_figure(record), lambda: rates_figure(record), lambda: pair_figure(pair)):
        first = png_bytes(make())
        assert first.startswith(b"\x89PNG") and first == png_bytes(make())

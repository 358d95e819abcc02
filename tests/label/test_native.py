# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Pairs at the resolution of their files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_memo.data.cohort import CohortImage
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantom_skin import skin_phantom
from monai_memo.errors import MemoError
from monai_memo.label import native
from monai_memo.label.native import (
    NativePair,
    Whole,
    as_bytes,
    brought,
    grid_of,
    load_whole,
    native_pair,
    read_native,
    read_told,
    save_native,
    unpacked,
)


def whole(image: np.ndarray) -> Whole:
    return Whole(np.asarray(image, dtype=np.float32), tuple(map(float, image.shape)), False)


def image_of(path: Path) -> CohortImage:
    return CohortImage(path, path.name, "")


def test_twelve_bits_of_a_picture_are_kept_and_so_is_what_lies_beyond_the_window(tmp_path: Path) -> None:
    values = np.arange(64 * 50, dtype=np.uint16).reshape(64, 50)
    values[0, 0] = 60_000  # a marker, brighter than everything
    Image.fromarray(values).save(tmp_path / "x.png")
    found = load_whole(image_of(tmp_path / "x.png"), Preprocessing(2, (32, 32)))
    low, high = np.percentile(values, (0.5, 99.5))
    np.testing.assert_allclose(found.image, (values - low) / (high - low), atol=1e-5)
    assert found.extent == (64, 50) and found.image[0, 0] > 10
    save_native(tmp_path / "images", "pair_1", NativePair(found.image, found.image[::-1], found.extent))
    stored = read_native(tmp_path / "images", "pair_1")
    assert stored.synthetic.shape == (64, 50), "no 512 pixels, no square"
    inner = (values > low) & (values < high)
    assert len(np.unique(stored.synthetic[inner])) == inner.sum(), "every grey value stays one of its own"
    assert stored.synthetic[0, 0] == 1.5 and stored.synthetic[-1, -1] > 1, (
        "beyond the percentiles, and not clipped to 1"
    )
    np.testing.assert_allclose(stored.training, stored.synthetic[::-1])
    assert read_told(tmp_path / "images", "pair_1") == {
        "shape": [64, 50], "extent": [1.0, 0.78125], "oriented": False, "channels": 1}  # fmt: skip


def test_what_is_stored_tells_nothing_but_the_pixels(tmp_path: Path) -> None:
    pair = NativePair(np.zeros((9, 7), np.float32), np.ones((9, 7), np.float32), (9.0, 7.0))
    for folder in ("a", "b"):
        save_native(tmp_path / folder, "pair_1", pair)
    first, second = ((tmp_path / folder / "pair_1.gz").read_bytes() for folder in ("a", "b"))
    assert first == second and first[3:8] == bytes(5), "neither a name nor a time"
    assert gzip.decompress(first) == np.full(63, 2048, "<u2").tobytes() + np.full(63, 6144, "<u2").tobytes()


def test_a_volume_lies_as_its_file_says_and_keeps_its_proportions(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(10, 12, 14)).astype(np.float32)
    affine = np.array([[0, 0, 3.0, 0], [-0.5, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]])  # axes: back, up, right
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "x.nii.gz")
    found = load_whole(image_of(tmp_path / "x.nii.gz"), Preprocessing(3, (16, 16, 16)))
    assert found.image.shape == (14, 10, 12) and found.oriented
    assert found.extent == pytest.approx((14 * 3, 10 * 0.5, 12 * 2))
    low, high = np.percentile(values, (0.5, 99.5))
    expected = (values.transpose(2, 0, 1)[:, ::-1] - low) / (high - low)
    np.testing.assert_allclose(found.image, expected, atol=1e-5)
    np.save(tmp_path / "x.npy", values)
    plain = load_whole(image_of(tmp_path / "x.npy"), Preprocessing(3, (16, 16, 16)))
    assert not plain.oriented and plain.extent == (10, 12, 14)


def test_the_grid_holds_both_images() -> None:
    assert grid_of((256, 256), (2048, 1024)) == (2048, 2048) and grid_of((512, 400), (128, 128)) == (512, 400)
    assert grid_of((64, 64, 64), (256, 256, 40)) == (256, 256, 64)
    large = grid_of((8000, 8000), (10, 10))
    assert 0.98 < np.prod(large) / native.MOST_POINTS[2] <= 1 and large[0] == large[1]
    assert 0.98 < 3 * np.prod(grid_of((8000, 8000), (10, 10), channels=3)) / native.MOST_POINTS[2] <= 1
    assert np.prod(grid_of((1024, 1024, 1024), (9, 9, 9))) <= native.MOST_POINTS[3]


def test_the_aligned_training_image_keeps_its_detail() -> None:
    rng = np.random.default_rng(3)
    places = np.indices((160, 120)).astype(np.float32)
    smooth = sum(np.sin(places[0] / rng.uniform(6, 30) + places[1] / rng.uniform(6, 30)) for _ in range(6)) / 12 + 0.5
    fine = smooth.copy()
    fine[80, 60] += 0.4  # one pixel
    mirrored = fine[:, ::-1].copy()
    coarse = Whole(smooth[::2, ::2].astype(np.float32), (80.0, 60.0), False)
    pair = native_pair(coarse, whole(mirrored), Preprocessing(2, (32, 32)), verified=False)
    assert pair.synthetic.shape == pair.training.shape == (160, 120) and pair.extent == (80, 60)
    np.testing.assert_allclose(pair.training, fine, atol=1e-4)
    verified = native_pair(whole(smooth), whole(mirrored), Preprocessing(2, (32, 32)), verified=True)
    row, column = np.unravel_index((verified.training - verified.synthetic)[10:-10, 10:-10].argmax(), (140, 100))
    assert abs(row - 70) <= 2 and abs(column - 50) <= 2, "aligned to within two pixels of the file"


def test_an_image_ends_in_grey_and_large_ones_go_in_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.arange(20 * 16, dtype=np.float32).reshape(20, 16) / 320
    shifted = np.array([[1, 0, 0.5], [0, 1, 0]], dtype=np.float32)  # a quarter of the width
    found = brought(image, shifted, (20, 16))
    np.testing.assert_allclose(found[:, :12], image[:, 4:], atol=1e-5)
    assert (found[:, 12:] == 0.5).all()
    monkeypatch.setattr(native, "SLAB", 40)
    np.testing.assert_array_equal(brought(image, shifted, (20, 16)), found)


def test_pairs_are_in_colour_where_the_audit_compared_in_colour(tmp_path: Path) -> None:
    values = np.round(255 * skin_phantom(1, (40, 30))).astype(np.uint8)
    Image.fromarray(np.moveaxis(values, 0, -1)).save(tmp_path / "colour.png")
    Image.fromarray(values[0]).save(tmp_path / "grey.png")
    in_colour = Preprocessing(2, (32, 32), channels=3)
    coloured, grey = (load_whole(image_of(tmp_path / f"{name}.png"), in_colour) for name in ("colour", "grey"))
    low, high = np.percentile(values, (0.5, 99.5))
    np.testing.assert_allclose(coloured.image, (values - low) / (high - low), atol=1e-5)
    assert coloured.extent == (40, 30) and not np.ptp(grey.image, axis=0).any()
    assert load_whole(image_of(tmp_path / "colour.png"), Preprocessing(2, (32, 32))).image.shape == (40, 30)
    for name, other in (("copy", coloured), ("grey", grey)):
        save_native(tmp_path, name, native_pair(coloured, other, in_colour, verified=True))
        assert read_told(tmp_path, name) == {
            "shape": [40, 30], "channels": 3, "extent": [1.0, 0.75], "oriented": False,
        }  # fmt: skip
        assert len(unpacked(tmp_path, name)) == 2 * 2 * 3 * 40 * 30, "a grey picture takes no less"
        stored = read_native(tmp_path, name)
        assert (stored.shape, stored.channels) == ((40, 30), 3)
        np.testing.assert_allclose(stored.synthetic, coloured.image.clip(-0.5, 1.5), atol=1e-3)


def test_a_mirrored_original_keeps_its_colours() -> None:
    image = skin_phantom(2, (48, 40))
    mirrored = Whole(image[:, :, ::-1].copy(), (48.0, 40.0), False)
    for verified in (False, True):
        pair = native_pair(Whole(image, (48.0, 40.0), False), mirrored, Preprocessing(2, (32, 32)), verified)
        inside = np.s_[:, 6:-6, 6:-6]
        assert pair.training.shape == (3, 48, 40) and np.abs(pair.training - image)[inside].mean() < 0.01


def test_a_volume_of_three_slices_is_no_picture_in_colour(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((2, 3, 20, 18), dtype=np.float32)
    save_native(tmp_path, "pair_1", NativePair(values[0], values[1], (3.0, 20.0, 18.0)))
    assert read_told(tmp_path, "pair_1")["shape"] == [3, 20, 18]
    stored = read_native(tmp_path, "pair_1")
    assert (stored.channels, stored.shape) == (1, (3, 20, 18))
    assert load_whole(image_of(_volume(tmp_path)), Preprocessing(3, (16, 16, 16), channels=3)).image.ndim == 3


def _volume(folder: Path) -> Path:
    np.save(folder / "x.npy", np.random.default_rng(0).random((10, 12, 14)))
    return folder / "x.npy"


def test_pairs_of_an_earlier_version_are_grey(tmp_path: Path) -> None:
    save_native(tmp_path, "pair_1", NativePair(np.zeros((9, 7), np.float32), np.ones((9, 7), np.float32), (9.0, 7.0)))
    told = json.loads((tmp_path / "pair_1.json").read_text())
    del told["channels"]
    (tmp_path / "pair_1.json").write_text(json.dumps(told))
    assert read_told(tmp_path, "pair_1")["channels"] == 1
    (tmp_path / "pair_1.json").write_text(json.dumps({**told, "channels": 2}))
    with pytest.raises(MemoError, match=r"pair_1\.json is missing or damaged"):
        read_told(tmp_path, "pair_1")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    save_native(tmp_path, "pair_1", NativePair(np.zeros((9, 7), np.float32), np.ones((9, 7), np.float32), (9.0, 7.0)))
    (tmp_path / "pair_1.json").write_text('{"shape": [1]}')
    with pytest.raises(MemoError, match=r"pair_1\.json is missing or damaged: restore it from a backup"):
        read_told(tmp_path, "pair_1")


def test_what_the_viewer_gets_is_what_was_stored(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((2, 64, 60), dtype=np.float32)
    pair = NativePair(values[0], values[1], (64.0, 60.0))
    save_native(tmp_path, "pair_1", pair)
    assert unpacked(tmp_path, "pair_1") == as_bytes(pair) and len(as_bytes(pair)) == 4 * 64 * 60
    (tmp_path / "pair_1.gz").write_bytes((tmp_path / "pair_1.gz").read_bytes()[:-9])
    with pytest.raises(MemoError, match=r"pair_1\.gz is damaged: restore it from a backup"):
        unpacked(tmp_path, "pair_1")

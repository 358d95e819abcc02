# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Preparing a review: pairs, pictures, what is missing."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import rotate

from monai_memo.audit.evidence import fit, pixel_correlation
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.errors import CohortError, ConfigurationError, MemoError
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.label.native import Whole, native_pair, read_native, unpacked
from monai_memo.label.pairs import AlignedPair, gap, side_by_side, slice_picture
from monai_memo.label.pictures import evidence_picture, evidence_volume, pair_slice, stored_pair
from monai_memo.label.prepare import open_study, prepare_review
from tests.audit.test_colours import audit as audit_skin
from tests.audit.test_colours import write as write_skin


def aligned_pair(synthetic: np.ndarray, training: np.ndarray, verified: bool) -> AlignedPair:
    """As a review shows two images ``(1, *spatial)`` of the same shape."""
    shape = synthetic.shape[1:]
    first, second = (Whole(image[0], tuple(map(float, shape)), False) for image in (synthetic, training))
    pair = native_pair(first, second, Preprocessing(len(shape), shape), verified)
    return AlignedPair(pair.synthetic, pair.training)


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)), dtype=np.float32) / 255


def test_pictures_show_the_synthetic_image_left_and_its_match_right(audit: Path, demo_folder: Path) -> None:
    study = prepare_review(str(audit), n=8, n_uncertain=2, progress=False)
    stored = sorted((audit / "review" / "datastore").glob("*.png"))
    assert [path.stem for path in stored] == [pair.pair_id for pair in study.pairs]
    assert len({path.stat().st_size for path in stored}) == 1, "sizes say nothing of what is shown"
    for pair, path in list(zip(study.pairs, stored, strict=True))[:3]:
        left, right = (stored_pair(path, study.shape).synthetic, stored_pair(path, study.shape).training)
        assert left.shape == study.shape == (512, 512)
        for shown, folder, name in ((left, "synthetic", pair.synthetic), (right, "training", pair.training)):
            original = np.asarray(Image.open(demo_folder / folder / name).resize((512, 512), 2), dtype=np.float32)
            if name == pair.training:  # brought to the synthetic image
                original = fit(left[None], original[None] / 255, verified=True).training
            assert pixel_correlation(original, shown) > 0.95  # the rim is as coarse as the file
    table = json.loads((audit / "review" / "study.json").read_text())
    assert len(table["pairs"]) == 10 and open_study(AuditFolder(audit)) == study


@pytest.mark.parametrize("channels", [3, 1])
def test_pairs_are_shown_in_colour_where_they_were_compared_in_colour(channels: int, tmp_path: Path) -> None:
    """A detector of grey images compares pictures in grey: then raters see what it saw."""
    write_skin(tmp_path)
    audit_skin(tmp_path, channels)
    out = tmp_path / "out"
    study = prepare_review(str(out), n=6, n_uncertain=2, progress=False)
    small = sorted((out / "review" / "datastore").glob("*.png"))
    assert len({path.stat().st_size for path in small}) == 1, "sizes say nothing of what is shown"
    sizes = {len(unpacked(out / "review" / "images", pair.pair_id)) for pair in study.pairs}
    assert sizes == {2 * 2 * channels * 32 * 32}
    for pair, path in zip(study.pairs, small, strict=True):
        original = np.asarray(Image.open(tmp_path / "synthetic" / pair.synthetic), dtype=np.float32)
        stored = read_native(out / "review" / "images", pair.pair_id)
        assert stored.channels == channels and stored_pair(path, study.shape).synthetic.shape == study.shape
        if channels == 3:
            assert pixel_correlation(np.moveaxis(original, -1, 0), stored.synthetic) > 0.99
        assert Image.open(path).mode == ("RGB" if channels == 3 else "L")
        left = np.asarray(Image.open(path), dtype=np.float32)[:, : study.shape[1]]
        shown = np.asarray(Image.open(tmp_path / "synthetic" / pair.synthetic).resize(study.shape[::-1], 2))
        if channels == 3:
            assert pixel_correlation(shown.astype(np.float32), left) > 0.95


def test_volumes_lie_side_by_side_and_slices_follow(audit_3d: Path) -> None:
    study = prepare_review(str(audit_3d), n=3, n_uncertain=0, progress=False)
    path = audit_3d / "review" / "datastore" / f"{study.pairs[0].pair_id}.nii.gz"
    pair = stored_pair(path, study.shape)
    assert pair.synthetic.shape == study.shape == (96, 96, 96)
    assert 0 < pair.synthetic.mean() < pair.synthetic.max() <= 1
    assert len({path.stat().st_size for path in path.parent.glob("*.nii.gz")}) == 1
    for plane, axis in (("sagittal", 0), ("coronal", 1), ("axial", 2)):
        picture = opened(pair_slice(path, study.shape, plane, 40))
        expected = np.rot90(np.take(pair.synthetic, 40, axis=axis))
        expected = np.fliplr(expected) if axis else expected
        np.testing.assert_allclose(picture[:, :96], expected, atol=0.003)
    assert opened(evidence_picture(path, study.shape, "axial", 40)).shape == (96, 96, 3)
    for plane, index in (("oblique", 3), ("axial", 96), ("axial", -1), ("axial", None), ("axial", "x")):
        with pytest.raises(ValueError, match=r"plane must be|slice must be"):
            pair_slice(path, study.shape, plane, index)
    out = evidence_volume(path, study.shape, audit_3d / "difference.nii.gz")
    assert out.stat().st_size > 1000


def test_a_turned_copy_lies_on_its_original() -> None:
    image = chest_phantom(3, (96, 96))
    turned = rotate(image, 12, axes=(1, 2), reshape=False, order=1)[:, :, ::-1].copy()
    pair = aligned_pair(turned, image, verified=True)
    inside = np.s_[20:-20, 20:-20]  # both have corners without image
    assert pixel_correlation(pair.synthetic[inside], pair.training[inside]) > 0.95
    only_mirrored = aligned_pair(turned, image, verified=False)
    assert pixel_correlation(only_mirrored.synthetic[inside], only_mirrored.training[inside]) < 0.9


def test_volumes_are_laid_out_as_viewers_show_them() -> None:
    image = chest_phantom(3, (64, 64))
    pair = aligned_pair(image[:, :, ::-1].copy(), image, verified=False)
    assert np.abs(pair.difference).max() == 0
    volume = knee_phantom(3, (16, 16, 16))
    both = side_by_side(aligned_pair(volume, volume * 0.5, verified=False))[0]
    assert both.shape == (32 + gap(16), 16, 16)
    # Viewers put +x on the left: the synthetic volume has to come last.
    np.testing.assert_allclose(both[-16:], volume[0], atol=1e-6)
    with pytest.raises(ValueError, match="plane"):
        slice_picture(both, 16, "axial?", 1)
    with pytest.raises(ValueError, match="between 0 and 15"):
        slice_picture(both, 16, "axial", 16)


def test_missing_originals_are_named_and_counted(
    audit: Path, demo_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = Path(shutil.copytree(demo_folder, tmp_path / "images"))
    chosen = AuditFolder(audit).matches
    (images / "synthetic" / chosen[0].synthetic).unlink()
    (images / "training" / chosen[-1].nearest_training).write_bytes(b"no picture")
    study = prepare_review(
        str(audit), n=30, train=str(images / "training"), synthetic=str(images / "synthetic"), progress=False
    )
    missing = {pair.synthetic: pair.missing for pair in study.pairs if pair.missing}
    assert missing[chosen[0].synthetic] == "synthetic image missing"
    assert missing[chosen[-1].synthetic] == "training image holds text, not an image"
    assert f"{len(missing)} of 30 pairs cannot be shown" in caplog.text and chosen[0].synthetic in caplog.text
    assert len(list((audit / "review" / "datastore").glob("*.png"))) == 30 - len(missing) == len(study.sample)


def test_refusals(audit: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"has no audit\.json"):
        prepare_review(str(tmp_path))
    with pytest.raises(CohortError, match="say where it is with --synthetic"):
        prepare_review(str(audit), synthetic=str(tmp_path / "gone"))
    assert not (audit / "review" / "study.json").exists(), "a failed preparation leaves no plan"
    prepare_review(str(audit), n=4, progress=False)
    with pytest.raises(ConfigurationError, match="--restart"):
        prepare_review(str(audit), n=4, progress=False)
    prepare_review(str(audit), n=5, restart=True, progress=False)
    assert (audit / "review.old" / "study.json").exists()
    # Another audit in the same folder.
    table = (audit / "matches.csv").read_text().splitlines()
    (audit / "matches.csv").write_text("\n".join(table[:-1]) + "\n")
    with pytest.raises(ConfigurationError, match="earlier audit"):
        open_study(AuditFolder(audit))
    (audit / "matches.csv").write_text("synthetic\nx\n")
    with pytest.raises(MemoError, match="not the table of an audit"):
        _ = AuditFolder(audit).matches


def test_a_redacted_audit_cannot_be_reviewed(audit: Path) -> None:
    record = json.loads((audit / "audit.json").read_text())
    record["configuration"]["train"] = record["configuration"]["synthetic"] = "[redacted]"
    (audit / "audit.json").write_text(json.dumps(record))
    with pytest.raises(ConfigurationError, match="without --redacted"):
        prepare_review(str(audit), progress=False)

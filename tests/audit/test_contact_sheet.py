# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from monai_memo.audit.contact_sheet import contact_sheet, montage, sheet_record, spread_figure
from monai_memo.audit.evidence import pair_evidence
from monai_memo.audit.report import write_report
from monai_memo.audit.result import AuditResult
from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.prepared import PreparedCohort


def prepared(name: str, pixels: np.ndarray) -> PreparedCohort:
    images = tuple(CohortImage(Path(f"{i}.png"), f"{i}.png", f"{i}") for i in range(len(pixels)))
    return PreparedCohort(Cohort(name, images, name, True), pixels.astype(np.float16), (), (), "")


def cohorts(size: int = 24) -> dict[str, PreparedCohort]:
    return {
        name: prepared(name, np.stack([chest_phantom(100 * place + i, (size, size)) for i in range(15)]))
        for place, name in enumerate(("training", "heldout", "synthetic"))
    }


def pictures(page: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def test_the_sheet_shows_the_mean_and_some_images_of_every_cohort() -> None:
    given = cohorts()
    sheet = contact_sheet(given, seed=3)
    assert [column.name for column in sheet] == ["training", "heldout", "synthetic"]
    for column in sheet:
        pixels = given[column.name].pixels.astype(np.float64)
        np.testing.assert_allclose(column.mean[0], pixels.mean(axis=(0, 1)), atol=1e-3)
        assert column.examples.shape == (12, 1, 24, 24) and abs(column.spread.sum() - 1) < 1e-9
        # Twelve different images of the cohort, each as it is.
        distances = np.abs(column.examples[:, None, 0] - pixels[None, :, 0]).max(axis=(2, 3))
        assert sorted(set(distances.argmin(axis=1))) == sorted(distances.argmin(axis=1))
        assert distances.min(axis=1).max() == 0


def test_the_same_seed_shows_the_same_images_and_another_seed_others() -> None:
    given = cohorts()
    first, again, other = (contact_sheet(given, seed)[0].examples for seed in (3, 3, 4))
    assert (first == again).all() and (first != other).any()


def test_planes_of_volumes_are_labelled_and_upright() -> None:
    volume = np.zeros((4, 1, 16, 16, 16))
    volume[:, :, :, :, 12:] = 1.0  # head
    volume[:, :, 12:, :, :4] = 0.5  # right, at the feet
    sheet = contact_sheet({"training": prepared("training", volume)})
    sagittal, coronal, _ = sheet[0].mean
    assert sagittal[0].min() == 1.0 and sagittal[-1].max() == 0.0  # S above
    assert coronal[0].min() == 1.0 and (coronal[-1, 12:] == 0.5).all() and (coronal[-1, :12] == 0).all()  # R right
    record = sheet_record(sheet)
    assert record["dims"] == 3 and [plane["ends"] for plane in record["columns"][0]["planes"]] == [
        ("S", "I", "P", "A"), ("S", "I", "L", "R"), ("A", "P", "L", "R")
    ]  # fmt: skip


def test_the_montage_keeps_small_images_as_they_are_and_shrinks_large_ones() -> None:
    small = np.linspace(0, 1, 5 * 24 * 20).reshape(5, 1, 24, 20).astype(np.float32)
    sheet = montage(small)
    assert sheet.shape == (2 * 24 + 2, 4 * 20 + 6)
    np.testing.assert_array_equal(sheet[:24, :20], (small[0, 0] * 255).round())
    assert (sheet[26:, 22:] == 255).all()  # nothing beside the fifth image
    assert montage(np.zeros((1, 1, 512, 256), dtype=np.float32)).max() == 0, "as wide as what it shows"


def test_the_report_carries_the_sheet_and_its_figure(record: AuditResult, tmp_path: Path) -> None:
    sheet = contact_sheet(cohorts())
    page = write_report(record, None, tmp_path, sheet=sheet).read_text(encoding="utf-8")
    assert "The cohorts side by side" in page and (tmp_path / "figures" / "contact_sheet.png").exists()
    shown = pictures(page)
    for column in sheet:
        assert any(np.array_equal(picture, montage(column.examples)) for picture in shown)
        assert any(np.array_equal(picture, (column.mean[0] * 255).round().astype(np.uint8)) for picture in shown)
    assert len(page.encode()) < 1_000_000


def test_a_redacted_report_has_no_pixel_of_an_image(record: AuditResult, tmp_path: Path) -> None:
    given = cohorts()
    sheet = contact_sheet(given)
    evidence = [pair_evidence(record.matches[0], chest_phantom(0), chest_phantom(1))]
    page = write_report(record.without_patients(), evidence, tmp_path, True, sheet).read_text(encoding="utf-8")
    assert "The cohorts side by side" not in page
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["distributions.png", "rates.png"]
    # Only drawings are left: much white, which no image of the cohorts has.
    drawings = pictures(page)
    assert len(drawings) == 2
    for picture in drawings:
        grey = picture[..., :3].mean(axis=2)
        assert (grey > 250).mean() > 0.5
    assert max((np.asarray(item.pixels) > 0.98).mean() for item in given.values()) < 0.2


def test_histograms_of_one_cohort_and_of_three() -> None:
    sheet = contact_sheet(cohorts())
    assert len(spread_figure(sheet).axes[0].patches) == 3
    assert len(spread_figure(sheet[:1]).axes[0].patches) == 1

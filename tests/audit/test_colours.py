# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_memo.audit.audit import Audit
from monai_memo.audit.evidence import pair_evidence
from monai_memo.audit.figures import pair_figure
from monai_memo.audit.pair_cards import Originals, pair_card
from monai_memo.audit.parts import Match
from monai_memo.audit.result import AuditResult
from monai_memo.data.phantom_skin import skin_phantom
from monai_memo.data.writing import save_image
from monai_memo.errors import DetectorError
from tests.audit.small import untrained

SIZE = (32, 32)
COHORTS = (("train", 0, 24), ("heldout", 100, 24), ("synthetic", 200, 10))


def write(root: Path, grey: str = "") -> Path:
    """Pictures of skin; one synthetic image is a copy, one has the grey values of another training image."""
    for name, first, count in COHORTS:
        for number in range(count):
            image = skin_phantom(first + number, SIZE)
            if name == "synthetic" and number < 2:
                image = (
                    0.9 * skin_phantom(number, SIZE)[:: 1 - 2 * number]
                )  # the second one with red and blue exchanged
            image = image.mean(axis=0, keepdims=True) if name == grey else image
            save_image(root / name / f"{name}{number:02d}.png", image)
    return root


def audit(root: Path, channels: int = 3, **further: Any) -> AuditResult:
    detector = untrained(root / "detector.pt", channels)
    cohorts = {name: str(root / name) for name, _, _ in COHORTS}
    quick: dict[str, Any] = {"detector": str(detector), "n_bootstrap": 100, "planted": 0, "limit_copies": 0}
    given = {**cohorts, **quick, "gallery": 1, "parts": False, "progress": False, "workers": 1, **further}
    return Audit(out=str(root / "out"), **given).run()


def pictures_in(page: Path) -> list[Image.Image]:
    found = re.findall(r"data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)", page.read_text(encoding="utf-8"))
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def is_coloured(picture: Image.Image) -> bool:
    return picture.mode == "RGB" and bool(np.ptp(np.asarray(picture), axis=2).mean() > 5)


def test_cohorts_in_colour_are_compared_and_shown_in_colour(tmp_path: Path) -> None:
    result = audit(write(tmp_path))
    assert result.detector["channels"] == 3 and "kept in its colours" in result.preprocessing["sentence"]
    assert not any("colour" in text for text in result.warnings)
    first, second = (next(m for m in result.matches if m.synthetic.endswith(f"0{n}.png")) for n in (0, 1))
    assert first.nearest_training == "train00.png" and first.similarity > result.tau.value and first.copy
    assert second.similarity <= result.tau.value and not second.copy
    assert sum(map(is_coloured, pictures_in(tmp_path / "out" / "report.html"))) >= 2  # of the pair


@pytest.mark.parametrize("grey", ["synthetic", "heldout"])
def test_cohorts_of_which_some_are_grey_are_compared_in_grey_and_the_report_says_so(tmp_path: Path, grey: str) -> None:
    result = audit(write(tmp_path, grey), 1, verification=False)
    assert result.detector["channels"] == 1
    (told,) = [text for text in result.warnings if "in colour" in text]
    assert f"{grey} in grey" in told and "training in colour" in told and "compared in grey values" in told
    assert "compared in grey values" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_detector_of_grey_images_compares_colours_in_grey_and_the_report_says_so(tmp_path: Path) -> None:
    result = audit(write(tmp_path), 1, verification=False)
    (told,) = [text for text in result.warnings if "in colour" in text]
    assert told.startswith("The images are in colour and the detector takes grey ones")
    assert result.detector["channels"] == 1


def test_a_detector_of_colours_refuses_grey_images(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"the detector takes colours.*not all images are in colour"):
        audit(write(tmp_path, "heldout"))


@pytest.mark.parametrize("verified", [True, False])
def test_pairs_are_shown_in_colour(verified: bool) -> None:
    training = skin_phantom(3, (48, 40))
    synthetic = np.ascontiguousarray(training[:, :, ::-1])
    match = Match("s.png", "t.png", "t", 0.9, 0.7, True)
    pair = pair_evidence(match, synthetic, training, verified)
    assert pair.mirrored == "left-right" and pair.colours is not None
    here, there = pair.shown(0)
    np.testing.assert_array_equal(here, np.moveaxis(synthetic, 0, -1))
    assert np.abs(here - there)[6:-6, 6:-6].mean() < 0.02 and here.shape == there.shape == (48, 40, 3)
    card = pair_card(pair, 1, originals=Originals.of([match]))
    for shown in card.page_rows[0].pictures[:2]:
        picture = Image.open(io.BytesIO(base64.b64decode(shown.source.split(",")[1])))
        assert picture.size == (40, 48) == (shown.width, shown.height) and is_coloured(picture)
    assert len(pair_figure(pair).axes) == (4 if verified else 3)


def test_a_cohort_of_copies_in_other_colours_is_not_called_safe(tmp_path: Path) -> None:
    """By their colours they are no copies, by their grey values they are near twins."""
    write(tmp_path)
    for number in range(10):
        turned = Image.fromarray((np.moveaxis(skin_phantom(number, SIZE), 0, -1) * 255).astype(np.uint8)).convert("HSV")
        values = np.asarray(turned).copy()
        values[..., 0] += 128
        Image.fromarray(values, "HSV").convert("RGB").save(tmp_path / "synthetic" / f"synthetic{number:02d}.png")
    result = audit(tmp_path, reference=False)
    assert result.n_copies.value <= 1 and result.verdict["level"] == "inconclusive"
    assert "of 10 synthetic images are near twins" in result.verdict["detail"]
    assert "they may be copies in other colours" in result.verdict["detail"]

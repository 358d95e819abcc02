# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What an audit makes of images in another orientation, and which of them a search under symmetries covers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_memo.audit.orientation import not_looked_up, partly_stated, require_alike
from monai_memo.data import Cohort, Preprocessing, prepare
from monai_memo.data.orientation_check import OrientationFinding
from monai_memo.errors import CohortError
from monai_memo.redaction import Named


def finding(*turned: str, status: str = "mixed", best: str | None = None) -> OrientationFinding:
    return OrientationFinding(
        "training", "synthetic", status, best or turned[0], {}, "They are turned.", "Do this.", (), turned
    )  # fmt: skip


@pytest.mark.parametrize(
    ("turned", "symmetries", "covered"),
    [
        (("rotate_180",), "none", False),
        (("rotate_180",), "mirror", True),
        (("rotate_180", "rotate_90"), "mirror", False),
        (("rotate_180", "rotate_90"), "all", True),
        (("flip_left_right",), "none", True),
        (("flip_left_right", "transpose"), "none", False),
    ],
)
def test_nothing_found_counts_only_if_every_turn_that_occurs_was_looked_up(
    turned: tuple[str, ...], symmetries: str, covered: bool
) -> None:
    found = [finding(*turned)]
    assert bool(not_looked_up(found, symmetries, 2)) is not covered
    (text,) = require_alike(found, None, symmetries, 2)
    assert text.endswith(
        "Every image was looked up turned as well." if covered and symmetries != "none" else "Do this."
    )


@pytest.mark.parametrize(("unsaid", "told"), [(0, False), (1, True), (3, True), (4, False)])
def test_volumes_of_which_only_some_state_their_orientation_are_told(tmp_path: Path, unsaid: int, told: bool) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        image = nibabel.Nifti1Image(rng.random((8, 8, 8)), np.diag([-1.0, -1.0, 1.0, 1.0]))
        image.set_sform(image.affine, int(number >= unsaid))
        image.set_qform(image.affine, int(number >= unsaid))
        nibabel.save(image, tmp_path / f"{number}.nii")
    cohort = prepare(Cohort.from_source(tmp_path, "training"), Preprocessing(3, (8, 8, 8)), tmp_path / "work", 1, False)
    warnings = partly_stated({"training": cohort})
    assert bool(warnings) is told
    if told:
        assert warnings[0].startswith(
            f"{unsaid} of the 4 training volumes do not state their orientation and were taken"
        )


def test_turned_images_and_near_twins_are_named_in_warnings_apart_from_their_words() -> None:
    found = replace(
        finding("rotate_180"), evidence={"images": 20.0}, turned_images=(("a.png", "turned"), ("b.png", "turned")),
        twins=(("a.png", "t1.png"), ("c.png", "t2.png")),
    )  # fmt: skip
    copies, turned = require_alike([found], None, "none", 2)
    assert isinstance(copies, Named) and isinstance(turned, Named)
    assert copies.plain == (
        "2 of 20 synthetic images are near twins of training images, so possible copies. matches.csv "
        "says which count as copies."
    )
    assert copies.names == ("a.png (like t1.png)", "c.png (like t2.png)") and turned.names == ("a.png", "b.png")
    assert turned.plain == "They are turned. Do this." and turned == "They are turned. Do this. (a.png, b.png)"
    assert "a.png" not in json.dumps(found.to_dict())  # it stands in redacted records


def test_a_refusal_tells_of_near_twins() -> None:
    found = replace(finding("rotate_180", status="otherwise"), evidence={"images": 9.0}, twins=(("a.png", "t.png"),))
    with pytest.raises(CohortError, match=r"so a possible copy: a\.png \(like t\.png\)\. Run the audit with") as error:
        require_alike([found])
    assert error.value.plain is not None and ".png" not in error.value.plain


def test_the_turn_that_was_applied_already_does_not_count() -> None:
    """Half of the samples lay as they should before --orientation rotate_90 turned all of them."""
    (concern,) = not_looked_up([finding("rotate_270", best="as_is")], "mirror", 2)
    assert "Copies among them are missed." in concern


def test_mirrored_samples_taken_as_they_are_are_no_concern() -> None:
    found = [finding("flip_left_right", status="otherwise")]
    (text,) = require_alike(found, "as_is", "none", 2)
    assert text.endswith("left-right mirror images are looked for in any case.")
    assert not_looked_up(found, "none", 2) == []

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What an audit makes of images that lie otherwise, and which of them a search under symmetries covers."""

from __future__ import annotations

import pytest

from monai_memo.audit.orientation import lie_otherwise, require_alike
from monai_memo.data.orientation_check import OrientationFinding


def finding(*turned: str, status: str = "mixed", best: str | None = None) -> OrientationFinding:
    return OrientationFinding(
        "training", "synthetic", status, best or turned[0], {}, "They lie otherwise.", "Do this.", (), turned
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
    assert bool(lie_otherwise(found, symmetries, 2)) is not covered
    (text,) = require_alike(found, None, symmetries, 2)
    assert text.endswith(
        "Every image was looked up turned as well." if covered and symmetries != "none" else "Do this."
    )


def test_the_turn_that_was_applied_already_does_not_count() -> None:
    """Half of the samples lay as they should before --orientation rotate_90 turned all of them."""
    (concern,) = lie_otherwise([finding("rotate_270", best="as_is")], "mirror", 2)
    assert "Copies among them are missed." in concern


def test_mirrored_samples_taken_as_they_are_are_no_concern() -> None:
    found = [finding("flip_left_right", status="otherwise")]
    (text,) = require_alike(found, "as_is", "none", 2)
    assert text.endswith("left-right mirror images are looked for in any case.")
    assert lie_otherwise(found, "none", 2) == []

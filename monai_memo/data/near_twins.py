# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Images that are nearly the same as an image of the reference cohort: synthetic ones are possible copies.

They come out of the comparison of orientations, on small versions: an image counts if it is far more like a reference
image than two patients of the reference cohort are. What is blurred, cut or changed in part is left to the audit.
"""

from __future__ import annotations

from monai_memo.data.orientation_check import OrientationFinding, title_of
from monai_memo.redaction import Named


def near_twins(finding: OrientationFinding, action: str = "") -> Named | None:
    """A sentence that names them, None where there are none.

    Args:
        finding: of ``compare_orientation``.
        action: what to do about synthetic ones.

    Example:
        >>> from monai_memo.data.orientation_check import OrientationFinding
        >>> found = OrientationFinding(
        ...     "training", "synthetic", "same", None, {"images": 8.0}, "", twins=(("s.png", "t.png"),)
        ... )
        >>> str(near_twins(found, "Run an audit."))  # doctest: +NORMALIZE_WHITESPACE
        '1 of 8 synthetic images is a near twin of a training image, so a possible copy: s.png (like t.png). Run an
        audit.'
    """
    if not finding.twins:
        return None
    number, of = len(finding.twins), int(finding.evidence["images"])
    who, whom = title_of(finding.other), title_of(finding.reference)
    are = f"is a near twin of a {whom} image" if number == 1 else f"are near twins of {whom} images"
    if finding.other == "synthetic":
        means = "a possible copy" if number == 1 else "possible copies"
    else:
        means = "perhaps of the same patient" if number == 1 else "perhaps of the same patients"
        action = f"If so, take them out of one cohort: {who} images have to be of other patients."
    names = [f"{name} (like {twin})" for name, twin in finding.twins]
    return Named(f"{number} of {of} {who} images {are}, so {means}", names, f". {action}".rstrip())

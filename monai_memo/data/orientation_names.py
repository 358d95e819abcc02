# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Names of orientations, without what turns images: options need nothing else, and help shall be quick."""

from __future__ import annotations

from itertools import permutations, product

from monai_memo.errors import ConfigurationError

AS_IS = "as_is"
SYMMETRIES = ("none", "mirror", "all")
RAS = (("R", "L"), ("A", "P"), ("S", "I"))
PICTURE_NAMES = (
    AS_IS, "transpose", "rotate_90", "rotate_180", "rotate_270", "flip_left_right", "flip_up_down", "transverse",
)  # fmt: skip
VOLUME_NAMES = tuple("".join(codes) for ends in permutations(RAS) for codes in product(*ends))


def check_name(name: str) -> str:
    """The name of an orientation in its usual case.

    Raises:
        ConfigurationError: not a name of any.
    """
    text = str(name).strip()
    if text.upper() in VOLUME_NAMES:
        return text.upper()
    if text.lower() in PICTURE_NAMES:
        return text.lower()
    raise ConfigurationError(
        f"orientation must be {', '.join(PICTURE_NAMES)} (what brings 2D images upright) or three axis codes such as "
        f"LPS or PIR (where the axes of 3D images really point: L or R, P or A, I or S in any order), got {name!r}"
    )

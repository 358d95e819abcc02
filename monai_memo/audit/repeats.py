# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic images that are the same image: so many samples say no more than one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.verdict import SHARE_OF_CONCERN
from monai_memo.sealing import array_sha256


def repeated_samples(pixels: NDArray[np.floating] | Sequence[NDArray[np.floating]]) -> tuple[list[str], list[str]]:
    """What to warn of, and why finding nothing would say little.

    Rates and intervals count every synthetic image as a draw of its own. A generator that does not use its seeds, or
    files that were copied, give many images and few draws: "none of 1,000" is then "not this one".

    Args:
        pixels: of all synthetic images, prepared.

    Returns:
        Warnings and concerns, no or one sentence each; a concern where more than 5 % of the images are repeats.

    Example:
        >>> repeated_samples(np.zeros((10, 1, 8, 8)))[0][0][:76]
        '9 of 10 synthetic images repeat another one to the last pixel: there is only'
    """
    total = len(pixels)
    different = len({array_sha256(np.asarray(image)) for image in pixels})
    if different == total:
        return [], []
    there = f"is only {different} different one" if different == 1 else f"are {different} different ones"
    text = (
        f"{total - different} of {total} synthetic images repeat another one to the last pixel: there {there}, and "
        "intervals that count each image are too narrow. A generator that gives one image for several seeds does not "
        "use them: let every seed draw its own noise. Files that stand there twice: take them out. Then audit again."
    )
    return [text], [text] if total - different > SHARE_OF_CONCERN * total else []

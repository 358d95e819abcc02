# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Which short numbers mixed precision trains with."""

from __future__ import annotations

import torch


def autocast_settings(device: str | torch.device) -> dict[str, torch.dtype]:
    """For ``torch.autocast``: bfloat16 where a card (or processor) calculates with it, float16 on older cards.

    The activations of autoencoders for volumes leave the range of float16 (65,504) within their first steps, and the
    loss is not a number from then on; bfloat16 has the range of float32.

    Example:
        >>> autocast_settings("cpu")
        {'dtype': torch.bfloat16}
    """
    place = torch.device(device)
    if place.type == "cuda" and torch.cuda.is_available() and torch.cuda.get_device_capability(place)[0] < 8:
        return {"dtype": torch.float16}
    return {"dtype": torch.bfloat16}

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A detector that is brought along decides about recipe, size and spacing: nobody may believe otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError

DECIDED = ("recipe", "epochs", "size", "spacing")


def require_agreement(detector: Detector, asked: Mapping[str, Any], names: Sequence[str] = DECIDED) -> None:
    """What somebody asked for explicitly is what the detector was made with.

    Args:
        detector: a trained one.
        asked: options that were given; None says nothing.
        names: those that the detector decides about.

    Raises:
        ConfigurationError: they differ. Otherwise a run would ignore the option, and its record would tell an untruth.
    """
    dims = detector.preprocessing.spatial_dims
    made: dict[str, Any] = {
        "recipe": detector.recipe.name,
        "epochs": detector.recipe.epochs,
        "size": tuple(detector.preprocessing.size),
        "spacing": None if detector.preprocessing.spacing is None else tuple(detector.preprocessing.spacing),
    }
    lines = []
    for name in names:
        value = asked.get(name)
        if value is None:
            continue
        if name in ("size", "spacing"):
            value = tuple(value) if isinstance(value, Sequence) else (value,) * dims
        if value != made[name]:
            lines.append(f"{name} is {_words(value)}, and the detector was made with {_words(made[name])}")
    if lines:
        raise ConfigurationError(
            f"a detector that is given decides about {', '.join(names)}: {'; '.join(lines)}. Leave these options out, "
            "or train a detector with them"
        )


def _words(value: Any) -> str:
    if value is None:
        return "none"
    return " x ".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)

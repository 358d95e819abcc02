# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How far a training is, for who sits before a terminal."""

from __future__ import annotations

from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar


class EpochBar:
    """Ignite handler: one bar over all epochs, on a terminal only.

    Args:
        text: in front of the bar.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def attach(self, engine: Engine) -> None:
        """Follow the epochs of a trainer."""
        bar = ProgressBar(
            desc=self.text,
            disable=None,
            bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}{postfix}",
        )
        bar.attach(
            engine,
            event_name=Events.EPOCH_COMPLETED,
            closing_event_name=Events.COMPLETED,
            output_transform=lambda out: {"loss": float(out["loss"].detach())},
        )

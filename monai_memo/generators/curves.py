# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Curves of copy rates over training steps, from the TensorBoard events of one or more trainings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_memo.errors import ConfigurationError
from monai_memo.files import write_with

COPY_RATES = ("copies", "copies_low", "copies_high", "control_copies", "control_copies_low", "control_copies_high")


def read_curves(log_dir: str | Path, prefix: str = "copy_rate/") -> dict[str, NDArray[np.float64]]:
    """All scalars under a prefix: ``name`` to ``(n, 2)``, step and value, in order of steps.

    Where a training was resumed and a step logged twice, the later value counts.

    Raises:
        ConfigurationError: no such scalars there.
    """
    events = EventAccumulator(str(log_dir), size_guidance={"scalars": 0})
    curves = {}
    for tag in events.Reload().Tags()["scalars"] if Path(log_dir).is_dir() else ():
        if tag.startswith(prefix):
            last = {event.step: event.value for event in events.Scalars(tag)}
            curves[tag.removeprefix(prefix)] = np.array(sorted(last.items()), dtype=np.float64)
    if not curves:
        raise ConfigurationError(f"{log_dir} has no TensorBoard scalars that begin with {prefix!r}")
    return curves


def plot_copy_rates(runs: Mapping[str, str | Path], path: str | Path, title: str = "") -> Path:
    """Draw copy rate with its interval and the control's, and the nearest similarity, for several trainings.

    Args:
        runs: folder of TensorBoard events for each label.
        path: of the PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for number, (label, folder) in enumerate(runs.items()):
        curves, colour = read_curves(folder), f"C{number}"
        value, low, high, control, control_low, control_high = (curves[name] for name in COPY_RATES)
        left.plot(*value.T, color=colour, label=f"{label}: copies")
        left.fill_between(value[:, 0], low[:, 1], high[:, 1], color=colour, alpha=0.25)
        left.plot(*control.T, color=colour, linestyle=":", label=f"{label}: control")
        left.fill_between(control[:, 0], control_low[:, 1], control_high[:, 1], color=colour, alpha=0.1)
        similarity = curves["nearest_similarity"]
        right.plot(*similarity.T, color=colour, label=f"{label}: median")
        right.plot(*curves["tau"].T, color=colour, linestyle=":", label=f"{label}: tau")
    left.set(xlabel="training step", ylabel="share of samples", ylim=(0, 1), title="Copies among samples")
    right.set(xlabel="training step", ylabel="similarity", title="Nearest training image")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
    if title:
        figure.suptitle(title)
    return write_with(path, lambda temporary: figure.savefig(temporary, dpi=110))

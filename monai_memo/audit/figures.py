# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Figures of an audit. Colours of Okabe and Ito, which colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from monai_memo.audit.evidence import PairEvidence
from monai_memo.audit.result import AuditResult, Estimate
from monai_memo.files import write_with

SYNTHETIC, CONTROL, LINE = "#D55E00", "#0072B2", "#333333"


def _histograms(figure: Figure, position: tuple[int, int, int], result: AuditResult, parts: Mapping[str, str],
                tau: Estimate, title: str, axis_label: str) -> None:  # fmt: skip
    axes = figure.add_subplot(*position)
    samples = {label: np.asarray(result.distributions[key]) for label, key in parts.items()}
    # Exactly -1 stands for "never a candidate of the verification": no similarity, and no place on the axis.
    shown = {label: values[values > -1] for label, values in samples.items()}
    every = np.concatenate([*shown.values(), [tau.value]])
    edges = np.linspace(every.min(), max(every.max(), every.min() + 1e-3), 41).tolist()
    for (label, values), colour in zip(shown.items(), (CONTROL, SYNTHETIC), strict=True):
        total = len(samples[label])
        hidden = 100 * (total - len(values)) / total
        text = f"{label} ({hidden:.0f} % never a candidate)" if hidden else label
        axes.hist(values, edges, weights=np.full(len(values), 100 / total), color=colour, alpha=0.55, label=text)
    axes.axvspan(tau.low, tau.high, color=LINE, alpha=0.12, lw=0)
    axes.axvline(tau.value, color=LINE, lw=1.5, ls="--", label=f"threshold {tau.value:.3f}, interval shaded")
    axes.set_xlabel(axis_label)
    axes.set_ylabel("share of images (%)")
    axes.set_title(title, fontsize=11, loc="left")
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)


def distribution_figure(result: AuditResult) -> Figure:
    """Similarities with their thresholds, as in the paper: for copies and for memorized training images."""
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    _histograms(
        figure, (1, 2, 1), result,
        {"unseen real patients": "heldout_to_training", "synthetic images": "synthetic_to_training"},
        result.tau, "Copies", "similarity to the nearest training image",
    )  # fmt: skip
    _histograms(
        figure, (1, 2, 2), result,
        {"nearest held-out image": "training_to_heldout", "nearest synthetic image": "training_to_synthetic"},
        result.tau_memorized, "Memorized training images", "similarity of a training image",
    )  # fmt: skip
    return figure


def rates_figure(result: AuditResult) -> Figure:
    """Rates with their intervals next to those of the control."""
    rows: list[tuple[str, Estimate, str]] = [
        ("synthetic images called copies", result.n_copies.rate, SYNTHETIC),
        ("control: unseen patients called copies", result.control_copies, CONTROL),
        ("training images called memorized", result.n_mem.rate, SYNTHETIC),
    ]
    if result.control_mem is not None:
        rows.append(("control: memorized, by unseen patients", result.control_mem, CONTROL))
    figure = Figure(figsize=(9.6, 0.55 * len(rows) + 0.9), layout="constrained")
    axes = figure.add_subplot()
    for place, (_, estimate, colour) in enumerate(rows):
        axes.plot([100 * estimate.low, 100 * estimate.high], [place, place], color=colour, lw=3, solid_capstyle="butt")
        axes.plot(100 * estimate.value, place, "o", color=colour, ms=8)
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    axes.invert_yaxis()
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"percent, with {100 * result.calibration['confidence']:g} % interval")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def pair_figure(pair: PairEvidence) -> Figure:
    """One pair: synthetic, training, difference and, if measured, agreement; in 3D one row per plane."""
    planes, rows, columns = pair.synthetic.shape
    pictures = list(zip(*(pair.shown(plane) for plane in range(planes)), strict=True))
    shown: list[tuple[Sequence[NDArray[np.float32]] | NDArray[np.float32], str]] = [
        (pictures[0], "gray"), (pictures[1], "gray"), (pair.difference, "PuOr_r")
    ]  # fmt: skip
    if pair.agreement is not None:
        shown.append((pair.agreement, "cividis"))
    figure = Figure(figsize=(2.2 * len(shown), 2.2 * planes * rows / columns), layout="constrained")
    axes = figure.subplots(planes, len(shown), squeeze=False)
    for plane in range(planes):
        for place, (array, colours) in enumerate(shown):
            low = -1 if colours == "PuOr_r" else 0
            axes[plane, place].imshow(array[plane], cmap=colours, vmin=low, vmax=1)
            axes[plane, place].set_xticks([])
            axes[plane, place].set_yticks([])
            for spine in axes[plane, place].spines.values():
                spine.set_visible(False)
        if pair.planes:
            shown_at = pair.planes[plane]
            axes[plane, 0].set_ylabel(f"{shown_at.name} {shown_at.place + 1}\n{shown_at.shows} most", fontsize=8)
    return figure


def sampling_figure(result: AuditResult) -> Figure:
    """Distinct training images copied over the number of synthetic images, measured and carried on."""
    curve = result.sampling_curve
    assert curve is not None, "drawn only where there is one"
    drawn, copied = np.asarray(curve["drawn"]), np.asarray(curve["copied"])
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    at_hand = drawn <= result.n_synthetic
    beyond = drawn >= result.n_synthetic
    axes.fill_between(drawn, curve["low"], curve["high"], color=SYNTHETIC, alpha=0.2, lw=0)
    axes.plot(drawn[at_hand], copied[at_hand], color=SYNTHETIC, label="at hand")
    axes.plot(drawn[beyond], copied[beyond], color=SYNTHETIC, ls="--", label="extrapolated")
    axes.axvline(result.n_synthetic, color=LINE, lw=1, ls=":")
    axes.set_xlabel("synthetic images")
    axes.set_ylabel("training images copied")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def png_bytes(figure: Figure, dpi: int = 110) -> bytes:
    """Render without a display."""
    import io

    stream = io.BytesIO()
    FigureCanvasAgg(figure)
    # The name of the software in the file would change with every version of Matplotlib.
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return stream.getvalue()


def write_figure(path: str | Path, figure: Figure) -> bytes:
    """Write a PNG atomically and return its bytes."""
    content = png_bytes(figure)
    write_with(path, lambda temporary: temporary.write_bytes(content))
    return content

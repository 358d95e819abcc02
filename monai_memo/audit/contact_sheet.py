# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The contact sheet: images of every cohort side by side, as the detector sees them.

It shows patients: it must not be made for what is to be shared.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from monai_memo.audit.pictures import png_uri
from monai_memo.audit.slices import ENDS, PLANES, central_planes
from monai_memo.data.prepared import PreparedCohort

EXAMPLES = 12
FOR_MEAN = 1000  # images at most
TILE = {2: 128, 3: 64}  # pixels at most along an edge
COLUMNS = {2: 4, 3: 2}
GAP = 2
TITLES = {"training": "Training", "heldout": "Held-out", "synthetic": "Synthetic"}
COLOURS = {"training": "#0072B2", "heldout": "#009E73", "synthetic": "#D55E00"}


@dataclass(frozen=True)
class SheetColumn:
    """One cohort on the sheet.

    Attributes:
        name: of the cohort.
        n_images: that it has.
        mean: ``(planes, rows, columns)`` in [0, 1], the mean image; one plane in 2D, three in 3D. Pictures in colour
            have a last axis of 3.
        examples: ``(n, planes, rows, columns)`` in [0, 1], random images; likewise.
        spread: ``(bins,)`` shares of the pixels by intensity.
    """

    name: str
    n_images: int
    mean: NDArray[np.float32]
    examples: NDArray[np.float32]
    spread: NDArray[np.float64]


def _planes(image: NDArray[np.floating]) -> NDArray[np.float32]:
    """``(channels, *spatial)`` to grey planes, or to one in colour."""
    if len(image) == 3 and image.ndim == 3:
        return np.moveaxis(np.asarray(image, dtype=np.float32), 0, -1)[None]
    grey = np.asarray(image, dtype=np.float32).mean(axis=0)
    return grey[None] if grey.ndim == 2 else central_planes(grey)


def contact_sheet(prepared: Mapping[str, PreparedCohort], seed: int = 0, number: int = EXAMPLES) -> list[SheetColumn]:
    """One column for each cohort, in the order given. The same seed shows the same images."""
    sheet = []
    for name, cohort in prepared.items():
        rng = np.random.default_rng([seed, 17])
        order = rng.permutation(len(cohort.pixels))
        for_mean = np.sort(order[:FOR_MEAN])
        total = np.zeros(cohort.pixels.shape[1:], dtype=np.float64)
        counts = np.zeros(50)
        for place in for_mean:  # one by one: the cohort can be larger than the memory
            image = np.asarray(cohort.pixels[place], dtype=np.float64)
            total += image
            counts += np.histogram(image, bins=50, range=(0, 1))[0]
        examples = np.stack([_planes(cohort.pixels[place]) for place in order[:number]])
        mean = _planes(total / len(for_mean))
        sheet.append(SheetColumn(name, len(cohort.pixels), mean, examples, counts / counts.sum()))
    return sheet


def _sized(image: NDArray[np.float32], most: int) -> Image.Image:
    picture = Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8))
    longest = max(picture.size)
    if longest <= most:
        return picture
    rows, columns = (max(1, round(length * most / longest)) for length in image.shape[:2])
    return picture.resize((columns, rows), Image.Resampling.BOX)


def montage(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """``(n, planes, rows, columns)``, or in colour, to one picture; the planes of a volume stand side by side."""
    dims = 2 if images.shape[1] == 1 else 3
    tiles = [np.hstack([np.asarray(_sized(plane, TILE[dims])) for plane in image]) for image in images]
    rows, columns, *colours = tiles[0].shape
    across = min(COLUMNS[dims], len(tiles))  # no empty places, which would glare on a dark page
    down = -(-len(tiles) // across)
    sheet = np.full((down * (rows + GAP) - GAP, across * (columns + GAP) - GAP, *colours), 255, dtype=np.uint8)
    for place, tile in enumerate(tiles):
        top, left = (place // across) * (rows + GAP), (place % across) * (columns + GAP)
        sheet[top : top + rows, left : left + columns] = tile
    return sheet


def picture_uri(picture: NDArray[np.uint8]) -> str:
    """A picture as it stands in a page."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG", optimize=True)
    return png_uri(stream.getvalue())


def sheet_record(sheet: list[SheetColumn]) -> dict[str, Any]:
    """What ``contact_sheet.html.jinja`` shows."""
    dims = 2 if sheet[0].mean.shape[0] == 1 else 3
    columns = [
        {
            "title": TITLES.get(column.name, column.name),
            "n_images": column.n_images,
            "shown": len(column.examples),
            "planes": [
                {
                    "image": picture_uri(np.asarray(_sized(plane, 128))),
                    "name": PLANES[place] if dims == 3 else "",
                    "ends": ENDS[place] if dims == 3 else (),
                }
                for place, plane in enumerate(column.mean)
            ],
            "examples": picture_uri(montage(column.examples)),
        }
        for column in sheet
    ]
    return {"columns": columns, "dims": dims}


def sheet_figure(sheet: list[SheetColumn]) -> Figure:
    """The same as one picture, for ``figures/contact_sheet.png``."""
    figure = Figure(figsize=(3.6 * len(sheet), 6.2 if sheet[0].mean.shape[0] == 1 else 5.4), layout="constrained")
    axes = figure.subplots(2, len(sheet), squeeze=False)
    for place, column in enumerate(sheet):
        mean = np.hstack([np.asarray(_sized(plane, 128)) for plane in column.mean])
        for row, picture in enumerate((mean, montage(column.examples))):
            axes[row, place].imshow(picture, cmap="gray", vmin=0, vmax=255)
            axes[row, place].set_axis_off()
        axes[0, place].set_title(f"{TITLES.get(column.name, column.name)} ({column.n_images})\nmean image", fontsize=10)
        axes[1, place].set_title("random images", fontsize=10)
    return figure


def spread_figure(sheet: list[SheetColumn]) -> Figure:
    """Histograms of the cohorts' intensities after scaling, over one another."""
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    axes = figure.add_subplot()
    edges = np.linspace(0, 1, 51)
    for column in sheet:
        axes.stairs(100 * column.spread, edges, color=COLOURS.get(column.name, "#333333"), lw=1.8,
                    label=TITLES.get(column.name, column.name))  # fmt: skip
    axes.set_xlabel("intensity after scaling (0 black, 1 white)")
    axes.set_ylabel("share of pixels (%)")
    if len(sheet) and max(column.spread.max() for column in sheet) > 0.2:
        axes.set_yscale("log")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Dermoscopy of nobody: a pigmented spot on skin, in colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monai_memo.data.phantom_shapes import Volume, grid, posed, rngs, soft, texture

KIND = 7  # of the phantoms, for their seeds
SKIN = np.array([0.86, 0.66, 0.56])
BROWNS = np.array([[0.46, 0.28, 0.17], [0.24, 0.15, 0.11], [0.62, 0.34, 0.26], [0.55, 0.38, 0.22]])
VEIL = np.array([0.36, 0.37, 0.45])  # pigment that lies deep looks blue


def skin_phantom(patient: int, size: Sequence[int] = (64, 64), visit: int = 0) -> Volume:
    """A dermoscopic picture of sorts: skin, a spot of several pigments with dots and a net, hairs, uneven light.

    Returns:
        ``(3, rows, columns)`` in [0, 1].
    """
    person, exam = rngs(patient, visit, KIND)
    grain = np.random.default_rng([KIND, patient, 0])  # drawn apart, so that proportions do not depend on the size
    y, x = posed(grid(size), exam, turn=0.06, move=0.03)
    red_skin = person.normal(0, 0.04)
    image = _layer(SKIN + np.array([red_skin, -red_skin, -red_skin]) + person.normal(0, 0.03), y.shape)
    image = image * (1 + 0.03 * texture(size, 0.05, grain) + 0.02 * texture(size, 0.015, grain))
    middle_y, middle_x = person.normal(0, 0.12, 2)
    radius, angle = np.hypot(y - middle_y, x - middle_x), np.arctan2(y - middle_y, x - middle_x)
    outline = person.uniform(0.32, 0.6) * (
        1 + sum(person.normal(0, 0.22 / wave) * np.cos(wave * angle + person.uniform(0, 6)) for wave in range(1, 6))
    )
    spot = soft(radius - outline, person.uniform(0.02, 0.06))
    pigment = np.concatenate([person.permutation(BROWNS)[:3], VEIL[None]]) + person.normal(0, 0.03, (4, 3))
    patches = soft(-texture(size, person.uniform(0.07, 0.14), grain) - person.normal(0, 0.4), 0.15)
    inside = _layer(pigment[0], y.shape) * (1 - patches) + _layer(pigment[1], y.shape) * patches
    pitch, lean, bent = person.uniform(18, 30), person.uniform(0, np.pi), 0.05 * texture(size, 0.06, grain)
    net = np.cos(pitch * (np.cos(lean) * x + np.sin(lean) * y + bent))
    net = net * np.cos(pitch * (np.cos(lean) * y - np.sin(lean) * x - bent))
    inside = inside * (1 + person.uniform(0, 0.2) * net)
    image = image * (1 - spot) + inside * spot
    for _ in range(int(person.integers(3, 15))):  # dots and globules
        at_y, at_x = middle_y + person.normal(0, 0.25), middle_x + person.normal(0, 0.25)
        dot = soft((y - at_y) ** 2 + (x - at_x) ** 2 - person.uniform(0.02, 0.07) ** 2, 0.0012) * 0.8
        image = image * (1 - dot) + _layer(pigment[int(person.integers(1, 4))], y.shape) * dot
    for _ in range(int(person.integers(0, 6))):  # hairs
        lean, off, bend = person.uniform(0, np.pi), person.normal(0, 0.5), person.normal(0, 0.3)
        along, across = np.cos(lean) * x + np.sin(lean) * y, np.cos(lean) * y - np.sin(lean) * x
        hair = 0.75 * np.exp(-(((across - off - bend * along**2) / 0.02) ** 2))
        image = image * (1 - hair) + 0.12 * hair
    lamp = 1 - person.uniform(0.1, 0.2) * (y**2 + x**2) + exam.normal(0, 0.03) * x + exam.normal(0, 0.03) * y
    tint = 1 + exam.normal(0, 0.015, (3, 1, 1))  # white balance
    image = image * lamp * tint + 0.015 * exam.standard_normal(image.shape)
    return np.asarray(image.clip(0, 1), dtype=np.float32)


def _layer(colour: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
    return np.asarray(np.broadcast_to(colour[:, None, None], (3, *shape)))

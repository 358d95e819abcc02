# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Procedural anatomy: pictures of nobody, for the demo and the tests.

A phantom is decided by its patient number alone. Patients differ in proportions, pose and texture about as much as real
ones do for a copy detector: alike as a class (random pairs of chest phantoms correlate with about 0.7), yet told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import ndimage

from monai_memo.data.phantom_pet import pet_phantom, pet_volume_phantom
from monai_memo.data.phantom_shapes import Volume, finish, grid, posed, rngs, soft, texture
from monai_memo.data.phantom_skin import skin_phantom
from monai_memo.data.phantom_ultrasound import ultrasound_phantom
from monai_memo.settings import MODALITIES


def chest_phantom(patient: int, size: Sequence[int] = (64, 64), visit: int = 0) -> Volume:
    """A chest X-ray of sorts: body, two lungs, ribs, clavicles, spine, heart, diaphragm.

    Returns:
        ``(1, rows, columns)`` in [0, 1].
    """
    person, exam = rngs(patient, visit, 1)
    y, x = posed(grid(size), exam, turn=0.03, move=0.02)
    width, height = person.normal(0.78, 0.06), person.normal(0.05, 0.05)
    body = soft(
        (np.abs(x) / (width + 0.12 + 0.12 * soft(0.45 + y, 0.1))) ** 4 + (np.maximum(-y - 0.75, 0) * 2.5) ** 2 - 1
    )
    image = 0.55 * body + 0.08 * body * texture(size, 0.12, person)
    for side in (-1, 1):
        centre_x, centre_y = side * person.normal(0.40, 0.03), height + person.normal(0.0, 0.04)
        wide, tall = person.normal(0.29, 0.03), person.normal(0.62, 0.06)
        lean = person.normal(0.12, 0.05) * side
        u = (x - centre_x - lean * (y - centre_y)) / wide
        v = (y - centre_y) / tall
        lung = soft(u**2 + np.abs(v) ** 3 - 1, 0.10) * soft(y - person.normal(0.52, 0.06) - 0.25 * u * side, 0.05)
        image -= lung * (person.normal(0.36, 0.03) - 0.05 * texture(size, 0.04, person))
    spacing, tilt, phase = person.normal(0.165, 0.012), person.normal(0.28, 0.08), person.uniform(0, 1)
    rib = np.abs(((y + tilt * np.abs(x) ** 1.6) / spacing + phase) % 1 - 0.5)
    image += person.normal(0.10, 0.02) * soft(rib - 0.16, 0.05) * body * soft(np.abs(x) - width + 0.02) * soft(y - 0.55)
    for side in (-1, 1):
        slope, top = person.normal(0.22, 0.06), person.normal(-0.72, 0.04)
        image += 0.14 * soft(np.abs(y - top + slope * (side * x - 0.1)) - 0.035, 0.02) * soft(-side * x + 0.08) * body
    spine = person.normal(0.09, 0.01)
    vertebra = 0.85 + 0.15 * np.cos(2 * np.pi * (y / person.normal(0.17, 0.01) + person.uniform()))
    image += 0.26 * soft(np.abs(x - 0.04 * np.sin(2 * y + person.uniform(0, 6))) - spine, 0.03) * vertebra * body
    heart_x, heart_y = person.normal(0.13, 0.04), person.normal(0.26, 0.05)
    heart = ((x - heart_x) / person.normal(0.30, 0.04)) ** 2 + ((y - heart_y) / person.normal(0.34, 0.04)) ** 2
    image += person.normal(0.26, 0.03) * soft(heart - 1, 0.15)
    for _ in range(int(person.integers(0, 4))):
        spot_y, spot_x = person.uniform(-0.45, 0.4), person.uniform(0.25, 0.6) * person.choice([-1, 1])
        image += person.uniform(0.1, 0.25) * np.exp(
            -((y - spot_y) ** 2 + (x - spot_x) ** 2) / person.uniform(0.004, 0.03)
        )
    return finish(image, exam, 0.02)


def knee_phantom(patient: int, size: Sequence[int] = (32, 32, 32), visit: int = 0) -> Volume:
    """A knee MRI of sorts: femur, tibia, patella, cartilage, menisci, muscle and fat.

    Returns:
        ``(1, x, y, z)`` in [0, 1]; z runs from the tibia up to the femur.
    """
    person, exam = rngs(patient, visit, 2)
    x, y, z = posed(grid(size), exam, turn=0.05, move=0.03)
    leg = soft((x / person.normal(0.88, 0.05)) ** 2 + (y / person.normal(0.82, 0.05)) ** 2 - 1, 0.08)
    image = leg * (0.35 + 0.10 * texture(size, 0.07, person))
    joint = person.normal(0.0, 0.08)
    shaft, gap = person.normal(0.40, 0.04), person.normal(0.07, 0.015)
    for above in (1, -1):
        distance = above * (z - joint)
        flare = shaft + person.normal(0.22, 0.04) * np.exp(-np.maximum(distance, 0) / 0.35)
        edge = np.sqrt((x / 1.15) ** 2 + (y + person.normal(0.05, 0.05)) ** 2) - flare
        condyle = gap - distance + 0.12 * (1 - np.cos(np.pi * np.clip(x / 0.6, -1, 1))) * (above == 1)
        surface = np.maximum(edge, condyle)
        marrow = person.normal(0.80, 0.04) + 0.07 * texture(size, 0.05, person)
        bone = soft(surface, 0.04)
        image = image * (1 - bone) + bone * marrow
        image -= 0.45 * np.exp(-((surface / 0.045) ** 2)) * leg
        image += 0.35 * np.exp(-(((surface - 0.07) / 0.035) ** 2)) * np.exp(-((distance / 0.25) ** 2)) * leg
    for side in (-1, 1):
        ring = np.sqrt((x - side * person.normal(0.32, 0.03)) ** 2 + y**2) - person.normal(0.22, 0.03)
        image -= 0.4 * np.exp(-((ring / 0.07) ** 2) - (((z - joint) / 0.06) ** 2)) * leg
    cap = (
        (x / 0.25) ** 2
        + ((y - person.normal(0.68, 0.03)) / 0.14) ** 2
        + ((z - joint - person.normal(0.3, 0.06)) / 0.28) ** 2
    ) - 1
    image = image * (1 - soft(cap, 0.2)) + 0.75 * soft(cap, 0.2)
    for _ in range(4):
        vessel_x, vessel_y, bend = person.uniform(-0.6, 0.6), person.uniform(-0.75, -0.4), person.normal(0, 0.2)
        image -= 0.3 * np.exp(-((x - vessel_x - bend * z) ** 2 + (y - vessel_y) ** 2) / 0.004) * leg
    return finish(image, exam, 0.02)


def coronary_phantom(patient: int, size: Sequence[int] = (32, 32, 32), visit: int = 0) -> Volume:
    """A CT angiography of sorts: myocardium, chambers, aorta, branching bright vessels, calcifications, lung.

    Returns:
        ``(1, x, y, z)`` in [0, 1].
    """
    person, exam = rngs(patient, visit, 3)
    x, y, z = posed(grid(size), exam, turn=0.06, move=0.03)
    centre, axes = person.normal(0, 0.06, 3), person.normal(0.66, 0.05, 3)
    heart = sum(((c - m) / a) ** 2 for c, m, a in zip((x, y, z), centre, axes, strict=True)) - 1
    image = 0.12 + 0.03 * texture(size, 0.05, person) + 0.38 * soft(heart, 0.1) + 0.04 * texture(size, 0.08, person)
    for _ in range(4):
        middle, radii = centre + person.normal(0, 0.25, 3), person.uniform(0.16, 0.32, 3)
        chamber = sum(((c - m) / r) ** 2 for c, m, r in zip((x, y, z), middle, radii, strict=True)) - 1
        image += person.normal(0.22, 0.03) * soft(chamber, 0.2) * soft(heart, 0.1)
    aorta = np.hypot(x - person.normal(-0.1, 0.06) - 0.2 * z, y - person.normal(0.05, 0.06)) - person.normal(0.17, 0.02)
    image += 0.3 * soft(aorta, 0.03) * soft(-z)
    vessels = np.zeros(tuple(size))
    for _ in range(int(person.integers(4, 7))):
        direction = person.normal(size=3)
        direction /= np.linalg.norm(direction)
        point = centre + axes * direction
        for _ in range(90):  # walk over the surface of the heart
            direction += 0.35 * person.normal(size=3)
            outward = (point - centre) / axes**2
            direction -= outward * (direction @ outward) / (outward @ outward)
            direction /= np.linalg.norm(direction)
            point = centre + (point + 0.03 * direction - centre)
            point = centre + (point - centre) / np.sqrt((((point - centre) / axes) ** 2).sum())
            voxel = tuple(np.clip(np.round((point + 1) / 2 * (np.array(size) - 1)), 0, np.array(size) - 1).astype(int))
            vessels[voxel] = 1.0 if person.uniform() > 0.03 else 2.5
    image += 1.5 * ndimage.gaussian_filter(vessels, 0.022 * min(size))
    spine = np.hypot(x - person.normal(0, 0.05), y + person.normal(0.92, 0.03)) - person.normal(0.2, 0.02)
    image += 0.5 * soft(spine, 0.04)
    return finish(image, exam, 0.02)


PHANTOMS: Mapping[str, Callable[..., Volume]] = dict(
    zip(
        MODALITIES,
        (
            chest_phantom, knee_phantom, coronary_phantom, ultrasound_phantom, pet_phantom, pet_volume_phantom,
            skin_phantom,
        ),
        strict=True,
    )
)  # fmt: skip
VOLUMES = ("knee", "coronary", "pet_volume")

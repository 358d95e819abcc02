# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Ultrasound of nobody: a sector with fully developed speckle over an anatomy that belongs to the person.

Speckle is interference of echoes that no beam resolves, so that it is another one whenever the probe is moved: two
images of a patient share the anatomy and not the speckle, and a copy of an image shares both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_memo.data.phantom_shapes import Volume, posed, rngs, soft

KIND = 4  # of the phantoms, for their seeds
HALF_ANGLE = np.deg2rad(36.0)
APEX, NEAR, FAR = -1.32, 0.36, 2.28  # height of the centre of the beams; where they begin and end, in half heights
AXIAL, LATERAL = 0.006, 0.018  # standard deviations of the pulse, in shares of depth and angle
DYNAMIC_RANGE = 50.0  # dB between black and white
BRIGHT = 1.0  # dB of the brightest speckle
ATTENUATION = 14.0  # dB over the depth that the gain leaves uncorrected
ECHOLESS, NOISE = -60.0, -56.0  # dB: fluid, and the electronics that are seen where nothing echoes
Polar = NDArray[np.float64]


def speckle(decibels: Polar, rng: np.random.Generator, axial: float = AXIAL, lateral: float = LATERAL) -> Polar:
    """Envelope of the echoes of many scatterers that lie closer than a pulse is long.

    Args:
        decibels: ``(depths, beams)`` strength of the echoes.
        axial, lateral: standard deviations of the pulse, in shares of both axes.

    Returns:
        ``(depths, beams)`` amplitude; its values follow Rayleigh's distribution where the strength is constant, with a
        mean square of 1 at 0 dB.
    """
    widths = [axial * decibels.shape[0], lateral * decibels.shape[1]]
    scatterers = rng.standard_normal((2, *decibels.shape)) * 10 ** (decibels / 20)
    real, imaginary = (ndimage.gaussian_filter(part, widths, mode="nearest") for part in scatterers)
    power = np.prod([1 / (2 * np.sqrt(np.pi) * width) for width in widths])  # of white noise that passes the filter
    return np.asarray(np.hypot(real, imaginary) / np.sqrt(2 * power))


def _anatomy(x: Polar, y: Polar, person: np.random.Generator) -> tuple[Polar, Polar]:
    """Strength of the echoes in dB, and what is lost on the way through each place (dB per depth of the image).

    Layers of the skin, a liver with vessels, a kidney with a bright sinus, the diaphragm, sometimes a cyst or a stone.
    """
    strength = np.full(x.shape, person.normal(-15, 1.5))
    loss = np.zeros(x.shape)
    for layer in range(int(person.integers(3, 6))):  # skin, fat and muscle, nearly in parallel
        depth = -0.92 + 0.09 * layer + person.normal(0, 0.015)
        wave = depth + person.normal(0, 0.05) * x + 0.015 * np.sin(4 * x + person.uniform(0, 6))
        strength += person.uniform(4, 9) * np.exp(-(((y - wave) / person.uniform(0.012, 0.03)) ** 2))
    # The liver ends at a curved edge; beyond it lies another tissue.
    edge = y - person.normal(0.42, 0.07) - person.normal(0.25, 0.1) * x - person.normal(0.18, 0.06) * x**2
    beyond = soft(-edge, 0.03)
    strength += beyond * person.normal(-6, 1.5)
    strength += person.uniform(12, 18) * np.exp(-((edge / 0.022) ** 2))  # the diaphragm
    side = person.choice([-1.0, 1.0])
    middle_x, middle_y = side * person.normal(0.33, 0.06), person.normal(0.02, 0.08)
    turn = person.normal(0.5, 0.25) * side
    u = np.cos(turn) * (x - middle_x) + np.sin(turn) * (y - middle_y)
    v = -np.sin(turn) * (x - middle_x) + np.cos(turn) * (y - middle_y)
    long, short = person.normal(0.36, 0.03), person.normal(0.19, 0.02)
    kidney = (u / long) ** 2 + (v / short) ** 2 - 1
    inside = soft(kidney, 0.12)
    strength += inside * person.normal(-9, 1)
    strength += person.uniform(6, 9) * np.exp(-((kidney / 0.14) ** 2))
    sinus = (u / (0.55 * long)) ** 2 + (v / (0.42 * short)) ** 2 - 1 + 0.35 * np.sin(9 * u + person.uniform(0, 6))
    strength += person.normal(18, 1.5) * soft(sinus, 0.3)
    for _ in range(int(person.integers(3, 7))):  # vessels: nearly no echoes, some with bright walls
        at_x, at_y = -side * person.uniform(-0.05, 0.6), person.uniform(-0.45, 0.35)
        angle, wide = person.uniform(0, np.pi), person.uniform(0.03, 0.07)
        along = np.cos(angle) * (x - at_x) + np.sin(angle) * (y - at_y)
        across = -np.sin(angle) * (x - at_x) + np.cos(angle) * (y - at_y) + person.normal(0, 0.6) * along**2
        vessel = (across / wide) ** 2 + (along / person.uniform(0.08, 0.45)) ** 2 - 1
        strength += person.uniform(3, 9) * np.exp(-((vessel / 0.5) ** 2))
        lumen = soft(vessel, 0.2)
        strength = strength * (1 - lumen) + (ECHOLESS + 16) * lumen
    if person.uniform() < 0.5:  # a cyst weakens sound less than tissue: it is brighter behind it
        at_x, at_y, radius = person.uniform(-0.5, 0.5), person.uniform(-0.4, 0.2), person.uniform(0.07, 0.15)
        cyst = soft(np.hypot(x - at_x, y - at_y) / radius - 1, 0.08)
        strength = strength * (1 - cyst) + ECHOLESS * cyst
        loss -= person.uniform(25, 45) * cyst
    if person.uniform() < 0.5:  # a stone reflects nearly everything: a shadow lies behind it
        at_x, at_y = person.uniform(-0.5, 0.5), person.uniform(-0.5, 0.1)
        stone = soft(np.hypot((x - at_x) / 0.06, (y - at_y) / 0.03) - 1, 0.2)
        strength += 24 * stone
        loss += person.uniform(500, 900) * stone
    return strength, loss


def ultrasound_phantom(patient: int, size: Sequence[int] = (64, 64), visit: int = 0) -> Volume:
    """An abdominal ultrasound of sorts: sector, speckle, loss with depth, shadows, logarithmic brightness.

    The sector is the same in all images, as with one probe and one depth.

    Returns:
        ``(1, rows, columns)`` in [0, 1], black outside the sector.
    """
    person, exam = rngs(patient, visit, KIND)
    fine = [max(2, round(256 / length)) for length in size]  # drawn larger and averaged, as exports are made smaller
    rows, columns = (length * factor for length, factor in zip(size, fine, strict=True))
    depths, beams = max(256, rows), max(160, columns)
    radius = np.linspace(NEAR, FAR, depths)[:, None]
    angle = np.linspace(-HALF_ANGLE, HALF_ANGLE, beams)[None]
    y, x = posed([radius * np.cos(angle) + APEX, radius * np.sin(angle)], exam, turn=0.03, move=0.02)
    strength, loss = _anatomy(x, y, person)
    step = (FAR - NEAR) / 2 / depths
    travelled = np.cumsum(loss, axis=0) * step + ATTENUATION * np.linspace(0, 1, depths)[:, None] ** 1.5
    # One probe couples badly here and there: some beams are weaker as a whole.
    beam = ndimage.gaussian_filter1d(exam.standard_normal(beams), 0.05 * beams, mode="nearest")
    echoes = speckle(strength - travelled + 1.0 * beam[None] / max(beam.std(), 1e-9), exam)
    noise = speckle(np.full(strength.shape, NOISE), exam, lateral=0.4 * LATERAL)
    shown = 1 + (20 * np.log10(np.hypot(echoes, noise) + 1e-12) - BRIGHT) / DYNAMIC_RANGE
    down, across = np.meshgrid(
        (np.arange(rows) + 0.5) / rows * 2 - 1, (np.arange(columns) + 0.5) / columns * 2 - 1, indexing="ij"
    )
    far, turned = np.hypot(down - APEX, across), np.arctan2(across, down - APEX)
    places = [
        (far - NEAR) / (FAR - NEAR) * (depths - 1), (turned + HALF_ANGLE) / (2 * HALF_ANGLE) * (beams - 1),
    ]  # fmt: skip
    picture = ndimage.map_coordinates(shown.clip(0, 1), places, order=1, mode="constant", cval=0.0)
    blocks = picture.reshape(size[0], fine[0], size[1], fine[1]).mean(axis=(1, 3))
    return np.asarray(blocks.clip(0, 1), dtype=np.float32)[None]

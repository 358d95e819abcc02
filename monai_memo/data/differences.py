# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What the headers of two cohorts say differently, as far as it matters to an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from monai_memo.data.header import ImageHeader
from monai_memo.data.inspection import CohortFacts, count_text
from monai_memo.data.windows import word_for
from monai_memo.redaction import Named, plain

CODES = "RLAPSI"
ASPECT = 1.15  # ratio of the proportions from which resizing to one shape squeezes one cohort visibly
FIELD = 1.3  # ratio of the lengths in mm
DETAIL = 2.0  # ratio of the pixels along an axis
SOME = 0.05  # share of a cohort that makes it mixed


@dataclass(frozen=True)
class Finding:
    """Something that a person should know before an audit.

    Attributes:
        subject: one word or two: "orientation", "sizes", ...
        sentence: what was seen and what to do.
        serious: there may be copies, or they can be missed because of it; otherwise it is good to know.
        names: of the images or patients that it is about: an inspection is not for sharing.
    """

    subject: str
    sentence: str
    serious: bool = True
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, subject: str, text: str, serious: bool = True) -> Finding:
        """Of a sentence that may carry names."""
        return cls(subject, plain(text), serious, text.names if isinstance(text, Named) else ())


def _places(header: ImageHeader) -> list[int]:
    """Axes in the order right-left, front-back, up-down, where the file states its orientation."""
    if header.orientation is None or header.spatial_dims != 3 or len(header.orientation) != 3:
        return list(range(header.spatial_dims))
    axes = [CODES.find(code) // 2 for code in header.orientation]
    return [axes.index(axis) for axis in range(3)] if sorted(axes) == [0, 1, 2] else [0, 1, 2]


def _shapes(headers: Sequence[ImageHeader]) -> np.ndarray:
    return np.array([[header.shape[place] for place in _places(header)] for header in headers], dtype=np.float64)


def _lengths(headers: Sequence[ImageHeader]) -> np.ndarray | None:
    known = [header for header in headers if header.spacing is not None]
    if len(known) < len(headers) / 2:
        return None
    return np.array(
        [[header.shape[place] * (header.spacing or ())[place] for place in _places(header)] for header in known]
    )


def _text(numbers: np.ndarray, unit: str = "") -> str:
    return " x ".join(f"{number:.0f}" for number in numbers) + unit


def _unlike(here: np.ndarray, there: np.ndarray) -> bool:
    return bool(np.max(np.maximum(here / there, there / here)) > FIELD)


def within(facts: CohortFacts) -> list[Finding]:
    """What is mixed within one cohort."""
    findings, name = [], word_for(facts.cohort.name)
    if not facts.headers:
        return []
    if facts.headers[0].spatial_dims == 3:
        unsaid = facts.count("orientation")["not said"]
        if SOME * len(facts.headers) < unsaid < (1 - SOME) * len(facts.headers):
            findings.append(
                Finding(
                    "orientation",
                    f"{unsaid} of the {len(facts.headers)} {name} volumes do not state their orientation and are "
                    "taken as right, front, up (RAS); the others state it. Look at the sheet: all have to have the "
                    "same orientation.",
                )
            )
    channels = facts.count("channels")
    if len(channels) > 1:
        findings.append(
            Finding("channels", f"The {name} images are mixed: {count_text(channels)}. Colours become grey.", False)
        )
    no_colours = sum(number for text, number in channels.items() if "no colours" in text)
    if no_colours:
        findings.append(
            Finding(
                "channels",
                f"{no_colours} {name} images have several channels that are no colours. Name the one to take with "
                "--channel (counted from 0).",
            )
        )
    if facts.repeated:
        findings.append(
            Finding("repeats", f"{facts.repeated} {name} images repeat another one of the cohort exactly.", False)
        )
    return findings


def _orientation(first: CohortFacts, second: CohortFacts) -> list[Finding]:
    if first.headers[0].spatial_dims != 3:
        return []
    said = [1 - facts.count("orientation")["not said"] / len(facts.headers) for facts in (first, second)]
    if (said[0] >= 0.5) == (said[1] >= 0.5):
        return []
    one, other = (first, second) if said[0] >= 0.5 else (second, first)
    told = count_text(one.count("orientation"))
    return [
        Finding(
            "orientation",
            f"The {word_for(one.cohort.name)} volumes state their orientation ({told}), the "
            f"{word_for(other.cohort.name)} volumes do not: their axes are taken as right, front, up (RAS). If they "
            "were written in another order, for example that of the training files, no copy is found. Look at the "
            "sheet; --orientation puts the synthetic images right.",
        )
    ]


def between(first: CohortFacts, second: CohortFacts) -> list[Finding]:
    """What differs between two cohorts of the same dimensions."""
    if not first.headers or not second.headers:
        return []
    names = word_for(first.cohort.name), word_for(second.cohort.name)
    findings = _orientation(first, second)
    colours = [sum(header.colour and header.channels > 2 for header in facts.headers) for facts in (first, second)]
    shares = [number / len(facts.headers) for number, facts in zip(colours, (first, second), strict=True)]
    if (shares[0] >= 0.5) != (shares[1] >= 0.5):
        which = names if shares[0] >= 0.5 else names[::-1]
        findings.append(
            Finding("colour", f"The {which[0]} images have colour, the {which[1]} images are grey: colours become "
                    "grey (luminance).", False)
        )  # fmt: skip
    one, other = (np.median(_shapes(facts.headers), axis=0) for facts in (first, second))
    ratio = other / one
    squeezed = bool(ratio.max() / ratio.min() > ASPECT)
    lengths = [_lengths(facts.headers) for facts in (first, second)]
    if lengths[0] is not None and lengths[1] is not None:
        here, there = np.median(lengths[0], axis=0), np.median(lengths[1], axis=0)
        if _unlike(here, there):
            told = f"The {names[0]} images cover {_text(here, ' mm')}, the {names[1]} images {_text(there, ' mm')}"
            if _unlike(np.sort(here), np.sort(there)):
                told += (
                    " (medians): whole images are compared, so that parts of different size do not match. Cut them "
                    "alike."
                )
            else:
                told += (
                    " (medians): the same lengths in another order. One cohort seems to have its axes exchanged; look "
                    "at the sheet, and see --orientation."
                )
            findings.append(Finding("field of view", told))
    elif squeezed:
        findings.append(
            Finding("proportions", f"The {names[0]} images measure {_text(one)}, the {names[1]} images {_text(other)} "
                    "(medians): all are resized to one shape, which squeezes one of them. Cut or pad them alike.")
        )  # fmt: skip
    if not squeezed and max(ratio.max(), 1 / ratio.min()) > DETAIL:
        findings.append(
            Finding("sizes", f"The {names[0]} images measure {_text(one)}, the {names[1]} images {_text(other)} "
                    "(medians). All are resized to the detector's size, see --size; the smaller ones hold less detail.",
                    False)
        )  # fmt: skip
    return findings


def differences(facts: Mapping[str, CohortFacts]) -> list[Finding]:
    """Of every cohort, and of every cohort against the first one."""
    listed = list(facts.values())
    findings = [finding for item in listed for finding in within(item)]
    for other in listed[1:]:
        findings += between(listed[0], other)
    return findings

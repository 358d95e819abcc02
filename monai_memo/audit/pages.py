# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How pages are made of templates, and how numbers stand in them."""

from __future__ import annotations

import re

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from monai_memo.audit.parts import Count, Estimate
from monai_memo.audit.result import AuditResult
from monai_memo.audit.verdict import percent


def _count(count: Count) -> str:
    """``31 of 100 (24 to 39)``; zero is phrased so that nobody reads it as proof."""
    if count.value == 0:
        return f"0 of {count.of} (up to {count.high:.0f}, {percent(count.rate.high)}, cannot be excluded)"
    return f"{count.value} of {count.of} ({count.low:.0f} to {count.high:.0f})"


def _rate(estimate: Estimate) -> str:
    return f"{percent(estimate.value)} ({percent(estimate.low)} to {percent(estimate.high)})"


def _similarity(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def why_none_listed(result: AuditResult) -> str:
    """Why there can be copies above the threshold and none on the list: to stand behind its number, or nothing."""
    found = result.discoveries
    if found is None or found["listed"] or not result.n_copies.value:
        return ""
    if found["least"] > result.n_synthetic:
        return ": none could be listed with so few held-out images"
    if found["least"] > 1:
        return (
            f": with so few held-out images a list holds {found['least']} images or none, so that the "
            f"{result.n_copies.value} above the threshold can be copies all the same"
        )
    return ": no group of images stands out so far that this share of errors can be promised for it"


def in_the_end(result: AuditResult) -> str:
    """How many training images would be copied if ever more images were drawn: a lower bound in words."""
    curve, total = result.sampling_curve, result.n_train
    if curve is None:
        return ""
    limit = min(round(curve["limit"]), total)
    return f"all {total} training images" if limit == total else f"at least {limit} of the {total} training images"


def symbols(text: str) -> Markup:
    """``N_copies`` with its index, and tau as a Greek letter."""
    escaped = re.sub(r"\bN_(\w+)", r"N<sub>\1</sub>", str(escape(text)))
    return Markup(re.sub(r"\btau\b", "&tau;", escaped))


FILTERS = {
    "count": _count, "rate": _rate, "similarity": _similarity, "percent": percent, "why_none_listed": why_none_listed,
    "in_the_end": in_the_end, "symbols": symbols,
}  # fmt: skip


def environment(*rooms: str) -> Environment:
    """Jinja for the pages: everything is escaped, a missing value is an error.

    Args:
        rooms: packages with templates of their own, which go before those of the audit (style and macros).
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(room) for room in (*rooms, "monai_memo.audit")]), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(FILTERS)
    return environment

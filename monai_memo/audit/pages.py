# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How pages are made of templates, and how numbers stand in them."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from monai_memo.audit.parts import Count, Estimate
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


FILTERS = {"count": _count, "rate": _rate, "similarity": _similarity, "percent": percent}


def environment() -> Environment:
    """Jinja for the pages: everything is escaped, a missing value is an error."""
    environment = Environment(
        loader=PackageLoader("monai_memo.audit"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(FILTERS)
    return environment

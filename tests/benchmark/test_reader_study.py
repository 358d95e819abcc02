# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from monai_memo.benchmark.reader_study import Reading, coverage_table, reading_coverage


@pytest.mark.parametrize("reading", [Reading(1000, 100, 0.3, 0.2), Reading(2000, 100, 0.05, 0.2)])
def test_intervals_cover_what_further_images_would_show(reading: Reading) -> None:
    """95 % wanted; with 150 reviews the share itself has a standard error of 2 %."""
    for name, row in reading_coverage(reading, reviews=150).items():
        assert row["coverage"] >= 0.90 and 0 < row["width"] < 1, name


def test_the_table_has_a_row_for_each_reading() -> None:
    lines = coverage_table(reviews=2).splitlines()
    assert len(lines) == 8 and lines[2].startswith("| 1000 | 100 | 30 % | ")

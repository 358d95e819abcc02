# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The page of our own server in a browser; neither an audit nor MONAI Label is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.label.conftest import Served, serving, small_study, write_small_review


def review_of(folder: Path, dims: int) -> Iterator[Served]:
    study = small_study(dims)
    write_small_review(folder, study)
    with serving(folder, study) as running:
        yield running


@pytest.fixture
def pictures(tmp_path: Path) -> Iterator[Served]:
    yield from review_of(tmp_path, 2)


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[Served]:
    yield from review_of(tmp_path, 3)

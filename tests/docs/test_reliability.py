# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""docs/reliability.md names a test behind each promise: it has to be there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_behind_a_promise_exists() -> None:
    rows = [line for line in (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").splitlines()
            if line.startswith("| ") and "tests/" in line]  # fmt: skip
    assert len(rows) >= 15
    for row in rows:
        file = ""
        for named, test in re.findall(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`", row):
            file = named or file
            assert (ROOT / file).is_file(), f"{file} in {row}"
            assert not test or f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The code of the page about membership is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "membership.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/membership.md", "exec"), names)
    found = names["found"]
    assert re.fullmatch(r"AUC 0\.\d\d, p = \S+\n", capsys.readouterr().out)
    assert found.main == "denoising, calibrated" and len(found.patients[0]) == 20
    assert found.model[found.main].auc.low <= 0.5 <= found.model[found.main].auc.high


def test_the_bound_that_the_page_states_is_the_bound() -> None:
    assert "1.5 % for 200, 0.3 % for 1,000" in PAGE and "up to 1,487 may be copies" in PAGE
    assert [round(1 - 0.05 ** (1 / n), 5) for n in (200, 1000)] == [0.01487, 0.00299]

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_memo.__main__ import FINISHED, REFUSED, SKIPPED, main
from monai_memo.label.study import Study
from tests.label.conftest import rate_all


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


def test_prepare_rate_and_evaluate(audit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("review", "--audit", audit) == REFUSED
    assert "review-prepare" in capsys.readouterr().err
    assert run("review-prepare", "--audit", audit, "--n", 6, "--n_uncertain", 2, "--noprogress") == FINISHED
    shown = capsys.readouterr().out
    assert "6 pairs of the sample and 2 further pairs are ready" in shown and "review-server" in shown
    assert run("review-prepare", "--audit", audit) == REFUSED and "--restart" in capsys.readouterr().err
    study = Study.load(audit / "review" / "study.json")
    rate_all(audit, {pair.pair_id: "copy" if pair.copy else "novel" for pair in study.pairs}, "anna")
    assert run("review", "--audit", audit) == FINISHED
    shown = capsys.readouterr().out
    assert shown.startswith("Detector against one rater: sensitivity ") and "review.json" in shown
    assert json.loads((audit / "review.json").read_text())["raters"][0]["rater"] == "anna"
    assert "95 % intervals" in (audit / "report.html").read_text()


def test_missing_pairs_show_in_the_exit_status(audit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((audit / "audit.json").read_text())
    table = (audit / "matches.csv").read_text().replace("synthetic_00003.png", "gone.png")
    (audit / "matches.csv").write_text(table)
    assert record["n_synthetic"] == 30
    assert run("review-prepare", "--audit", audit, "--n", 30, "--noprogress") == SKIPPED
    assert "warning: 1 pairs cannot be shown" in capsys.readouterr().out
    assert run("review-server", "--audit", audit, "--host", "0.0.0.0") == REFUSED
    assert "--remote" in capsys.readouterr().err

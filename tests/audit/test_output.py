# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Nothing of the user is lost, nothing is mixed: whole audits into folders where something is already."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from monai_memo.__main__ import main
from monai_memo.audit.audit import Audit
from monai_memo.audit.card import write_card
from monai_memo.audit.evidence import compare_match
from monai_memo.audit.result import matches_in
from monai_memo.benchmark.evaluate import Evaluation
from monai_memo.detector.command import train_detector_command
from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError, OutputError
from monai_memo.files import sha256_of
from monai_memo.label.audit_folder import AuditFolder
from tests.audit.small import picture, settings, untrained, write_cohorts


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohorts(tmp_path_factory.mktemp("cohorts"))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("detector") / "d.pt")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_called_work_is_the_users(cohorts: Path, detector: Path, tmp_path: Path) -> None:
    (tmp_path / "work" / "pixels").mkdir(parents=True)
    (tmp_path / "work" / "pixels" / "training.f16").write_text("mine")
    before = files(tmp_path)
    Audit(**settings(cohorts, tmp_path, detector)).run()
    Evaluation(
        train=str(cohorts / "train"), negatives=str(cohorts / "heldout"), out=str(tmp_path), detector=str(detector),
        per_kind=2, kinds=["flip"], progress=False,
    ).run()  # fmt: skip
    assert before.items() <= files(tmp_path).items()
    assert {"audit.json", "evaluation.json"} <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / ".monai_memo_work").exists() and not (tmp_path / ".monai_memo.lock").exists()


@pytest.mark.parametrize("command", ["audit", "train-detector", "evaluate", "benchmark"])
@pytest.mark.parametrize("out", ["", "train", "train/new", "."])
def test_no_command_writes_into_a_cohort_or_nowhere(
    cohorts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str,
    out: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(cohorts / "train")
    before = files(cohorts)
    place = out if out in ("", ".") else str(cohorts / out)
    options = {"audit": ("heldout", "synthetic"), "train-detector": (), "evaluate": ("negatives",),
               "benchmark": ("negatives",)}[command]  # fmt: skip
    given = [f"--{name}={cohorts / ('heldout' if name == 'negatives' else name)}" for name in ("train", *options)]
    with pytest.raises(SystemExit) as ended:
        main([command, *given, f"--out={place}"])
    assert ended.value.code == 2
    assert ("--out must be" if out == "" else "lies in the folder of --train") in capsys.readouterr().err
    assert files(cohorts) == before


def test_training_a_detector_leaves_what_is_there(cohorts: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine.txt").write_text("mine")
    (tmp_path / "detector.pt").write_text("of somebody else")
    train_detector_command(train=str(cohorts / "train"), out=str(tmp_path), epochs=1, size=16, progress=False)
    assert Detector.load(tmp_path / "detector.pt").preprocessing.size == (16, 16)
    assert (tmp_path / "work" / "mine.txt").read_text() == "mine"
    (kept,) = (tmp_path / "earlier").glob("*/detector.pt")
    assert kept.read_text() == "of somebody else"


def test_no_command_writes_into_the_result_of_another(
    cohorts: Path, detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing that shows patients comes to a redacted result, and no detector takes the place of an audit's."""
    monkeypatch.chdir(tmp_path)
    Audit(**settings(cohorts, tmp_path / "redacted", detector, redacted=True)).run()
    Audit(**settings(cohorts, tmp_path / "whole", detector)).run()
    before = files(tmp_path)
    train, held, made = (f"--{name}={cohorts / name}" for name in ("train", "heldout", "synthetic"))
    negatives = f"--negatives={cohorts / 'heldout'}"
    commands = {
        "audit": (train, held, made), "inspect": (train,), "train-detector": (train,), "evaluate": (train, negatives),
        "benchmark": (train, negatives), "demo": (), "coverage": (),
        "planted-audit": (f"--cohort={cohorts / 'train'}",),
    }  # fmt: skip
    refusals = [
        (command, options, place) for command, options in commands.items() for place in ("redacted", "redacted/figures")
    ]
    refusals += [("inspect", (train,), "redacted/look.html"), ("train-detector", (train,), "whole")]
    refusals += [("evaluate", (train, negatives), "whole"), ("benchmark", (train, negatives), "whole")]
    for command, options, place in refusals:
        with pytest.raises(SystemExit) as ended:
            main([command, *options, f"--out={place}"])
        told = capsys.readouterr().err
        reason = "detector.pt there belongs to the result of" if place == "whole" else "the redacted result of"
        assert ended.value.code == 2 and f"{reason} monai-memo audit" in told, (command, place, told)
    with pytest.raises(SystemExit):
        main(["review-prepare", "--audit=redacted"])
    assert "was made with --redacted" in capsys.readouterr().err
    assert files(tmp_path) == before


def test_an_image_that_the_result_would_replace_is_refused(cohorts: Path, detector: Path, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    picture(999).save(tmp_path / "figures" / "rates.png")
    (tmp_path / "list.csv").write_text("image\nfigures/rates.png\n")
    before = files(tmp_path)
    with pytest.raises(ConfigurationError, match=r"rates\.png is an image of a cohort and lies where results"):
        Audit(**settings(cohorts, tmp_path, detector, synthetic=str(tmp_path / "list.csv"))).run()
    assert files(tmp_path) == before


def test_a_folder_called_report_is_found_before_the_work(cohorts: Path, detector: Path, tmp_path: Path) -> None:
    Audit(**settings(cohorts, tmp_path, detector)).run()
    (tmp_path / "report.html").unlink()
    (tmp_path / "report.html").mkdir()
    before = files(tmp_path)
    with pytest.raises(OutputError, match=r"report\.html is a folder.*Nothing was changed"):
        Audit(**settings(cohorts, tmp_path, detector, seed=5)).run()
    assert files(tmp_path) == before


def test_a_report_that_becomes_a_folder_during_the_work_changes_nothing(
    cohorts: Path, detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Audit(**settings(cohorts, tmp_path, detector)).run()
    before = {name: content for name, content in files(tmp_path).items() if name != "report.html"}
    audit = Audit(**settings(cohorts, tmp_path, detector, seed=5, confidence=0.9))
    publish = audit.output.publish

    def late() -> list[str]:
        (tmp_path / "report.html").unlink()
        (tmp_path / "report.html").mkdir()
        return publish()

    monkeypatch.setattr(audit.output, "publish", late)
    with pytest.raises(OutputError, match="Nothing was changed"):
        audit.run()
    after = {name: content for name, content in files(tmp_path).items() if not name.startswith(".monai_memo_work")}
    assert after == before


def test_an_output_folder_belongs_to_one_audit(
    cohorts: Path, detector: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Audit(**settings(cohorts, tmp_path, detector)).run()
    rating = tmp_path / "review" / "datastore" / "labels" / "final" / "pair.json"
    rating.parent.mkdir(parents=True)
    rating.write_text("a rating")
    (tmp_path / "review.json").write_text("{}")
    (tmp_path / "figures" / "sampling_curve.png").write_text("of the earlier audit")
    (tmp_path / "notes.txt").write_text("mine")
    Audit(**settings(cohorts, tmp_path, detector, confidence=0.9)).run()
    visible = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    written = {"audit.json", "detector.pt", "earlier", "figures", "matches.csv", "pairs", "report.html"}
    assert visible == {*written, "notes.txt"}
    (earlier,) = (tmp_path / "earlier").iterdir()
    assert (earlier / rating.relative_to(tmp_path)).read_text() == "a rating"
    assert (earlier / "review.json").exists()
    assert (earlier / "figures" / "sampling_curve.png").exists() != (
        tmp_path / "figures" / "sampling_curve.png"
    ).exists()
    assert f"moved to earlier/{earlier.name}" in caplog.text and "review.json" in caplog.text


def start(arguments: dict[str, Any]) -> subprocess.Popen[bytes]:
    options = [f"--{name}={value}" for name, value in arguments.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "monai_memo", "audit", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip


@pytest.mark.slow
def test_two_audits_at_once_are_never_mixed(cohorts: Path, detector: Path, tmp_path: Path) -> None:
    """Whichever comes first finishes; the other one is refused by its process, or comes after it."""
    refused = 0
    for pair in range(2):
        out = tmp_path / f"out{pair}"
        both = [start(settings(cohorts, out, detector, confidence=level)) for level in (0.9, 0.8)]
        ends = [process.communicate(timeout=900) for process in both]
        codes = [process.returncode for process in both]
        assert sorted(codes) in ([0, 0], [0, 2]), [end[1][-500:] for end in ends]
        record = json.loads((tmp_path / f"out{pair}" / "audit.json").read_text())
        report = (tmp_path / f"out{pair}" / "report.html").read_text()
        level = record["configuration"]["confidence"]
        assert f"In brackets: {100 * level:g} % intervals" in report
        if 2 in codes:
            refused += 1
            first, second = both[codes.index(0)], ends[codes.index(2)][1].decode()
            assert f"process {first.pid} (monai-memo audit), started 20" in second
            assert level == (0.9, 0.8)[codes.index(0)]
    assert refused > 0


def test_a_killed_audit_blocks_nobody(cohorts: Path, detector: Path, tmp_path: Path) -> None:
    process = start(settings(cohorts, tmp_path, detector))
    deadline = time.time() + 600
    while not (tmp_path / ".monai_memo_work" / "pixels").exists() and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / ".monai_memo.lock").exists() and not (tmp_path / "audit.json").exists()
    Audit(**settings(cohorts, tmp_path, detector)).run()
    assert not (tmp_path / ".monai_memo_work").exists()


HOSTILE = [
    "=1+1",
    "+a",
    "-a",
    "@SUM(A1)",
    "tab\there",
    "line\rbreak",
    "line\nbreak",
    'quote"comma,',
    "'a",
    "back\\slash",
]


def test_names_in_the_table_are_harmless_and_can_be_read_back(cohorts: Path, detector: Path, tmp_path: Path) -> None:
    (tmp_path / "synthetic").mkdir()
    for number, name in enumerate(HOSTILE):
        picture(300 + number).save(tmp_path / "synthetic" / f"{name}.png")
    out = tmp_path / "out"
    result = Audit(**settings(cohorts, out, detector, synthetic=str(tmp_path / "synthetic"))).run()
    content = (out / "matches.csv").read_bytes()
    assert len(content.splitlines()) == len(HOSTILE) + 1 == len(content.decode().splitlines())
    with open(out / "matches.csv", newline="") as stream:
        for row in csv.DictReader(stream):
            assert row["synthetic"][0] not in "=+-@\t\r" and row["nearest_training"][0] not in "=+-@\t\r"
    assert {row["synthetic"] for row in matches_in(out)} == {f"{name}.png" for name in HOSTILE}
    assert {match.synthetic for match in AuditFolder(out).matches} == {match.synthetic for match in result.matches}
    assert compare_match(out, "=1+1.png").similarity == compare_match(out, "'=1+1.png").similarity


def test_nothing_in_a_card_is_html_or_markdown_of_others(cohorts: Path, detector: Path, tmp_path: Path) -> None:
    Audit(**settings(cohorts, tmp_path, detector)).run()
    record = json.loads((tmp_path / "audit.json").read_text())
    evil = "<script>alert(1)</script> [x](javascript:alert(1)) | `a\n\n# b"
    record["warnings"].append(evil)
    record["detector"]["recipe"] = evil
    record["detector"]["views"] = record["calibration"]["explanation"] = record["verdict"]["headline"] = evil
    record["configuration"]["recipe"] = evil
    (tmp_path / "audit.json").write_text(json.dumps(record))
    text = write_card(str(tmp_path), str(tmp_path / "card.md"), title="<img src=x onerror=alert(1)> **b**").read_text()
    assert text.startswith("# Memorization card: &lt;img src=x onerror=alert(1)&gt; \\*\\*b\\*\\*\n")
    assert "<script" not in text.replace("`` monai-memo", "").split("Settings")[0] and "<img" not in text
    assert "[x](" not in text.replace("\\[x\\](", "").split("| Settings")[0] and "\n# b" not in text
    bars = 3
    for before, line in pairwise(text.splitlines()):
        if line.startswith("|") and not before.startswith("|"):
            bars = 5 if line.startswith("| Attack |") else 3  # columns of this table
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") == bars, line
    assert sha256_of(tmp_path / "audit.json")[:16] in text

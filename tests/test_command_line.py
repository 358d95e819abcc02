# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_memo.__main__ import COMMANDS, FINISHED, REFUSED, SKIPPED, main, settings_of
from monai_memo.errors import MemoError
from monai_memo.files import write_json, write_text
from monai_memo.settings import Settings
from monai_memo.workspace.place import WORK


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


def audit(folder: Path, out: Path, detector: Path, *further: str) -> int:
    return run(
        "audit", "--train", folder / "training", "--heldout", folder / "heldout", "--synthetic", folder / "synthetic",
        "--out", out, "--detector", detector, "--n_bootstrap", 200, "--planted", 10, "--limit_copies", 0,
        "--gallery", 1, "--noprogress",
        *further,
    )  # fmt: skip


def test_audit_prints_numbers_and_where_the_report_is(
    demo_folder: Path, detector_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(demo_folder, tmp_path / "out", detector_file) == FINISHED
    shown = capsys.readouterr().out
    assert "N_copies" in shown and "N_mem" in shown and str(tmp_path / "out" / "report.html") in shown


def test_exit_status_tells_of_skipped_images(
    demo_folder: Path, detector_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(demo_folder, tmp_path / "in")
    np.save(folder / "synthetic" / "bad.npy", np.full((32, 32), np.inf))
    assert audit(folder, tmp_path / "out", detector_file) == SKIPPED
    captured = capsys.readouterr()
    assert "images were skipped (1 in synthetic)" in captured.out
    assert "\n  synthetic: contains NaN or infinity (bad.npy)\n" in captured.out
    assert captured.out.endswith("exit status 3: finished, but images were skipped\n")
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["cohorts"]["synthetic"]["skipped"] == [
        {"image": "bad.npy", "reason": "contains NaN or infinity"}
    ]


@pytest.mark.parametrize("name", ["inspect", "audit", "evaluate", "benchmark", "study", "review-prepare", "demo"])
def test_every_command_that_ends_with_status_3_says_why(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ending(status: int) -> str:
        command = replace(COMMANDS[name], run=lambda **_: status)
        monkeypatch.setattr("monai_memo.__main__.settings_of", lambda _: (command, Settings()))
        assert run(name) == status
        return capsys.readouterr().out

    kind = {"study": "some trainings failed", "review-prepare": "some pairs cannot be shown"}
    assert ending(SKIPPED) == f"exit status 3: finished, but {kind.get(name, 'images were skipped')}\n"
    assert ending(FINISHED) == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("audit", "--train", "x"), "missing option --heldout, --synthetic, --out"),
        (
            ("audit", "--train", "a", "--heldout", "b", "--synthetic", "c", "--out", "d", "--seeed", "3"),
            "option --seeed",
        ),
        (("evaluate", "--train", "a", "--negatives", "b", "--out", "d", "--kinds", "twist,flip"), "got twist"),
        (("demo", "--modality", "brain"), "modality must be one of"),
        (("demo", "--seeed", "3"), "unknown option --seeed (did you mean --seed?)"),
        (("audti", "--train", "x"), "unknown command audti (did you mean audit?)"),
        (("coverage", "--out", "o", "x"), "'x' belongs to no option"),
        (("coverage", "-s", "3", "--out", "o"), "'-s' belongs to no option"),
        (("coverage", "--out"), "--out needs a value: the name of a folder"),
        (("coverage", "--out", "o", "--out", "p"), "--out is given twice"),
        (("coverage", "--out", ""), "--out must be the name of a folder, got '': it is empty"),
        (("coverage", "--out", "o", "--audits", "1e3"), "--audits must be a whole number from 1 to 100000, got '1e3'"),
        (("coverage", "--out", "o", "--seed", "-1"), "--seed must be a whole number"),
        (("review", "--audit", "x", "--redacted", "perhaps"), "--redacted must be True or False, got 'perhaps'"),
        (("planted-audit", "--cohort", "x.csv", "--out", "o", "--seed", "3"), "unknown option --seed"),
    ],
)
def test_refusals_come_before_any_work(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == REFUSED
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pt"))


def test_train_detector_evaluate_and_audit_with_it(
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "detector"
    training = demo_folder / "training"
    assert run("train-detector", "--train", training, "--out", out, "--epochs", 2, "--size", 32, "--noprogress") == 0
    assert (out / "detector.pt").exists() and not (out / WORK).exists()
    cohorts = ("--train", training, "--negatives", demo_folder / "heldout", "--out", tmp_path / "e")
    options = ("--detector", out / "detector.pt", "--per_kind", 12, "--kinds", "noise,flip", "--noprogress")
    status = run("evaluate", *cohorts, *options)
    assert status == FINISHED
    record = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    scores = {score["kind"]: score for score in record["scores"]}
    assert set(scores) == {"noise", "flip", "all"} and scores["all"]["n"] == 24
    assert 0 <= scores["noise"]["auc"]["low"] <= scores["noise"]["auc"]["value"] <= 1
    assert scores["noise"]["tpr"]["0.001"] is None  # 40 negatives cannot tell
    assert "too few negatives" in (tmp_path / "e" / "evaluation.md").read_text()


def test_demo_prints_the_planted_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    status = run("demo", "--out", tmp_path / "demo", "--n_train", 40, "--n_heldout", 24, "--n_synthetic", 20,
                 "--epochs", 2, "--size", 32, "--n_bootstrap", 100, "--gallery", 1, "--noprogress")  # fmt: skip
    assert status == FINISHED
    shown = capsys.readouterr().out
    assert shown.count("planted: 6") == 2 and "report.html" in shown
    said = [record.message for record in caplog.records]
    assert said[0].startswith("load PyTorch and MONAI ...") and said[1] == (
        "draw phantoms ... 40 training, 24 held-out and 20 synthetic images, 6 of these planted copies; then they are "
        "audited"
    )


def test_coverage_study_writes_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from monai_memo.benchmark import coverage
    from monai_memo.statistics.simulation import World

    monkeypatch.setattr(coverage, "FLOOR_SIZES", ((60, 30, 60),))
    monkeypatch.setattr(coverage, "COVERAGE_WORLDS", {"small": World(60, 40, 40)})
    assert run("coverage", "--out", tmp_path, "--audits", 5, "--noprogress") == FINISHED
    assert "| small | copies |" in (tmp_path / "coverage.md").read_text()


def test_planted_audit_compares_with_the_truth(
    demo_folder: Path, detector_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["image,patient_id"] + [f"{path},{path.stem}" for path in sorted((demo_folder / "training").iterdir())]
    (tmp_path / "all.csv").write_text("\n".join(rows) + "\n")
    status = run("planted-audit", "--cohort", tmp_path / "all.csv", "--out", tmp_path / "out", "--seeds", 1,
                 "--shares", "0.35,0.4,0.15,0.1", "--detector", detector_file, "--planting_size", 32,
                 "--n_bootstrap", 100, "--noprogress")  # fmt: skip
    assert status == FINISHED
    row = json.loads((tmp_path / "out" / "planted_audit.json").read_text())["audits"][0]
    images = str(demo_folder / "training")
    assert run("planted-audit", "--cohort", images, "--out", tmp_path / "no") == REFUSED
    assert "names no patients" in capsys.readouterr().err
    assert row["planted"] == 4 and row["n_synthetic"] == 13 and row["unseen"] == 6
    assert 0 <= row["planted_found"] <= 4


@pytest.mark.parametrize("arguments", [("train-detector", "--help"), ("train-detector", "--train", "x", "-h")])
def test_help_of_a_command_names_its_options(arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == FINISHED
    captured = capfd.readouterr()
    shown = captured.out + captured.err
    assert "monai-memo train-detector" in shown.replace("_", "-") and "start_from" in shown and "epochs" in shown


def options(*words: str) -> dict[str, object]:
    asked = settings_of(words)
    assert not isinstance(asked, str)
    return asked[1].given()


def test_text_stays_the_text_that_was_typed() -> None:
    for word in ("2024", "1e5", "None", "True", "a,b", "[x]", "'12'", "{1:2}", "0x10", "-", "-x", "1_000"):
        assert options("coverage", "--out", word) == {"out": word}
        assert options("coverage", f"--out={word}") == {"out": word}
    assert options("coverage", "--out=--strange=1") == {"out": "--strange=1"}


def test_flags_need_no_value_and_say_no_in_several_words() -> None:
    for words in (
        ("--noprogress",),
        ("--no-progress",),
        ("--no_progress",),
        ("--progress", "false"),
        ("--progress=no",),
    ):
        assert options("coverage", "--out", "o", *words) == {"out": "o", "progress": False}
    assert options("coverage", "--out", "o", "--progress") == {"out": "o", "progress": True}
    audit = ("audit", "--train", "a", "--heldout", "b", "--synthetic", "c", "--out", "d")
    assert options(*audit, "--allow-overlap", "false")["allow_overlap"] is False
    assert options(*audit, "--window", "-100,400")["window"] == (-100.0, 400.0)
    assert options(*audit, "--size", "64", "48")["size"] == (64, 48)
    assert options(*audit, "--size", "64")["size"] == 64


def test_help_comes_without_pytorch() -> None:
    code = (
        "import sys, monai_memo.__main__ as m\n"
        "for name in m.COMMANDS: assert name in m.settings_of([name, '--help'])\n"
        "m.settings_of([])\n"
        "assert 'torch' not in sys.modules and 'monai' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


WORDS = st.one_of(
    st.sampled_from(
        ["--seed", "--out", "--size=64,64", "--device", "--noprogress", "--progress", "--n", "--train", "--"]
    ),
    st.from_regex(r"\A--[a-z_-]{1,12}(=.{0,6})?\Z"),
    st.text(st.characters(codec=None, min_codepoint=1), max_size=12),
    st.floats().map(str),
    st.integers().map(str),
)


@given(command=st.sampled_from([*COMMANDS, "nothing"]), words=st.lists(WORDS, max_size=12))
@settings(max_examples=400, deadline=None)
def test_no_command_line_ends_in_a_traceback(command: str, words: list[str]) -> None:
    try:
        asked = settings_of([command, *words])
    except MemoError as error:
        assert str(error).isascii() and all(len(line) < 1200 for line in str(error).splitlines())
    else:
        assert isinstance(asked, str) or isinstance(asked[1], Settings)


def test_a_call_from_python_leaves_the_levels_of_loggers_alone() -> None:
    logging.getLogger("ignite").setLevel(logging.INFO)
    with pytest.raises(SystemExit):
        main(["audit", "--train", "no such folder"])
    assert logging.getLogger("ignite").level == logging.INFO


def test_names_that_are_not_utf8_are_shown_and_written_escaped(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "gr\udcfcn.png"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "gr\udcfcn.png"}
    assert write_text(tmp_path / "a.csv", "gr\udcfcn").read_bytes() == rb"gr\udcfcn"
    command = [sys.executable, "-m", "monai_memo", "card", "--audit", b"gr\xfcn", "--out", tmp_path / "card.md"]
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode == REFUSED
    assert done.stderr.decode("ascii").startswith(r"monai-memo: gr\udcfcn has no audit.json")


def test_a_reader_that_has_heard_enough_gets_no_traceback() -> None:
    code = "import time, monai_memo.__main__ as m; time.sleep(1); m.main(['audit', '--help'])"
    command = f'{sys.executable} -c "{code}" | true'
    run = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert run.stderr == "" and run.returncode == 0


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Whoever starts the tests in the background of a shell has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_sigterm_ends_like_an_interruption_with_a_status_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    for number, status, word in ((signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")):
        command = replace(COMMANDS["coverage"], run=lambda number=number, **_: signal.raise_signal(number))
        monkeypatch.setattr("monai_memo.__main__.settings_of", lambda _, command=command: (command, Settings()))
        assert run("coverage") == status
        assert capsys.readouterr().err == (
            f"monai-memo: {word}. Run the same command again to continue where it stopped.\n"
        )
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_ends_a_training_is_told_once_and_by_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in an engine of Ignite is no error."""
    from ignite.engine import Engine

    def interrupted(**_: object) -> int:
        def step(*_: object) -> None:
            raise KeyboardInterrupt

        Engine(step).run([1])
        return FINISHED

    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger().addHandler(handler)
    try:
        command = replace(COMMANDS["coverage"], run=interrupted)
        monkeypatch.setattr("monai_memo.__main__.settings_of", lambda _: (command, Settings()))
        assert run("coverage") == 130
        assert said.getvalue() == ""
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert "Engine run is terminating" in said.getvalue(), "whoever calls it from Python hears it as before"
    finally:
        logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize("module", ["pydantic", "monai_memo.files", "logging"])
def test_an_interruption_while_modules_load_is_no_traceback(module: str) -> None:
    script = (
        "import sys, importlib.abc\n"
        f"sys.modules.pop('{module}', None)\n"
        "class Stop(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == '{module}': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "import monai_memo.__main__ as program\nprogram.main(['--help'])\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 130 and "Traceback" not in ended.stderr, ended.stderr
    assert ended.stderr.startswith("monai-memo: interrupted. Run the same command again")


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--fdr=0,05", "got '0,05': write 0.05"),
        ("--fdr=5%", "got '5%': write 0.05"),
        ("--confidence=95", "got '95': write 0.95"),
        ("--confidence=95 %", "got '95 %': write 0.95"),
        ("--confidence=abc", "got 'abc'\n"),
        ("--out=/", "--out is /, where much else lies"),
    ],
)
def test_what_was_meant_is_told(option: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"train": "a", "heldout": "b", "synthetic": "c", "out": str(tmp_path / "d")}
    given |= dict([option.removeprefix("--").split("=", 1)])
    assert run("audit", *(f"--{name}={value}" for name, value in given.items())) == REFUSED
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize("redacted", [False, True])
def test_detectors_and_cohorts_that_are_not_there_are_named_by_option_before_any_is_read(
    redacted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("a cohort is read")

    monkeypatch.setattr("monai_memo.data.sources.read_source", read)
    secret = tmp_path / "Zorgmarke"
    (secret / "there").mkdir(parents=True)
    (secret / "broken.pt").write_bytes(b"x")
    place = str(secret / "there")
    audit = ["audit", "--train", place, "--heldout", place, "--synthetic", place, "--out", str(secret / "out")]
    cases = [
        (
            ["--detector", str(secret / "none.pt")],
            "--detector",
            "no such file. Train one with: monai-memo train-detector",
        ),
        (["--detector", str(secret / "broken.pt")], "--detector", "is damaged or no detector file"),
        (["--heldout", str(secret / "none")], "--heldout", "no such file or folder" if redacted else "does not exist"),
        (["--synthetic", str(secret / "n.json:key")], "--synthetic", "no such" if redacted else "does not exist"),
    ]
    for options, name, reason in cases:
        words = list(audit)
        if name in words:
            at = words.index(name)
            del words[at : at + 2]
        assert run(*words, *options, *(["--redacted"] if redacted else [])) == REFUSED
        told = capsys.readouterr().err
        assert told.startswith(f"monai-memo: {name}") and reason in told, told
        assert ("Zorgmarke" in told) != redacted
        assert not (secret / "out").exists()
    if redacted:
        return
    for words, name in (
        (["evaluate", "--train", place, "--negatives", place, "--detector", str(secret / "none.pt")], "--detector"),
        (["evaluate", "--train", place, "--negatives", str(secret / "none")], "--negatives"),
        (["benchmark", "--train", place, "--negatives", place, "--paper_detector", str(secret / "n.pt")], "--paper_d"),
        (["train-detector", "--train", place, "--start_from", str(secret / "none.pt")], "--start_from"),
        (["inspect", "--train", place, "--synthetic", str(secret / "none")], "--synthetic"),
        (["planted-audit", "--cohort", str(secret / "none")], "--cohort"),
    ):
        assert run(*words, "--out", secret / "out") == REFUSED
        assert capsys.readouterr().err.startswith(f"monai-memo: {name}")

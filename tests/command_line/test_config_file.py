# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""``--config run.yaml``: the options of a command line in a file, for every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_memo.__main__ import COMMANDS, REFUSED, main, settings_of
from monai_memo.command_line import load
from monai_memo.errors import MemoError
from monai_memo.settings import Settings, SettingsError
from monai_memo.settings.model import kind_of
from monai_memo.settings.values import Flag, Kind, Number, Place, Text, Whole

VALUES: dict[type[Kind], tuple[str, Any]] = {
    Place: ("007", "007"), Text: ("2024", "2024"), Whole: ("64", 64), Number: ("0.5", 0.5), Flag: ("yes", True),
}  # fmt: skip


def options(*words: str) -> dict[str, Any]:
    asked = settings_of(words)
    assert not isinstance(asked, str)
    return asked[1].given()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run.yaml"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_reads_its_options_from_a_file_as_it_reads_them_from_the_command_line(
    name: str, file: Path
) -> None:
    model = load(COMMANDS[name].settings)
    lines, values = {}, {}
    for option, field in model.model_fields.items():
        text, value = VALUES.get(type(kind_of(field)), ("", None))
        if field.is_required() and text:
            lines[option], values[option] = text, value
    if name in ("inspect", "duplicates"):
        lines["train"] = values["train"] = "1e3"
    file.write_text("".join(f"{option.replace('_', '-')}: {text}\n" for option, text in lines.items()))
    words = [word for option, text in lines.items() for word in (f"--{option}", text)]
    assert options(*name.split(), "--config", "run.yaml") == options(*name.split(), *words) == values


@pytest.mark.parametrize("text", ["2024", "007", "1e3", "0x10", "no", "True", "12:30", "2027-01-01", "1_0", ".5", "="])
def test_text_in_a_file_stays_the_text_that_stands_there(text: str, file: Path) -> None:
    file.write_text(f"out: {text}\n")
    assert options("coverage", "--config", "run.yaml") == {"out": text}


def test_the_command_line_goes_before_the_file_wherever_it_stands(file: Path) -> None:
    file.write_text("out: a\nseed: 3\naudits: 5\nprogress: no\n")
    assert options("coverage", "--config", "run.yaml", "--seed", "4") == {
        "out": "a", "seed": 4, "audits": 5, "progress": False,
    }  # fmt: skip
    assert options("coverage", "--seed=4", "--progress", "--config=run.yaml", "--out", "b") == {
        "out": "b", "seed": 4, "audits": 5, "progress": True,
    }  # fmt: skip


def test_lists_flags_and_json_are_taken(file: Path) -> None:
    cohorts = {"train": "a", "heldout": "b", "synthetic": "c", "out": "d"}
    file.write_text(json.dumps({**cohorts, "size": [64, 48], "window": [-100, 400], "redacted": True, "epochs": None}))
    assert options("audit", "--config", "run.yaml") == {
        **cohorts, "size": (64, 48), "window": (-100.0, 400.0), "redacted": True,
    }  # fmt: skip


def test_paths_in_a_file_are_those_of_the_folder_in_which_the_command_is_started(file: Path) -> None:
    (file.parent / "below").mkdir()
    (file.parent / "below" / "run.yaml").write_text("out: results\n")
    assert options("coverage", "--config", "below/run.yaml") == {"out": "results"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("out: a\nsed: 3\n", "unknown option --sed in run.yaml (did you mean --seed?)"),
        ("out: a\nseed: 1.5\n", "--seed must be a whole number from 0 to 9223372036854775807, got '1.5' (in run.yaml)"),
        ("out: a\nprogress: maybe\n", "--progress must be True or False, got 'maybe' (in run.yaml)"),
        ("out: [a, b]\n", "--out must be the name of a folder, got ['a', 'b'] (in run.yaml)"),
        ("out: {a: b}\n", "--out must be the name of a folder, got {'a': 'b'} (in run.yaml)"),
        ("out: ''\n", "--out must be the name of a folder, got '': it is empty (in run.yaml)"),
        ("out:\nseed: ~\n", "missing option --out"),
        ("", "missing option --out"),
        ("out: a\nconfig: other.yaml\n", "a file of options names no other: leave out config in run.yaml"),
        ("- out\n", "--config run.yaml must hold options, one a line, such as seed: 3"),
        ("out: a: b\n", "--config run.yaml is no YAML in line 1: mapping values are not allowed here"),
        ("seed: 3\nout: a\nout: b\n", "--config run.yaml is no YAML in line 3: out stands there twice: leave one out"),
        ("per-kind: 3\nper_kind: 4\n", "line 2: per_kind stands there twice"),
        ("out: !!python/object:os.system x\n", "--config run.yaml is no YAML in line 1"),
        ("[" * 5000, "--config run.yaml cannot be read: it is nested too deeply"),
        (b"out: \xff\xfe\n", "--config run.yaml cannot be read: it is no UTF-8 text"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_name(
    text: str | bytes, told: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SystemExit) as end:
        main(["coverage", "--config", "run.yaml"])
    shown = capsys.readouterr().err
    assert end.value.code == REFUSED and told in shown, shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--config", "none.yaml"), "--config none.yaml: no such file"),
        (("--config", "."), "--config .: no such file"),
        (("--config", ""), "--config must be the name of a YAML file of options, got '': it is empty"),
        (("--config",), "--config needs a value: the name of a YAML file of options"),
        (("--config", "a", "--config", "b"), "--config is given twice"),
        (("--config", "x" * 5000), "longer than a name can be"),
        (("--conifg", "a"), "unknown option --conifg (did you mean --config?)"),
    ],
)
def test_files_that_cannot_be_are_refused(words: tuple[str, ...], told: str, file: Path) -> None:
    with pytest.raises(MemoError) as error:
        settings_of(["coverage", *words])
    text = error.value.told("--") if isinstance(error.value, SettingsError) else str(error.value)
    assert told in text


def test_a_study_tells_its_grid_from_a_file_of_options_by_the_key_config(file: Path) -> None:
    file.write_text("config: grid.yaml\nout: results\n")
    assert options("study", "--config", "run.yaml") == {"config": "grid.yaml", "out": "results"}
    file.write_text("base: {}\nfactors: {}\n")
    assert options("study", "--config", "run.yaml", "--out", "o") == {"config": "run.yaml", "out": "o"}


@pytest.mark.parametrize("place", ["command line", "file"])
def test_a_redacted_run_echoes_no_path_of_its_file(
    place: str, file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    secret = tmp_path / "M\u00fcller_Anna"
    lines = {name: str(secret / name) for name in ("train", "heldout", "synthetic", "out")}
    words = ["--redacted"] if place == "command line" else []
    lines |= {"redacted": "yes"} if place == "file" else {}
    for wrong in ({}, {"seed": str(secret)}, {"size": [str(secret)]}, {"trian": str(secret)}, {"window": "Zorg/1"}):
        secret.mkdir(exist_ok=True)
        (secret / "run.yaml").write_text(json.dumps({**lines, **wrong}))
        with pytest.raises(SystemExit) as end:
            main(["audit", "--config", str(secret / "run.yaml"), *words])
        shown = capsys.readouterr()
        assert end.value.code == REFUSED
        for name in ("ller_Anna", "Zorg"):
            assert name not in shown.err + shown.out, shown.err


TEXTS = st.one_of(st.text(max_size=200), st.from_regex(r"\A(out|seed|size|progress|[a-z-]{1,9}): ?[^\n]{0,20}\n?\Z"))


@given(text=st.lists(TEXTS, max_size=4).map("\n".join))
@settings(max_examples=200, deadline=None)
def test_no_file_ends_in_a_traceback(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        asked = settings_of(["coverage", "--config", str(path)])
    except MemoError as error:
        assert str(error).isascii()
    else:
        assert isinstance(asked[1], Settings)

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Help says all that there is to say, once, and completion knows every option."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from monai_memo import __version__
from monai_memo.__main__ import COMMANDS, GROUPS, main, settings_of
from monai_memo.command_line import load
from monai_memo.settings.model import kind_of
from monai_memo.settings.values import Choice, Flag


def page(*words: str) -> str:
    asked = settings_of(words)
    assert isinstance(asked, str)
    return asked


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_every_option_with_its_default_and_choices(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    model, shown = load(COMMANDS[name].settings), page(*name.split(), "--help")
    assert shown.split("\n")[0].split("[")[0].startswith(f"usage: monai-memo {name} ")
    required, _, optional = shown.rpartition("\noptions:\n")
    entries = dict(re.findall(r"\n  --(\w+) ?(.*(?:\n {8}.*)*)", shown))
    assert set(entries) == {*model.model_fields, "config"}
    for option, field in model.model_fields.items():
        text = " ".join(entries[option].split())
        assert f"\n  --{option}" in (required if field.is_required() else f"\n{optional}"), option
        kind = kind_of(field)
        if isinstance(kind, Choice):
            assert all(choice in text for choice in kind.names)
        if isinstance(kind, Flag):
            assert text.startswith("[True|False]")
        if not field.is_required() and isinstance(field.default, str | int | float):
            assert text.endswith(f"Default: {field.default}."), text
    assert "-h, --help" in optional and "--noNAME turns it off" in " ".join(optional.split())
    assert max(map(len, shown.splitlines())) <= 112


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_is_a_command_line(name: str) -> None:
    examples = COMMANDS[name].examples
    assert examples
    shown = page(*name.split(), "--help").replace(" \\\n", " ")
    for example in examples:
        asked = settings_of([*name.split(), *shlex.split(example.options)])
        assert not isinstance(asked, str) and asked[0] is COMMANDS[name]
        assert f"monai-memo {name} {example.options}" in " ".join(shown.split()), shown


def test_the_overview_has_every_command_once_in_its_group() -> None:
    shown = page()
    assert page("--help") == page("-h") == page("help") == shown
    sections = shown.split("\n\n")
    for group, title in GROUPS.items():
        (section,) = [text for text in sections if text.startswith(title)]
        named = re.findall(r"^  (\S+(?: \S+)?)  +\S", section, re.MULTILINE)
        assert named == [name for name, command in COMMANDS.items() if command.group == group]
    assert {command.group for command in COMMANDS.values()} == set(GROUPS)
    assert all(status in shown for status in ("0 finished", "2 refused", "3 finished but", "130 inter", "143 termin"))


def test_help_is_found_from_everywhere_and_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["audit", "-h"], ["help", "audit"], ["--help", "audit"], ["audit", "--train", "x", "--help"]):
        assert page(*words) == page("audit", "--help")
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("columns", ["20", "80", "500"])
def test_help_is_no_wider_than_it_can_be_read(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    body = page("audit", "--help").split("\noptions:\n")[1].split("\n\n")[0]
    assert max(map(len, body.splitlines())) <= max(60, min(110, int(columns)))


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_every_command(shell: str) -> None:
    script = page("--completion", shell)
    assert page(f"--completion={shell}") == script
    for name, command in COMMANDS.items():
        assert name.split()[-1] in script
        if shell != "tcsh":
            assert all(f"--{option}" in script for option in load(command.settings).model_fields)
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("monai-memo aud", {"audit"}),
        ("monai-memo audit --symm", {"--symmetries"}),
        ("monai-memo audit --recipe ", {"default", "paper"}),
        ("monai-memo audit --redacted ", {"True", "False"}),
        ("monai-memo coverage --c", {"--config"}),
        ("monai-memo card --audit fol", {"folder"}),
    ],
)
def test_bash_completes(line: str, offered: set[str], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    words = line.split(" ")
    array = " ".join(shlex.quote(word) for word in words)
    run = f"""
        COMP_WORDS=({array}); COMP_CWORD={len(words) - 1}; COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}
        $(complete -p monai-memo | sed 's/.*-F \\([^ ]*\\) .*/\\1/') monai-memo {shlex.quote(words[-1])} x
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    shown = subprocess.run(
        ["bash"], input=page("--completion", "bash") + run, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert set(shown.stdout.split()) == offered, shown

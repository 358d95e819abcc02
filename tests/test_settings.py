# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Values by type: what an option takes, from a command line, a config or Python, and what it says to all else."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_memo.__main__ import COMMANDS
from monai_memo.command_line import load
from monai_memo.errors import CohortError, ConfigurationError
from monai_memo.settings import (
    Boolean,
    Device,
    Epochs,
    File,
    Folder,
    Level,
    PatientPattern,
    Seed,
    Settings,
    SettingsError,
    Several,
    Share,
    Size,
    Spacing,
    Text,
    Window,
    Workers,
)
from monai_memo.settings.model import described, in_order, kind_of
from monai_memo.settings.patterns import found_by
from monai_memo.settings.values import Flag, Place


class Example(Settings):
    """One option of each kind.

    Attributes:
        out: folder.
        seed, workers: numbers.
    """

    out: Folder
    detector: File | None = None
    seed: Seed = 0
    workers: Workers | None = None
    epochs: Epochs | None = None
    fdr: Share = 0.05
    confidence: Level = 0.95
    size: Size | None = None
    spacing: Spacing | None = None
    window: Window | None = None
    device: Device = "cpu"
    redacted: Boolean = False
    kinds: Annotated[tuple[str, ...], Several(Text(20), 1, 5)] | None = None
    patient_pattern: PatientPattern | None = None


GOOD: list[tuple[str, Any, Any]] = [
    ("out", "2024", "2024"),
    ("out", "1e5", "1e5"),
    ("out", "None", "None"),
    ("out", "True", "True"),
    ("out", "a,b", "a,b"),
    ("out", "[1]", "[1]"),
    ("out", "'12'", "'12'"),
    ("out", Path("a") / "b", "a/b"),
    ("out", 2024, "2024"),
    ("detector", "None", "None"),
    ("detector", None, None),
    ("patient_pattern", "12", "12"),
    ("patient_pattern", "p(\\d+),", "p(\\d+),"),
    ("seed", "7", 7),
    ("seed", np.int64(7), 7),
    ("seed", 2**63 - 1, 2**63 - 1),
    ("epochs", "None", None),
    ("workers", "none", None),
    ("fdr", "5e-2", 0.05),
    ("confidence", np.float32(0.5), 0.5),
    ("size", "64", 64),
    ("size", "64,64", (64, 64)),
    ("size", "64x48", (64, 48)),
    ("size", "(64, 48)", (64, 48)),
    ("size", "[32,32,16]", (32, 32, 16)),
    ("size", "64 48", (64, 48)),
    ("size", ["64", "48"], (64, 48)),
    ("size", [64, 48], (64, 48)),
    ("size", np.array([64, 48]), (64, 48)),
    ("spacing", 1, 1.0),
    ("spacing", "0.5,0.5,3", (0.5, 0.5, 3.0)),
    ("window", "-100,400", (-100.0, 400.0)),
    ("window", (-100, 400.5), (-100.0, 400.5)),
    ("kinds", "noise,flip", ("noise", "flip")),
    ("kinds", "['noise', 'flip']", ("noise", "flip")),
    ("device", torch.device("cpu"), "cpu"),
    *[("redacted", value, True) for value in (True, "True", "yes", "on", "1", 1)],
    *[("redacted", value, False) for value in (False, "False", "no", "OFF", "0", 0)],
]
BAD: list[tuple[str, Any, str]] = [
    ("out", "", "it is empty"),
    ("out", "a\0b", "NUL"),
    ("out", "a" * 300, "longer than a name can be"),
    ("out", "a/" * 3000, "longer than a name can be"),
    ("out", "\ud800", "no file can have this name"),
    ("out", None, "must be the name of a folder, got None"),
    ("out", True, "got True"),
    ("out", 1e5, "got 100000.0"),
    ("out", ("a", "b"), r"got \('a', 'b'\)"),
    *[("seed", value, "must be a whole number from 0 to 9223372036854775807") for value in (-1, "1.5", 1.5, 2**70)],
    ("seed", float("nan"), "got nan"),
    ("seed", True, "got True"),
    ("seed", "0x10", "got '0x10'"),
    ("seed", "1_000", "got '1_000'"),
    ("seed", "9" * 5000, "got '9999"),
    ("workers", 0, "from 1 to 1024, got 0"),
    ("workers", "-1", "got '-1'"),
    *[("fdr", value, "neither included") for value in ("nan", float("nan"), 0, 1, float("inf"), "0,05", None, [0.1])],
    ("confidence", 1e-12, "from 0.5 to 0.9999, got 1e-12"),
    ("confidence", 10**400, "from 0.5 to 0.9999"),
    ("size", "abc", "from 8 to 1024, or 2 to 3 of them, such as 64,64, got 'abc'"),
    ("size", 4, "got 4"),
    ("size", [64], "it has 1"),
    ("size", "1,2,3,4", "from 8"),
    ("size", "64,64,64,64", "it has 4"),
    ("size", 64.5, "got 64.5"),
    ("size", {"x": 64}, "got {'x': 64}"),
    ("spacing", "a", "got 'a'"),
    ("spacing", 0, "from 0.001 to 1000"),
    ("spacing", (1, 1), "it has 2"),
    ("spacing", "1,inf", "got '1,inf'"),
    ("window", "400,-100", "they do not rise"),
    ("window", 5, "it has 1"),
    ("window", (float("-inf"), 4), "rising values"),
    ("device", "tpu", "auto, cpu, cuda, cuda:N or mps, got 'tpu'"),
    ("device", "cpu:3", "got 'cpu:3'"),
    ("redacted", "maybe", "True or False, got 'maybe'"),
    ("redacted", None, "True or False, got None"),
    ("redacted", 2, "got 2"),
    ("kinds", [], "it has 0"),
    ("patient_pattern", "(a", r"missing \)"),
    ("patient_pattern", "a" * 501, "501 characters"),
]


@pytest.mark.parametrize(("name", "value", "wanted"), GOOD)
def test_a_value_arrives_in_its_type_wherever_it_comes_from(name: str, value: Any, wanted: Any) -> None:
    found = getattr(Example(**{"out": "o", name: value}), name)
    assert found == wanted and type(found) is type(wanted)


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_a_wrong_value_is_refused_with_what_is_allowed(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} .*{message}"):
        Example(**{"out": "o", name: value})


def test_a_gpu_that_is_not_there_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Example(out="o", device="cuda:1").device == "cuda:1"
    with pytest.raises(ConfigurationError, match="got 'cuda:7': there are 2 GPUs here, numbered from 0"):
        Example(out="o", device="cuda:7")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match="PyTorch finds no GPU here; take cpu, or auto"):
        Example(out="o", device="cuda")


def test_every_problem_is_told_on_a_line_of_its_own() -> None:
    with pytest.raises(SettingsError) as caught:
        Example(sede=3, seed=-1, fdr="x")
    lines = str(caught.value).splitlines()
    assert lines[0] == "missing out"
    assert lines[1] == "seed must be a whole number from 0 to 9223372036854775807, got -1"
    assert lines[2] == "fdr must be a number between 0 and 1, neither included, got 'x'"
    assert lines[3] == "unknown option sede (did you mean seed?)"
    assert caught.value.told("--").splitlines()[3] == "unknown option --sede (did you mean --seed?)"


def test_settings_cannot_be_changed_and_are_plain_in_json() -> None:
    made = Example(out="o", size="64,48")
    with pytest.raises(ValueError, match="frozen"):
        made.seed = 3  # type: ignore[misc]
    assert made.to_dict()["size"] == [64, 48]
    assert made.given() == {"out": "o", "size": (64, 48)}
    assert Example(**made.to_dict()) == Example(**made.to_dict())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_is_described_and_typed(command: str) -> None:
    model = load(COMMANDS[command].settings)
    assert set(described(model)) == set(model.model_fields)
    for name in in_order(model):
        kind = kind_of(model.model_fields[name])
        assert kind is not None, f"{name} takes anything"
        default = model.model_fields[name].default
        if not model.model_fields[name].is_required() and default is not None:
            assert kind.read(default) == default, f"the default of {name} is not allowed"
        if not isinstance(kind, Flag | Place):
            assert kind.allowed in (model.__doc__ or ""), f"{name}: the documentation does not tell what is allowed"


@pytest.mark.parametrize("command", COMMANDS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_no_value_of_any_type_gives_another_error(command: str, data: st.DataObject) -> None:
    model = load(COMMANDS[command].settings)
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4)
    values = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner), max_leaves=6
    )
    arguments = data.draw(st.dictionaries(st.sampled_from([*model.model_fields, "surplus"]), values, max_size=6))
    try:
        made = model(**arguments)
    except SettingsError as error:
        assert str(error).isascii() and "Traceback" not in str(error)
    else:
        assert set(made.model_fields_set) == set(arguments)


def test_patterns_find_the_group_or_the_whole() -> None:
    assert found_by(r"(p\d+)/", "a/p12/x.png") == "p12"
    assert found_by(r"p\d+", "a/p12/x.png") == "p12"
    assert found_by(r"(?<=sub-)\w+", "sub-7/x.png") == "7"
    assert found_by(r"q\d+", "a/p12/x.png") is None


def test_a_pattern_that_never_ends_is_stopped() -> None:
    start = time.monotonic()
    with pytest.raises(CohortError, match=r"takes more than 0\.2 s on one name. Repeats within repeats"):
        found_by(r"^(.*?,){24}P", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28" * 4, 0.2)
    assert time.monotonic() - start < 5

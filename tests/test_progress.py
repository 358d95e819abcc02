# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import logging
import os
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine

from monai_memo import progress
from monai_memo.progress import Progress, following
from monai_memo.search.runner import Runner
from monai_memo.training.progress import TrainingProgress


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "monai_memo.progress"]


@pytest.fixture(autouse=True)
def _quiet_before(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="monai_memo.progress")
    monkeypatch.setattr(progress._LastWords, "time", float("-inf"))


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_slow_items_print_soon_and_at_least_every_half_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock, said = Clock(), []
    with Progress(100, "search", clock=clock) as shown:
        for _ in range(100):
            clock.now += 7
            shown.update()
            said += [clock.now] * (len(messages(caplog)) - len(said))
    times = [1000.0, *said, clock.now]
    assert said[0] == 1007 and max(after - before for before, after in pairwise(times)) <= 30
    found = messages(caplog)
    assert found[0] == "search: 1 of 100, 8.6 a minute, about 12 min left"
    assert found[1] == "search: 5 of 100, 8.6 a minute, about 11 min left"
    assert found[-1] == "search: 100 of 100, 8.6 a minute, done in 12 min"


def test_quick_work_prints_nothing_however_many_items(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with Progress(100_000, "search", clock=clock) as shown:
        for _ in range(100_000):
            clock.now += 4 / 100_000
            shown.update()
    assert messages(caplog) == []


def test_work_just_over_the_first_line_says_when_it_is_done(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with Progress(7, "embed", clock=clock) as shown:
        for _ in range(7):
            clock.now += 1
            shown.update()
    assert messages(caplog) == ["embed: 5 of 7, 1 a second, about 2 s left", "embed: 7 of 7, 1 a second, done in 7 s"]


def test_what_was_done_before_an_interruption_does_not_count_for_the_rate(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with Progress(10_000, "search", done=9_000, clock=clock) as shown:
        clock.now += 10
        shown.update(100)
    assert messages(caplog)[0] == "search: 9,100 of 10,000, 10 a second, about 2 min left"
    assert messages(caplog)[1] == "search: 9,100 of 10,000, 10 a second, ended after 10 s"


def test_a_single_long_step_still_prints_and_its_thread_ends_with_it(caplog: pytest.LogCaptureFixture) -> None:
    with Progress(2, "train", first=0.02, every=0.05) as shown:
        assert len(threads()) == 1
        time.sleep(0.3)
        assert len(messages(caplog)) >= 3 and messages(caplog)[0] == "train: 0 of 2, for 1 s"
        shown.update(2)
    assert threads() == []


def test_the_time_that_a_step_has_taken_is_no_longer_left() -> None:
    clock = Clock()
    with Progress(10, "train", clock=clock, first=1e9) as shown:
        clock.now += 60
        shown.update()
        assert shown.line() == "train: 1 of 10, 1 a minute, about 9 min left"
        clock.now += 120
        assert shown.line() == "train: 1 of 10, 1 a minute, about 7 min left"


def test_work_of_unknown_length_says_that_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with Progress(None, "calibrate", first=0.02, every=0.05):
        time.sleep(0.1)
    assert messages(caplog)[0] == "calibrate: going on, for 1 s"
    assert not any("ended" in line for line in messages(caplog))


def test_what_is_outside_keeps_quiet_while_what_is_inside_speaks(caplog: pytest.LogCaptureFixture) -> None:
    with Progress(None, "audit", first=0.1, every=0.5), Progress(1000, "search", first=0.0, every=0.02) as inner:
        for _ in range(30):
            time.sleep(0.01)
            inner.update()
    found = messages(caplog)
    assert len(found) > 5 and all(line.startswith("search") for line in found)


@pytest.mark.parametrize("total", [10, None])
def test_an_error_ends_the_thread(total: int | None) -> None:
    with pytest.raises(RuntimeError), Progress(total, "search"):
        assert len(threads()) == 1
        raise RuntimeError
    assert threads() == []


def test_a_loop_that_is_left_early_ends_its_thread() -> None:
    for number in following(range(10), "study"):
        if number == 3:
            break
    assert threads() == []
    with pytest.raises(RuntimeError):
        for _ in following(range(10), "study"):
            raise RuntimeError
    assert threads() == []


@pytest.mark.parametrize("quiet", ["shown", "finished", "rank"])
def test_who_has_nothing_to_say_is_silent(
    quiet: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if quiet == "rank":
        monkeypatch.setitem(os.environ, "RANK", "1")
    clock = Clock()
    with Progress(9, "a", 9 if quiet == "finished" else 0, quiet != "shown", clock=clock) as shown:
        assert threads() == []
        clock.now += 100
        shown.update(3)
    assert messages(caplog) == []


def test_of_a_runner_only_the_first_shard_speaks() -> None:
    for shard, number in (((0, 2), 1), ((1, 2), 0)):
        with Runner(progress=True, shard=shard).bar(10, "search"):
            assert len(threads()) == number


def test_a_terminal_gets_a_bar_and_no_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_on_terminal", lambda: True)
    clock = Clock()
    with Progress(4, "search", clock=clock) as shown:
        clock.now += 100
        shown.note("loss 0.5")
        shown.update(4)
    assert messages(caplog) == [] and "search: 100%" in capsys.readouterr().err
    with Progress(None, "calibrate"):
        pass
    assert capsys.readouterr().err == ""


def test_a_training_tells_its_steps_and_loss(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    engine = Engine(lambda *_: {"loss": torch.tensor(0.25)})
    engine.state.iteration = 0
    with TrainingProgress("train detector") as shown:
        shown.attach(engine)
        engine.run(range(5), max_epochs=3)
    found = messages(caplog)
    assert " of 15, " in found[0] and found[-1].startswith("train detector: 15 of 15, ")
    assert found[-1].endswith(", loss 0.250") and threads() == []


def test_an_interrupted_training_ends_the_thread() -> None:
    def step(*_: object) -> dict[str, torch.Tensor]:
        raise KeyboardInterrupt

    engine = Engine(step)
    with pytest.raises(KeyboardInterrupt), TrainingProgress("train detector") as shown:
        shown.attach(engine)
        engine.run(range(5), max_epochs=3)
    assert threads() == []


def test_nothing_else_shows_bars_of_its_own() -> None:
    package = Path(progress.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module if isinstance(node, ast.ImportFrom) else None
            shows = {"tqdm", "ProgressBar"} & {*names, str(module).split(".")[0]}
            assert not shows or (path.name == "progress.py" and path.parent == package), path

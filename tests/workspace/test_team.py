# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The ranks of one run: what they hand one another, and how they end together. Threads stand for processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.distributed import HashStore

from monai_memo.errors import CohortError, ConfigurationError, OutputError
from monai_memo.workspace import team as module
from monai_memo.workspace.team import RankError, Team


def together(work: Path, step: Callable[[Team], Any], world: int = 2) -> list[Any]:
    """What each rank makes of a step: its value, or what it raised."""
    store = HashStore()
    store.set_timeout(timedelta(seconds=60))

    def rank(number: int) -> Any:
        team = Team(store, number, world)
        try:
            with team:
                if team.leads:
                    team.meet_in(work)
                else:
                    assert team.hear() == {"do": "begin"}
                if team.leads:
                    team.tell({"do": "begin"})
                return step(team)
        except BaseException as error:
            if team.leads:
                team._last_words()  # as the process does that ends
            return error

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(rank, range(world)))


def test_arrays_of_all_ranks_come_in_their_order(tmp_path: Path) -> None:
    def step(team: Team) -> list[list[int]]:
        time.sleep(0.05 * (2 - team.rank))
        found = [team.gather({"a": np.full(team.rank, 10 * i + team.rank)}) for i in range(3)]
        return [part["a"].tolist() for part in found[2]]

    assert together(tmp_path, step, world=3) == [[[], [21], [22, 22]]] * 3
    # Only the files of the last step are kept.
    assert sorted(path.name for path in (tmp_path / "ranks").iterdir()) == [f"gathered-3-{i}.npz" for i in range(3)]


def test_nothing_is_left_in_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "ranks").mkdir()
    (tmp_path / "ranks" / "gathered-1-1.npz").write_bytes(b"of a run that was killed")

    def step(team: Team) -> int:
        found = team.gather({"a": np.arange(2) + team.rank})
        team.close()
        return int(sum(part["a"].sum() for part in found))

    assert together(tmp_path, step) == [4, 4]
    assert list(tmp_path.iterdir()) == []


def test_a_mapped_array_is_not_copied_and_a_part_of_it_is(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float16).reshape(4, 6)
    values.tofile(tmp_path / "values.f16")
    mapped = np.memmap(tmp_path / "values.f16", dtype=np.float16, mode="r", shape=(4, 6))
    team = Team(HashStore(), 0, 2)
    team.meet_in(tmp_path)
    whole, part, none = team.share(mapped), team.share(mapped[1:3]), team.share(None)
    assert whole is not None and whole["map"] == str(tmp_path / "values.f16") and none is None
    assert team.take(none) is None
    for words, expected in ((whole, values), (part, values[1:3])):
        np.testing.assert_array_equal(team.take(words), expected)
    team.forget(whole)
    team.forget(part)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["values.f16"]


def test_an_error_of_a_follower_ends_all_ranks_with_its_message(tmp_path: Path) -> None:
    def step(team: Team) -> None:
        if team.rank == 1:
            raise CohortError("patient_7.png is missing", "an image is missing")
        team.gather({})

    first, second, third = together(tmp_path, step, world=3)
    assert isinstance(first, RankError)
    assert (str(first), first.plain) == (
        "rank 1 of 3: patient_7.png is missing",
        "rank 1 of 3: an image is missing",
    )
    # The others say nothing and have the exit status of rank 0.
    assert [type(error) for error in (second, third)] == [SystemExit, SystemExit]
    assert [error.code for error in (second, third)] == [2, 2]


def test_an_error_of_rank_0_is_raised_there_and_ends_the_others(tmp_path: Path) -> None:
    def step(team: Team) -> None:
        if team.leads:
            raise OutputError("the disk is full")
        team.hear()

    first, second = together(tmp_path, step)
    assert isinstance(first, OutputError) and str(first) == "the disk is full"
    assert isinstance(second, SystemExit) and second.code == 2


def test_an_error_that_nobody_expects_has_status_1_and_says_where(tmp_path: Path) -> None:
    def step(team: Team) -> None:
        if team.rank == 1:
            raise ZeroDivisionError("by nothing")
        while True:
            team.check()  # as long work does
            time.sleep(0.01)

    first, second = together(tmp_path, step)
    assert str(first).startswith("rank 1 of 2: ended with ZeroDivisionError: by nothing (test_team.py, line ")
    assert second.code == 1


def test_followers_end_after_rank_0_has_spoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []

    def step(team: Team) -> None:
        if team.leads:
            raise OutputError("first")
        team.hear()

    def last_words(team: Team, original: Callable[[Team], None] = Team._last_words) -> None:
        time.sleep(0.2)  # as a message takes to be printed
        events.append(team.rank)
        original(team)

    def status(team: Team, error: BaseException) -> int:
        events.append(team.rank)
        return 2

    monkeypatch.setattr(Team, "_last_words", last_words)
    monkeypatch.setattr(Team, "_status", status)
    together(tmp_path, step)
    assert events == [0, 1]


def test_an_interrupted_follower_waits_for_nobody(tmp_path: Path) -> None:
    """torchrun ends the others so when a rank was killed, and starts them again when all have gone."""
    store = HashStore()
    with pytest.raises(KeyboardInterrupt), Team(store, 1, 2):
        raise KeyboardInterrupt
    assert not store.check(["failed"])


def test_a_file_that_a_rank_does_not_see_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)

    def step(team: Team) -> None:
        if team.rank == 1:
            team._folder = tmp_path / "of another machine"
        team.gather({})

    first, second = together(tmp_path, step)
    assert "have to see the same output folder: on several machines name one that they share with --out" in str(first)
    assert second.code == 2


def test_ranks_after_a_restart_do_not_meet_those_before() -> None:
    """The store of torchrun outlives them, and with it what they said."""
    store = HashStore()
    names = []
    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            # The followers come first: they find the call of the ranks before.
            others = [pool.submit(module._meeting, store, rank, 3) for rank in (1, 2)]
            time.sleep(0.2)
            first = pool.submit(module._meeting, store, 0, 3)
            found = {first.result(), *(one.result() for one in others)}
        assert len(found) == 1
        names += [*found]
    assert names[0] != names[1]


def test_one_process_is_no_team_and_processes_without_an_address_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert Team.of_torchrun() is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(module, "_store", [])
    with pytest.raises(ConfigurationError, match="start them with torchrun, or leave WORLD_SIZE unset"):
        Team.of_torchrun()

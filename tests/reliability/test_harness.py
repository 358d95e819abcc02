# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The fault harness finds the faults it is made for, and a short version of it finds none here."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_memo.errors import OutputError
from monai_memo.files import write_text
from monai_memo.reliability import readers
from monai_memo.reliability.disk import fill_job, fill_over, spread
from monai_memo.reliability.jobs import Job, all_jobs, needed
from monai_memo.reliability.kills import kill_at_write, kill_job, reference
from monai_memo.reliability.mutants import mutated, seeds_of_files
from monai_memo.reliability.pairs import judge, pair
from monai_memo.reliability.process import run
from monai_memo.workspace.output_folder import OutputFolder

BUNDLES = Path(__file__).parents[2] / "bundles"


def counting(inputs: Path, out: Path) -> None:
    """Counts to 12, one file after the other."""
    for number in range(12):
        if not (out / f"{number}.json").is_file():
            write_text(out / f"{number}.json", json.dumps(number))


def careless(inputs: Path, out: Path) -> None:
    """Writes in place, and takes what is there for whole."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "all.txt").is_file():
        with open(out / "all.txt", "w", encoding="utf-8") as stream:
            for number in range(30):
                stream.write(f"{number}\n" if number else "[")
                stream.flush()
                time.sleep(0.01)


def speechless(inputs: Path, out: Path) -> None:
    """Fails without telling of the disk."""
    try:
        careless(inputs, out)
        return
    except OSError:
        pass
    raise ValueError("something went wrong")


def ready(job: Job, inputs: Path) -> float:
    """The uninterrupted run, without importing again what this process has imported."""
    outcome = run(partial(job.run, inputs, inputs / "jobs" / job.name))
    assert outcome.status == 0, outcome.text
    return outcome.seconds


def test_a_run_reports_how_it_ended() -> None:
    assert run(lambda: print("fine")).text == "fine\n"
    refused = run(partial(_refuse, "no room"))
    assert refused.status == 2 and refused.text == "monai-memo: no room\n"
    failed = run(partial(_fail))
    assert failed.status == 1 and "Traceback" in failed.text and "ZeroDivisionError" in failed.text
    killed = run(partial(time.sleep, 60), kill_after=0.2)
    assert killed.status == -9 and not killed.timed_out and killed.seconds < 30
    assert run(partial(time.sleep, 60), limit=0.2).timed_out


def _refuse(reason: str) -> None:
    raise OutputError(reason)


def _fail() -> None:
    _ = 1 / 0


def test_kills_find_what_does_not_go_on(tmp_path: Path) -> None:
    good, bad = Job("counting", counting), Job("careless", careless)
    seconds = ready(good, tmp_path)
    found = kill_job(good, tmp_path, tmp_path / "killed", 6, 0, seconds)
    assert found.kills == 6 and found.differences == []
    seconds = ready(bad, tmp_path)
    worse = kill_job(bad, tmp_path, tmp_path / "killed", 8, 0, seconds)
    assert len(worse.differences) >= 1 and "all.txt" in worse.differences[0]
    folder = tmp_path / "cut"
    outcome = run(partial(counting, tmp_path, folder), prepare=partial(kill_at_write, 8))
    assert outcome.status == -9 and len(list(folder.glob("*.json"))) == 4


def test_full_disks_find_what_has_no_message(tmp_path: Path) -> None:
    job = Job("counting", counting)
    ready(job, tmp_path)
    found = fill_job(job, tmp_path, tmp_path / "full", most=4)
    assert (found.writes, found.faults, found.borne, found.differences) == (12, 4, 0, [])
    whole = fill_job(job, tmp_path, tmp_path / "full")
    assert (whole.writes, whole.faults, whole.borne, whole.differences) == (12, 12, 0, [])
    over = fill_over(Job("counting", partial(_anew)), tmp_path, tmp_path / "full", [1, 5])
    assert over.faults == 2 and over.differences == []
    bad = fill_job(Job("counting", careless), tmp_path, tmp_path / "full", most=1)
    assert bad.differences == ["write 1: ends with something else"]
    mute = fill_job(Job("counting", speechless), tmp_path, tmp_path / "full", most=1)
    assert "no message" in mute.differences[0]
    late = fill_job(Job("counting", hiding), tmp_path, tmp_path / "full")
    assert late.borne == 1 and "write 12: nothing is said (status 0), not all is there" in late.differences
    light = fill_job(Job("counting", noted), tmp_path, tmp_path / "full")
    assert (light.writes, light.faults, light.borne, light.differences) == (13, 13, 1, [])


def test_full_disks_are_spread_from_the_first_write_to_the_last() -> None:
    assert spread(5, 8) == [1, 2, 3, 4, 5]
    assert spread(100, 4) == [1, 34, 67, 100]
    assert spread(100, 1) == [1] and spread(0, 3) == []


def hiding(inputs: Path, out: Path) -> None:
    """Says nothing of the last file."""
    try:
        counting(inputs, out)
    except OutputError:
        if len(list(out.glob("*.json"))) < 11:
            raise


def noted(inputs: Path, out: Path) -> None:
    """Ends with a note that it does not need."""
    counting(inputs, out)
    with suppress(OSError):
        (out / ".note").write_text("done", encoding="utf-8")


def _anew(inputs: Path, out: Path) -> None:
    for number in range(12):
        write_text(out / f"{number}.json", json.dumps(number))


def locked(inputs: Path, out: Path) -> None:
    """A result of two files, as every command writes it."""
    with OutputFolder(out, "audit") as output:
        time.sleep(1.0)
        staging = output.staging()
        for name in ("a", "b"):
            write_text(staging / f"{name}.txt", name)
        output.publish()
        output.clear()


def mixing(inputs: Path, out: Path) -> None:
    """Two files that tell who wrote them, with time between them, and no lock."""
    for name in ("a", "b"):
        write_text(out / f"{name}.txt", str(os.getpid()))
        time.sleep(0.2)


def unnamed(inputs: Path, out: Path) -> None:
    """Refuses without telling why."""
    out.mkdir(parents=True)
    _refuse("no")


def test_pairs_that_hold_their_folder_are_told_apart_from_those_that_do_not(tmp_path: Path) -> None:
    job, out = Job("locked", locked), tmp_path / "both"
    ready(job, tmp_path)
    ends = pair(job, job, tmp_path, out, 0.3)
    assert sorted(end.status for end in ends) == [0, 2]
    assert judge((job, job), ends, tmp_path, out) == []
    other = ends[0] if ends[1].status == 2 else ends[1]
    assert f"process {other.pid} (monai-memo audit), started " in "".join(end.text for end in ends)
    ends = pair(job, job, tmp_path, out, 0.0)  # over the result of before
    assert judge((job, job), ends, tmp_path, out) == []
    (out / "b.txt").write_text("of somebody else")
    assert judge((job, job), ends, tmp_path, out) == [
        "not as in an undisturbed run: b.txt", "no result is there as a whole",
    ]  # fmt: skip
    (out / ".monai_memo_work").mkdir()
    assert "work in progress or a lock is left: .monai_memo_work" in judge((job, job), ends, tmp_path, out)
    bad = Job("mixing", mixing)
    ready(bad, tmp_path)
    ends = pair(bad, bad, tmp_path, tmp_path / "mixed", 0.1)
    assert any(
        "no result is there as a whole" in text for text in judge((bad, bad), ends, tmp_path, tmp_path / "mixed")
    )
    mute = Job("unnamed", unnamed)
    found = judge((mute, mute), pair(mute, mute, tmp_path, tmp_path / "mute", 0.0), tmp_path, tmp_path / "mute")
    assert any("without the other's process and start" in text for text in found)


def test_a_job_comes_with_those_whose_output_it_reads() -> None:
    known = all_jobs(BUNDLES)
    assert [job.name for job in needed([job for job in known if job.name == "sample 3D"], known)] == [
        "train autoencoder 3D", "train diffusion 3D", "sample 3D",
    ]  # fmt: skip


def test_readers_that_crash_hang_or_fail_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(path: Path) -> None:
        number = int(path.parent.name)
        if number == 1:
            raise KeyError("header")
        if number == 2:
            os.abort()
        if number == 3:
            np.ones(300 << 20, dtype=np.uint8)
        if number == 4:
            raise OutputError("named")
        if number == 5:
            time.sleep(60)

    monkeypatch.setattr(readers, "read", bad)
    monkeypatch.setattr(readers, "LIMIT_BYTES", 128 << 20)
    monkeypatch.setattr(readers, "LIMIT_S", 0.5)
    paths = []
    for number in range(7):
        path = tmp_path / f"{number:05d}" / "image.png"
        path.parent.mkdir()
        path.write_bytes(b"x")
        paths.append(path)
    seen: dict[str, dict[str, Any]] = {}
    readers._watch(paths, tmp_path, lambda path, line: seen.update({path.parent.name: line}))
    outcomes = [seen[f"{number:05d}"]["outcome"] for number in range(7)]
    assert outcomes[0] == outcomes[6] == "read" and outcomes[4] == "refused"
    assert outcomes[1] == "KeyError: 'header'" and outcomes[2] == "ends the process (status -6)"
    assert outcomes[3].startswith("MemoryError") or seen["00003"]["grown"] > 128 << 20
    assert outcomes[5] == "hangs"


def test_mutants_are_the_same_for_a_seed_and_damage_every_kind_of_file(tmp_path: Path) -> None:
    originals = seeds_of_files(tmp_path / "originals")
    assert {"png", "jpg", "tif", "nii", "nii.gz", "nrrd", "mha", "mhd", "dcm", "npy", "npz", "csv", "datalist",
            "detector", "weights", "checkpoint"} <= set(originals)  # fmt: skip
    for name, original in originals.items():
        contents = []
        for folder in ("a", "b"):
            rng = np.random.default_rng(3)
            contents.append([mutated(original, tmp_path / folder / str(i), rng).read_bytes() for i in range(8)])
        assert contents[0] == contents[1], name
        assert sum(content != original.read_bytes() for content in contents[0]) >= 6, name


def test_whole_files_are_read(tmp_path: Path) -> None:
    for name, original in seeds_of_files(tmp_path).items():
        if name != "checkpoint":
            readers.read(original)


def test_a_short_version_over_damaged_files_finds_nothing(tmp_path: Path) -> None:
    found = readers.read_mutants(tmp_path, 68, seed=11)
    assert sum(row["faults"] for row in found) == 68
    assert [row["differences"] for row in found if row["differences"]] == []


@pytest.mark.parametrize("name", ["ratings of the review server", "train variational autoencoder"])
def test_a_short_version_of_kills_ends_with_the_same_results(name: str, tmp_path: Path) -> None:
    job = next(job for job in all_jobs(BUNDLES) if job.name == name)
    seconds = reference(job, tmp_path)
    found = kill_job(job, tmp_path, tmp_path / "killed", 4, 1, seconds)
    assert found.kills == 4 and found.differences == []

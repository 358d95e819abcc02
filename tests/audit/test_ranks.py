# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""An audit on two ranks of torchrun, on the CPU: the record of one process, also after a rank was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from monai_memo.__main__ import main
from monai_memo.audit.run import resolve_device
from monai_memo.workspace.team import Team

ROOT = Path(__file__).resolve().parents[2]
# What the ranks run in place of the command: the same, with something that happens to rank 1 in the first attempt.
SCRIPT = """
import os, signal, sys
from monai_memo.__main__ import main
from monai_memo.errors import CohortError
from monai_memo.search import copy_search
from monai_memo.search.copy_search import CopySearch

rank, attempt, what = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"]), sys.argv.pop(1)
copy_search.SAVE_EVERY = 1
blocks, original = [], CopySearch._block

def block(self, queries, *further):
    blocks.append(len(queries))
    if rank == 1 and attempt == 0 and len(blocks) == 2:
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise CohortError("rank 1 has had enough", "enough")
    return original(self, queries, *further)

CopySearch._block = block
try:
    main(sys.argv[1:])
finally:
    sys.stderr.write(f"RANK {rank} ATTEMPT {attempt} QUERIES {sum(blocks)}\\n")
"""


def options(folder: Path, detector: Path, out: Path) -> dict[str, Any]:
    return {
        "train": folder / "training",
        "heldout": folder / "heldout",
        "synthetic": folder / "synthetic",
        "detector": detector,
        "out": out,
        "n_bootstrap": 100,
        "planted": 20,
        "limit_copies": 2,
        "gallery": 2,
        "progress": False,  # nor a forecast, whose look-ups would be counted
        "patient_pattern": r"patient_\d+",
    }


def words(values: dict[str, Any]) -> list[str]:
    return [str(word) for name, value in values.items() for word in (f"--{name}", value)]


def torchrun(*command: str | Path, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            *(f"--max_restarts={restarts}", *map(str, command)),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "audit.json").read_text())
    found.pop("timing")
    found["configuration"].pop("out")
    return found


@pytest.fixture(scope="module")
def alone(demo_folder: Path, detector_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of one process."""
    out = tmp_path_factory.mktemp("alone") / "audit"
    with pytest.raises(SystemExit) as left:
        main(["audit", *words(options(demo_folder, detector_file, out))])
    assert left.value.code == 0
    return out


def test_two_ranks_write_the_record_of_one_also_after_one_was_killed(
    demo_folder: Path, detector_file: Path, alone: Path, tmp_path: Path
) -> None:
    (tmp_path / "ranks.py").write_text(SCRIPT)
    values = words(options(demo_folder, detector_file, tmp_path / "audit"))
    done = torchrun(tmp_path / "ranks.py", "kill", "audit", *values, restarts=1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert record(tmp_path / "audit") == record(alone)
    assert (tmp_path / "audit" / "matches.csv").read_bytes() == (alone / "matches.csv").read_bytes()
    assert not (tmp_path / "audit" / ".monai_memo_work").exists()
    assert done.stdout.count("N_copies") == 1, "rank 0 alone speaks"
    told = [line.split() for line in done.stderr.splitlines() if line.startswith("RANK")]
    queries = {int(line[1]): int(line[5]) for line in told if line[3] == "1"}
    # 40 held-out and 30 synthetic images, these twice more for the reference control (among both kinds of patients and
    # among unseen ones), 20 copies of the positive control, 2 of each strength; without what was kept.
    limit = json.loads((alone / "audit.json").read_text())["detection_limit"]["limits"]
    strengths = sum(len(kind["found"]) for kind in limit)
    assert set(queries) == {0, 1} and min(queries.values()) > 0
    assert sum(queries.values()) < 40 + 3 * 30 + 20 + 2 * strengths


@pytest.mark.slow
def test_an_error_of_one_rank_ends_both_with_one_message(
    demo_folder: Path, detector_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "ranks.py").write_text(SCRIPT)
    values = words(options(demo_folder, detector_file, tmp_path / "audit"))
    done = torchrun(tmp_path / "ranks.py", "fail", "audit", *values)
    assert done.returncode == 1  # torchrun has no other
    lines = [line for line in done.stderr.splitlines() if "had enough" in line]
    assert lines == ["monai-memo: rank 1 of 2: rank 1 has had enough"]
    assert done.stderr.count("exitcode  : 2 ") >= 1 and "exitcode  : 1 " not in done.stderr
    assert not (tmp_path / "audit" / "audit.json").exists()


@pytest.mark.slow
def test_the_bundle_audits_on_two_ranks(demo_folder: Path, detector_file: Path, alone: Path, tmp_path: Path) -> None:
    configs = ROOT / "bundles" / "memorization_detection" / "configs"
    values = {
        "bundle_root": ROOT / "bundles" / "memorization_detection",
        "train_dir": demo_folder / "training",
        "heldout_dir": demo_folder / "heldout",
        "synthetic_dir": demo_folder / "synthetic",
        "output_dir": tmp_path / "audit",
        "detector": detector_file,
        "audit#n_bootstrap": 100,
        "audit#planted": 20,
        "audit#limit_copies": 0,
        "audit#gallery": 0,
        "patient_pattern": r"patient_\d+",
    }
    files = [str(configs / f"{name}.json") for name in ("inference", "multi_gpu_inference")]
    done = torchrun("-m", "monai.bundle", "run", f"--config_file={files}", *words(values))
    assert done.returncode == 0, done.stderr[-3000:]
    mine, others = record(tmp_path / "audit"), record(alone)
    differs = {name for name in others if mine[name] != others[name]}
    assert differs == {"configuration", "detection_limit"}  # which was left out to save time


def test_other_commands_are_refused_on_several_ranks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as left:
        main(["demo", "--out", str(tmp_path / "demo")])
    assert left.value.code == 2
    assert capsys.readouterr().err == "monai-memo: demo runs in one process: start it without torchrun\n"


def test_each_rank_of_a_machine_takes_its_own_card(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pair(Team):
        def __init__(self) -> None: ...

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for local, expected in ((0, "cuda:0"), (1, "cuda:1"), (2, "cuda:0")):
        monkeypatch.setenv("LOCAL_RANK", str(local))
        assert resolve_device("auto", Pair()) == resolve_device("cuda", Pair()) == expected
    assert resolve_device("cuda:1", Pair()) == "cuda:1" and resolve_device("cpu", Pair()) == "cpu"
    assert resolve_device("auto") == "cuda"

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Bundles and ready detectors by name."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from monai_memo.__main__ import main, settings_of
from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError, DetectorError, OutputError
from monai_memo.shipped import places
from monai_memo.shipped.content import READY
from monai_memo.shipped.places import bundle_names, constraints_file, copy_bundle, detector_place, ready_detectors

BUNDLES = Path(__file__).parents[2] / "bundles"


def test_ready_detectors_are_loaded_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert set(ready_detectors()) == {"chest_xray", "hippocampus_mri"}
    for name, path in ready_detectors().items():
        assert path.is_file()
        (tmp_path / name).mkdir()  # a folder of that name, of images say, is no detector
        for word in (name, name.upper(), name.replace("_", "-"), *READY[name].also):
            assert detector_place(word) == path
    assert Detector.load("chest_xray").preprocessing.size == (64, 64)
    assert Detector.given("hippocampus_mri").preprocessing.spatial_dims == 3


def test_a_file_goes_before_a_name_and_paths_are_never_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path("models/chest_xray"), "./chest_xray", "chest_xray.pt"):
        assert detector_place(path) == Path(path)
    Path("chest_xray").write_bytes(b"mine")
    assert detector_place("chest_xray") == Path("chest_xray")


@pytest.mark.parametrize(
    ("load", "start"), [(Detector.load, "no detector file at chest_xay"), (Detector.given, "--detector chest_xay: no")]
)
def test_an_unknown_name_lists_the_names(load, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DetectorError, match=start) as caught:
        load("chest_xay")
    assert "Ready detectors: chest_xray, hippocampus_mri" in str(caught.value)
    assert caught.value.plain is not None and "chest_xay" not in caught.value.plain


@pytest.mark.parametrize(
    "words",
    [
        ["audit", "--train", "a", "--heldout", "b", "--synthetic", "c", "--detector"],
        ["evaluate", "--train", "a", "--negatives", "b", "--detector"],
        ["benchmark", "--train", "a", "--negatives", "b", "--detector"],
        ["train-detector", "--train", "a", "--start_from"],
    ],
)
def test_commands_refuse_an_unknown_name_before_any_work(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        (tmp_path / name).mkdir()
    with pytest.raises(SystemExit, match="2"):
        main([*words, "chest", "--out", "out"])
    assert "Ready detectors: chest_xray, hippocampus_mri" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_bundle_is_copied_whole_without_what_runs_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "shipped"
    for name in ("configs/metadata.json", "docs/README.md", "models/model.pt", "models/training.csv", "eval/a.png"):
        (shipped / "chest_xray_ldm" / name).parent.mkdir(parents=True, exist_ok=True)
        (shipped / "chest_xray_ldm" / name).write_text("{}")
        (shipped / "chest_xray_ldm" / name).chmod(0o444)
    monkeypatch.setattr(places, "HERE", tmp_path)
    monkeypatch.setattr(places, "CHECKOUT", tmp_path / "none")
    shipped.rename(tmp_path / "bundles")
    target = copy_bundle("chest-xray-ldm", tmp_path / "new" / "place")
    assert target == tmp_path / "new" / "place" / "chest_xray_ldm"
    copied = [path for path in target.rglob("*") if path.is_file()]
    assert sorted(path.name for path in copied) == ["README.md", "metadata.json"]
    assert all(path.stat().st_mode & stat.S_IWUSR for path in copied), "a copy is there to be changed"
    assert [path.name for path in target.parent.iterdir()] == ["chest_xray_ldm"]
    (target / "docs" / "README.md").write_text("mine")
    with pytest.raises(OutputError, match="is there already"):
        copy_bundle("chest_xray_ldm", target.parent)
    assert (target / "docs" / "README.md").read_text() == "mine"
    with pytest.raises(ConfigurationError, match="Bundles: chest_xray_ldm"):
        copy_bundle("../secrets", tmp_path)


def test_an_installation_without_bundles_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "HERE", tmp_path)
    monkeypatch.setattr(places, "CHECKOUT", tmp_path)
    with pytest.raises(ConfigurationError, match="has no bundles"):
        bundle_names()


def test_constraints_are_found() -> None:
    assert "torch==" in constraints_file("constraints-label.txt").read_text()
    with pytest.raises(ConfigurationError, match=r"constraints\.txt, constraints-label\.txt"):
        constraints_file("../setup.cfg")


def test_the_command_line_lists_and_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["bundles"], "chest_xray_ldm "),
        (["bundles", "list"], "hippocampus_mri "),
        (["bundles", "copy", "memorization_detection", str(tmp_path)], str(tmp_path / "memorization_detection")),
    ):
        with pytest.raises(SystemExit, match="0"):
            main(words)
        assert told in capsys.readouterr().out
    assert (tmp_path / "memorization_detection" / "models" / "chest_xray_64.pt").stat().st_size > 1e6


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["bundles", "copy"], "missing name, dir"),
        (["bundles", "copy", "chest_xray_ldm"], "missing dir"),
        (["bundles", "copy", "a", "b", "c"], "'c' is one word too many"),
        (["bundles", "move"], "Known: bundles list, bundles copy NAME DIR"),
        (["bundles", "list", "--verbose"], "unknown option"),
    ],
)
def test_wrong_words_are_named(words: list[str], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_of(words)
    assert told in str(caught.value)


@pytest.mark.parametrize("words", [["n", "d"], ["n", "--dir=d"], ["--name", "n", "d"], ["--dir", "d", "--name", "n"]])
def test_options_may_stand_for_words(words: list[str]) -> None:
    asked = settings_of(["bundles", "copy", *words])
    assert not isinstance(asked, str) and asked[1].given() == {"name": "n", "dir": "d"}

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import shutil
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from PIL import Image

from monai_memo.audit.audit import Audit
from monai_memo.data.reading import read_image
from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError, MemoError, OutputError
from monai_memo.files import sha256_of, write_json
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.label.prepare import FINAL, prepare_review
from monai_memo.label.ratings import Entry
from monai_memo.release.command import release as release_command
from monai_memo.release.looks import OTHER_VIEWS, Look
from monai_memo.release.progressed import Progressed
from monai_memo.release.release import Release
from monai_memo.release.rules import COPY, RATED, Row, Rule, choose
from monai_memo.release.settings import ReleaseSettings
from monai_memo.release.statement import Released, statement_of
from monai_memo.statistics.copies_left import copies_left
from monai_memo.workspace import output_folder, transaction
from monai_memo.workspace.place import WORK
from monai_memo.workspace.working_folder import JOURNAL
from tests.audit.small import settings
from tests.release.conftest import COPIES, options

NOON = "2026-11-27T12:00:00+00:00"


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def done(clinic: Path) -> Released:
    return Release(**options(clinic, clinic / "given")).run()


def test_copies_are_left_out_and_the_others_come_with_equal_pixels(clinic: Path, done: Released) -> None:
    key = table(done.private / "key.csv")
    assert len(key) == done.statement.released == len(list((done.out / "images").iterdir()))
    names = {row["synthetic"] for row in key}
    assert not any(name.startswith("copy") for name in names)
    for row in key:
        released = done.out / row["released"]
        assert sha256_of(released) == row["sha256"] == done.record["files"][row["released"]]
        assert np.array_equal(read_image(released).array, read_image(clinic / "synthetic" / row["synthetic"]).array)
        assert Image.open(released).info == {}


def test_every_image_that_was_audited_is_released_or_removed_with_a_reason(clinic: Path, done: Released) -> None:
    removed = table(done.private / "removed.csv")
    copies = {row["synthetic"] for row in table(clinic / "audit" / "matches.csv") if row["copy"] == "true"}
    assert {row["synthetic"] for row in removed if row["reason"] == COPY} == copies
    assert len(copies) >= COPIES
    assert len(removed) + done.statement.released == done.statement.audited == 25
    shown = {row["synthetic"]: row["patient"] for row in removed}
    assert shown["copy3.png"] == "train03.png"


def test_files_are_numbered_by_content_so_that_numbers_say_nothing_of_names(done: Released) -> None:
    key = table(done.private / "key.csv")
    assert [row["released"] for row in key] == [f"images/{number:04d}.png" for number in range(1, len(key) + 1)]
    assert [row["sha256"] for row in key] == sorted(row["sha256"] for row in key)


def test_the_manifest_has_the_hash_of_every_file_and_of_the_audit(clinic: Path, done: Released) -> None:
    record = json.loads((done.out / "release.json").read_text())
    inside = {path.relative_to(done.out).as_posix() for path in done.out.rglob("*") if path.is_file()}
    assert set(record["files"]) == inside - {"release.json", ".monai_memo.json"}
    assert all(sha256_of(done.out / name) == value for name, value in record["files"].items())
    assert record["audit_sha256"] == sha256_of(clinic / "audit" / "audit.json")
    assert record["detectors"]["first"] != record["detectors"]["second"]
    assert record["statement"]["released"] == done.statement.released


def test_the_bound_is_that_of_the_statistics(done: Released) -> None:
    left = done.statement.left
    assert left.planted == 60 and left.above >= COPIES and left.kept_above == 0
    bound = copies_left(left.above, left.found, left.planted)
    assert bound is not None and left.copies == min(bound, done.statement.released)
    text = (done.out / "RELEASE.md").read_text()
    assert f"at most **{left.copies} of these {done.statement.released} images" in text
    assert "This is not a determination of anonymity" in text
    assert "each step spends half" in text and "quarter of what the confidence" not in " ".join(text.split())


def test_the_control_of_the_second_look_went_through_the_same_filter(clinic: Path, done: Released) -> None:
    looks = done.statement.looks
    audit = json.loads((clinic / "audit" / "audit.json").read_text())
    above = sum(value > audit["tau"]["value"] for value in audit["distributions"]["heldout_to_training"])
    assert above > 0 and looks[0].heldout == 60 - above
    assert looks[0].images == 25 - sum(done.statement.removed.values())
    if len(looks) == 2:
        assert looks[1].images == looks[0].images - done.statement.removed_by_second
        assert looks[1].heldout < looks[0].heldout


def test_what_the_second_detector_calls_can_be_left_in(clinic: Path, tmp_path: Path) -> None:
    kept = Release(**options(clinic, tmp_path / "out", remove_second=False)).run()
    assert len(kept.statement.looks) == 1 and kept.statement.removed_by_second == 0
    assert kept.statement.released == 25 - sum(kept.statement.removed.values())
    look, text = kept.statement.looks[0], (kept.out / "RELEASE.md").read_text()
    said = f"What it called a copy is in `images/`**, {look.copies} as a whole and {look.in_part} in part"
    assert said in text if look.copies + look.in_part else "It called nothing." in text


def test_what_the_last_look_still_calls_is_said_in_words(
    done: Released, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, said = (done.out / "RELEASE.md").read_text(), done.statement
    still = said.looks[-1].copies + said.looks[-1].in_part
    assert ("The last look still calls" in text) == (said.removed_by_second > 0 and still > 0)
    for copies in (0, 2):
        looks = [*said.looks[:-1], replace(said.looks[-1], copies=copies, in_part=0)]
        monkeypatch.setattr(Release, "run", lambda _, looks=looks: replace(done, statement=replace(said, looks=looks)))
        monkeypatch.setattr(Release, "__init__", lambda _, **__: None)
        release_command()
        shown = capsys.readouterr().out
        assert ("still calls is among the images: 2 copies" in shown) == (copies == 2)
        assert "RELEASE.md, complete what says TO FILL IN" in shown


def test_without_a_second_look_the_release_says_so(clinic: Path, tmp_path: Path) -> None:
    plain = Release(**options(clinic, tmp_path / "out", second_look=False, second_detector=None)).run()
    assert not plain.statement.looks and not (plain.out / "report.html").exists()
    assert "None was made" in (plain.out / "RELEASE.md").read_text()


def test_the_bound_is_met_by_a_lower_threshold_or_the_release_is_refused(clinic: Path, tmp_path: Path) -> None:
    verified = settings(clinic, tmp_path / "audit", clinic / "detector.pt", allow_overlap=True, reference=False)
    Audit(**{**verified, "verification": True, "parts": False}).run()
    further = {"audit": str(tmp_path / "audit"), "second_look": False, "second_detector": None, "rule": "bound"}
    met = Release(**options(clinic, tmp_path / "met", at_most=0.5, **further)).run()
    assert met.statement.left.copies is not None and met.statement.threshold is not None
    assert 0 < met.statement.left.copies <= 0.5 * met.statement.released
    told = " ".join((met.out / "RELEASE.md").read_text().split())
    assert "lay above the lowered threshold" in told and "each of the four steps spends a quarter" in told
    key = {row["synthetic"]: float(row["similarity"]) for row in table(met.private / "key.csv")}
    assert max(key.values()) <= met.statement.threshold
    with pytest.raises(ConfigurationError, match=r"leaves at most 0\.01 % copies per released image: the bounds"):
        Release(**options(clinic, tmp_path / "not", at_most=0.0001, **further)).run()
    assert not (tmp_path / "not").exists()


def test_a_folder_with_anything_in_it_is_refused_before_any_work(clinic: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(OutputError, match=r"thesis\.txt"):
        Release(**options(clinic, tmp_path / "mine")).run()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    with pytest.raises(ConfigurationError, match="--synthetic"):
        Release(**options(clinic, clinic / "synthetic" / "out")).run()


def test_images_that_changed_since_the_audit_are_refused(clinic: Path, tmp_path: Path) -> None:
    shutil.copytree(clinic / "synthetic", tmp_path / "other")
    Image.fromarray(np.zeros((32, 32), dtype=np.uint8)).save(tmp_path / "other" / "synthetic00.png")
    with pytest.raises(ConfigurationError, match="the synthetic images are not those that were audited"):
        Release(**options(clinic, tmp_path / "out", synthetic=str(tmp_path / "other"))).run()


def test_the_audits_own_detector_is_no_second_one(clinic: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is the detector of the audit"):
        Release(**options(clinic, tmp_path / "out", second_detector=str(clinic / "audit" / "detector.pt"))).run()
    first = Detector.load(clinic / "audit" / "detector.pt")
    for number, began in enumerate(({"started_from": first.sha256}, {"fine_tuned": {"from": first.sha256}})):
        second = Detector.load(clinic / "second.pt")
        second.training_summary.update(began)
        path = second.save(tmp_path / f"{number}.pt")
        with pytest.raises(ConfigurationError, match="and the audit's detector began as the same network"):
            Release(**options(clinic, tmp_path / "out", second_detector=str(path))).run()


def test_a_redacted_audit_cannot_be_released_from(clinic: Path, tmp_path: Path) -> None:
    given = settings(clinic, tmp_path / "audit", clinic / "detector.pt", allow_overlap=True, redacted=True)
    Audit(**given).run()
    with pytest.raises(ConfigurationError, match="was made with --redacted"):
        Release(**options(clinic, tmp_path / "out", audit=str(tmp_path / "audit")))


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"rule": "bound"}, "rule bound and at_most belong together"),
        ({"at_most": 0.1}, "rule bound and at_most belong together"),
        ({"second_look": False}, "of no use without the second look"),
        ({"second_epochs": 3}, "leave one off"),
        ({"top_up_to": 30}, "top_up_to needs something to draw from"),
        ({"generator": "bundle"}, "generator is for top_up_to"),
        ({"top_up_to": 30, "generator": "bundle"}, "is no generator bundle"),
    ],
)
def test_options_that_contradict_one_another_are_refused(
    clinic: Path, tmp_path: Path, further: dict[str, object], message: str
) -> None:
    with pytest.raises(MemoError, match=message):
        Release(**options(clinic, tmp_path / "out", **further))


def test_raters_decide_over_the_rule(clinic: Path, tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    shutil.copytree(clinic / "audit", audit)
    study = prepare_review(str(audit), n=25, n_uncertain=0, progress=False)
    by_name = {pair.synthetic: pair for pair in study.pairs}
    copy = by_name["copy0.png"]
    novel = next(pair for pair in study.pairs if not pair.copy)
    (audit / FINAL).parent.mkdir(parents=True, exist_ok=True)
    for pair, given in ((copy, ("novel", "unsure")), (novel, ("novel", "same_patient"))):
        entries = [Entry(rating, f"rater{number}", NOON) for number, rating in enumerate(given)]
        place = AuditFolder(audit).review / FINAL / f"{pair.pair_id}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps([asdict(entry) for entry in entries]))
    quick = {"audit": str(audit), "second_look": False, "second_detector": None}
    always = Release(**options(clinic, tmp_path / "always", **quick)).run()
    reasons = {row["synthetic"]: row["reason"] for row in table(always.private / "removed.csv")}
    assert reasons["copy0.png"] == COPY and reasons[novel.synthetic] == RATED
    asked = Release(**options(clinic, tmp_path / "asked", keep_novel=True, **quick)).run()
    assert "copy0.png" in {row["synthetic"] for row in table(asked.private / "key.csv")}
    assert asked.statement.spared == asked.statement.left.kept_above == 1
    assert always.statement.left.kept_above == 0
    assert "taken into account; 1 stay" in (asked.out / "RELEASE.md").read_text()
    prepare_review(str(audit), n=25, n_uncertain=0, progress=False, restart=True)
    later = Release(**options(clinic, tmp_path / "later", keep_novel=True, **quick)).run()
    reasons = {row["synthetic"]: row["reason"] for row in table(later.private / "removed.csv")}
    assert reasons[novel.synthetic] == RATED and "copy0.png" in reasons, "earlier ratings hold back and free nothing"
    (audit / "review.old" / "study.json").unlink()
    with pytest.raises(ConfigurationError, match=r"review\.old holds ratings and no study\.json"):
        Release(**options(clinic, tmp_path / "lost", **quick)).run()
    assert not (tmp_path / "lost").exists()


def test_the_tables_of_the_statement_and_the_card_are_whole(done: Released) -> None:
    """Markdown ends a table at an empty line or at a row with other cells."""
    for name in ("RELEASE.md", "card.md"):
        text = (done.out / name).read_text()
        lines = text.splitlines()
        widths = [line.count("|") if line.startswith("|") else 0 for line in lines]
        assert all(one == two for one, two in pairwise(widths) if one and two), name
        assert all(line.endswith("|") for line in lines if line.startswith("|")), name
        assert "Singling out by a part of an image" in text and "Linkability" in text
        assert "None" not in text and "went through the same" in text.replace("\n", " ")


def test_a_second_detector_that_calls_everything_leaves_nothing_to_release(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def called(look: Look) -> dict[str, str]:
        return {match.synthetic: match.nearest_patient for match in look.result.matches}

    monkeypatch.setattr(Look, "called", called)
    with pytest.raises(MemoError, match="nothing is left to release: the second detector calls all"):
        Release(**options(clinic, tmp_path / "out")).run()
    assert not (tmp_path / "out").exists()


def test_a_second_detector_is_trained_with_another_seed_and_other_views(clinic: Path, tmp_path: Path) -> None:
    done = Release(**options(clinic, tmp_path / "out", second_detector=None, second_epochs=1)).run()
    second = Detector.load(done.private / "second_detector.pt")
    assert second.recipe.views == OTHER_VIEWS and second.recipe.epochs == 1 and second.seed == 1
    assert second.sha256 == done.record["detectors"]["second"]
    assert tuple(second.preprocessing.size) == (32, 32)
    again = options(clinic, tmp_path / "again", second_detector=str(done.private / "second_detector.pt"), seed=1)
    assert Release(**again).run().record["statement"]["looks"] == done.record["statement"]["looks"]


def test_a_release_that_was_interrupted_goes_on_and_gives_the_same_files(
    clinic: Path, done: Released, tmp_path: Path
) -> None:
    given = options(clinic, tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transaction, "move_all", _interrupted)
        patch.setattr(output_folder, "move_all", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            Release(**given).run()
    assert not (tmp_path / "out" / "images").exists() and not (tmp_path / "out.private" / "key.csv").exists()
    assert (tmp_path / "out.private" / ".monai_memo_work" / "looks" / "second").is_dir()
    again = Release(**given).run()
    images = {name: value for name, value in done.record["files"].items() if name.startswith("images/")}
    assert {name: value for name, value in again.record["files"].items() if name.startswith("images/")} == images
    assert {path.name for path in again.private.iterdir()} == {
        "key.csv", "removed.csv", "second_detector.pt", ".monai_memo.json",
    }  # fmt: skip


def test_a_release_that_was_killed_between_two_renames_goes_on(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = options(clinic, tmp_path / "out", second_look=False, second_detector=None)
    real = output_folder.move_all

    def killed(out: Path, moves: transaction.Moves) -> None:
        if out != tmp_path / "out":
            return real(out, moves)
        write_json(out / WORK / JOURNAL, {"moves": [list(move) for move in moves], "made": ["images"]})
        (out / "images").mkdir()
        for source, target in moves[:3]:
            (out / source).rename(out / target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(output_folder, "move_all", killed)
        Release(**given).run()
    assert len([path for path in (tmp_path / "out").rglob("*.*") if path.is_file()]) > 3
    done = Release(**given).run()
    assert len(list((done.out / "images").iterdir())) == done.statement.released
    assert not (done.out / WORK).exists() and (done.private / "key.csv").is_file()


def test_the_key_of_an_earlier_release_is_never_written_over(clinic: Path, tmp_path: Path) -> None:
    given = options(clinic, tmp_path / "out", second_look=False, second_detector=None)
    key = Release(**given).run().private / "key.csv"
    (tmp_path / "out").rename(tmp_path / "given_away")
    content = key.read_bytes()
    with pytest.raises(OutputError, match="is the key of an earlier release"):
        Release(**given).run()
    assert key.read_bytes() == content and not (tmp_path / "out").exists()


def test_the_bound_that_was_asked_for_is_still_met_at_the_end_or_nothing_is_released(
    clinic: Path, done: Released, tmp_path: Path
) -> None:
    """Images that the second look, or an unreadable file, takes away leave fewer to share the bound."""
    release = Release(**options(clinic, tmp_path / "out", rule="bound", at_most=0.5))
    said = replace(done.statement, left=replace(done.statement.left, copies=2))
    release._require_bound(replace(said, released=4))
    with pytest.raises(ConfigurationError, match=r"3 images are left, of which at most 66\.67 % can be copies"):
        release._require_bound(replace(said, released=3))


def test_what_raters_keep_above_a_lowered_threshold_counts_as_a_copy_left(clinic: Path, done: Released) -> None:
    rows = [Row(f"{n}.png", "anna", 0.5 + 0.01 * n, copy=n > 40, listed=False) for n in range(45)]
    sims = SimpleNamespace(heldout_to_training=np.full(50, 0.6))
    first = SimpleNamespace(
        tau=0.9, planted=np.full(60, 0.95),
        searched=SimpleNamespace(comparison=SimpleNamespace(sims=sims)), result=SimpleNamespace(sensitivity=None),
    )  # fmt: skip
    choice = choose(rows, Rule("bound", threshold=0.6, keep_novel=True), {"30.png": "novel", "42.png": "novel"})
    assert list(choice.spared) == ["30.png", "42.png"]
    audit = AuditFolder(clinic / "audit")
    made = ReleaseSettings(audit="a", out="b", rule="bound", at_most=0.5, keep_novel=True)
    said = statement_of(made, audit, cast(Look, first), rows, Progressed(choice, list(choice.kept)), 0.6, True)
    assert said.left.kept_above == 2


def test_training_images_that_were_not_read_are_told(clinic: Path, tmp_path: Path) -> None:
    train = tmp_path / "train"
    shutil.copytree(clinic / "train", train)
    (train / "broken.png").write_bytes(b"\x89PNG no")
    given = settings(clinic, tmp_path / "audit", clinic / "detector.pt", allow_overlap=True)
    Audit(**{**given, "train": str(train)}).run()
    quick = {"audit": str(tmp_path / "audit"), "second_look": False, "second_detector": None}
    done = Release(**options(clinic, tmp_path / "out", **quick)).run()
    text = (done.out / "RELEASE.md").read_text()
    assert "| Training images that could not be read | 1: nothing was compared with them" in text


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt

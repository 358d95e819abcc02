# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import monai_memo
from monai_memo.errors import ConfigurationError, MemoError, OutputError
from monai_memo.workspace import transaction
from monai_memo.workspace.locking import hold
from monai_memo.workspace.manifest import MANIFEST, read_manifest
from monai_memo.workspace.output_folder import OutputFolder
from monai_memo.workspace.place import WORK, check_images, check_place
from monai_memo.workspace.transaction import require_settled
from monai_memo.workspace.working_folder import PARTS

NEW = {"audit.json": "new record", "report.html": "new report", "figures/a.png": "new a", "figures/c.png": "new c"}
OLD = {"audit.json": "old record", "report.html": "old report", "figures/a.png": "old a", "figures/b.png": "old b"}
USERS = {"notes.txt": "mine", "work/thesis.txt": "mine too", "figures/mine.png": "and this"}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    """Visible files, without our own list and lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in (WORK, MANIFEST, ".monai_memo.lock")
    }


def run(out: Path, files: dict[str, str], command: str = "audit", **options: bool) -> list[str]:
    with OutputFolder(out, command, writes=list(files), **options) as output:
        write(output.staging(), files)
        moved = output.publish()
        output.clear()
    return moved


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An earlier result, and files of the user."""
    run(tmp_path / "out", OLD)
    write(tmp_path / "out", USERS)
    return tmp_path / "out"


def test_a_new_result_replaces_the_old_one_and_nothing_of_the_user(out: Path) -> None:
    moved = run(out, NEW)
    found = content(out)
    assert moved == ["figures/b.png"]
    (aside,) = [name for name in found if name.startswith("earlier/") and name.endswith("figures/b.png")]
    assert found.pop(aside) == "old b"
    assert {name: text for name, text in found.items() if not name.startswith("earlier/")} == {**NEW, **USERS}
    assert not (out / WORK).exists() and not (out / ".monai_memo.lock").exists()
    assert set(read_manifest(out)["audit"].files) == set(NEW)


def test_a_file_that_the_user_has_changed_is_moved_and_not_replaced(out: Path) -> None:
    (out / "report.html").write_text("with my remarks")
    assert run(out, NEW) == ["figures/b.png", "report.html"]
    (kept,) = (out / "earlier").glob("*/report.html")
    assert kept.read_text() == "with my remarks" and (out / "report.html").read_text() == "new report"


def test_a_file_of_the_user_that_is_in_the_way_is_moved(tmp_path: Path) -> None:
    write(tmp_path, {"report.html": "of my thesis"})
    assert run(tmp_path, NEW) == ["report.html"]
    (kept,) = (tmp_path / "earlier").glob("*/report.html")
    assert kept.read_text() == "of my thesis"
    assert run(tmp_path, NEW) == []


def test_a_link_in_the_way_keeps_what_it_points_to(out: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.html").write_text("elsewhere")
    (out / "report.html").unlink()
    (out / "report.html").symlink_to(tmp_path / "elsewhere.html")
    assert "report.html" in run(out, NEW)
    assert (tmp_path / "elsewhere.html").read_text() == "elsewhere"
    assert not (out / "report.html").is_symlink() and (out / "report.html").read_text() == "new report"


@pytest.mark.parametrize("kind", ["report.html is a folder", "figures is a link", "figures is a file"])
def test_what_cannot_be_replaced_is_refused_before_the_work(out: Path, tmp_path: Path, kind: str) -> None:
    if kind.startswith("report"):
        (out / "report.html").unlink()
        (out / "report.html").mkdir()
        (out / "report.html" / "chapter.txt").write_text("mine")
    else:
        (out / "figures").rename(tmp_path / "figures")
        if kind.endswith("link"):
            (out / "figures").symlink_to(tmp_path / "figures")
        else:
            (out / "figures").write_text("mine")
    before = content(out)
    with pytest.raises(OutputError, match=rf"{kind}.*Nothing was changed"), OutputFolder(out, "audit", writes=[*NEW]):
        raise AssertionError("no work may be done")
    assert content(out) == before and not (out / WORK).exists()


def fail_at(number: int, act: Callable[[], None], and_later: bool) -> Callable[..., None]:
    real, calls = os.replace, [0]

    def replace(source: object, target: object) -> None:
        calls[0] += 1
        if calls[0] == number or (and_later and calls[0] > number):
            act()
        real(source, target)  # type: ignore[call-overload]

    return replace


def full() -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("and_later", [False, True], ids=["once", "from then on"])
def test_whichever_rename_fails_the_old_result_is_whole(
    out: Path, monkeypatch: pytest.MonkeyPatch, and_later: bool
) -> None:
    before, failed = content(out), 0
    for number in range(1, 60):
        with OutputFolder(out, "audit", writes=[*NEW]) as output:
            write(output.staging(), NEW)
            with monkeypatch.context() as patch:
                patch.setattr(os, "replace", fail_at(number, full, and_later))
                try:
                    output.publish()
                except MemoError as error:
                    failed += 1
                    assert "No space left on device" in str(error) and "unchanged" in str(error), str(error)
                    assert content(out) == before, number
                    assert not (out / WORK / "journal.json").exists()
                else:
                    break
    assert failed > 2 * len(NEW)
    assert NEW.items() <= content(out).items() and USERS.items() <= content(out).items()


def test_a_kill_at_any_rename_leaves_the_old_or_the_new_result_after_the_next_start(out: Path) -> None:
    before, killed = content(out), 0
    for number in range(1, 60):
        child = os.fork()
        if child == 0:
            os.replace = fail_at(number, lambda: os._exit(9), False)  # type: ignore[assignment]
            run(out, NEW)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            break
        killed += 1
        half = (out / WORK / "journal.json").exists()
        if half:
            with pytest.raises(ConfigurationError, match="only half in place"):
                require_settled(out)
        with OutputFolder(out, "audit", writes=[*NEW]):
            assert content(out) == before, number
            require_settled(out)
    assert killed > 2 * len(NEW)
    assert NEW.items() <= content(out).items() and USERS.items() <= content(out).items()


def test_a_kill_while_it_is_undone_is_undone_the_next_time(out: Path) -> None:
    before = content(out)
    steps = 0
    for first in (6, 9, 12):  # of 12 renames
        for second in range(1, 20):
            child = os.fork()
            if child == 0:
                os.replace = fail_at(first, lambda: os._exit(9), False)  # type: ignore[assignment]
                run(out, NEW)
                os._exit(0)
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
                raise AssertionError(f"only {first} renames")
            child = os.fork()
            if child == 0:
                os.replace = fail_at(second, lambda: os._exit(9), False)  # type: ignore[assignment]
                transaction.recover(out)
                os._exit(0)
            done = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            steps += 1
            with OutputFolder(out, "audit"):
                assert content(out) == before, (first, second)
            if done:
                break
    assert steps > 9


def test_a_journal_that_names_other_places_is_not_followed(out: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("precious")
    with OutputFolder(out, "audit") as output:
        output.staging()
    (out / WORK / "journal.json").write_text(json.dumps({"moves": [["../lost.txt", "../precious.txt"]], "made": []}))
    with pytest.raises(OutputError, match="names places outside"), OutputFolder(out, "audit"):
        pass
    assert (tmp_path / "precious.txt").read_text() == "precious" and (out / WORK / "journal.json").exists()


@pytest.mark.parametrize("what", ["a folder without marker", "a link", "a file"])
def test_a_working_folder_that_is_not_ours_is_refused_and_stays(out: Path, tmp_path: Path, what: str) -> None:
    write(tmp_path / "elsewhere", {"pixels/theirs.txt": "theirs"})
    if what == "a link":
        (out / WORK).symlink_to(tmp_path / "elsewhere")
    elif what == "a file":
        (out / WORK).write_text("mine")
    else:
        write(out / WORK, {"pixels/theirs.txt": "theirs"})
    before = content(out)
    with pytest.raises(OutputError, match="not a working folder of monai_memo and is left as it is"):
        run(out, NEW)
    assert content(out) == before
    assert what != "a folder without marker" or (out / WORK / "pixels" / "theirs.txt").read_text() == "theirs"
    assert (tmp_path / "elsewhere" / "pixels" / "theirs.txt").exists()


def test_what_is_not_ours_in_our_working_folder_stays(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    with OutputFolder(out, "audit") as output:
        write(output.work, {"pixels/training.f16": "ours", "diary.txt": "theirs"})
    run(out, NEW)
    assert [path.name for path in (out / WORK).iterdir() if path.is_file()] == ["diary.txt", "owner.json"] or sorted(
        path.name for path in (out / WORK).iterdir()
    ) == ["diary.txt", "owner.json"]
    assert "1 things in .monai_memo_work are not ours" in caplog.text and "diary" not in caplog.text


def test_a_run_that_is_refused_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), OutputFolder(tmp_path / "new" / "out", "audit"):
        raise ZeroDivisionError
    assert not (tmp_path / "new" / "out").exists()


@pytest.mark.parametrize("out", ["", "  ", "/", "home", "~", "~/results", "~anna", "a\0b"])
def test_places_that_are_no_folder_for_results_are_refused(out: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        check_place(str(Path.home()) if out == "home" else out)


def test_the_current_folder_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(Path("."), NEW)
    assert content(tmp_path) == NEW
    with pytest.raises(ConfigurationError, match="lies in the folder of --train"):
        check_place(".", {"train": tmp_path})


def test_an_output_folder_in_a_cohort_is_refused_through_links(tmp_path: Path) -> None:
    (tmp_path / "images" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "images" / "deep")
    for out in ("images", "images/deep/out", "link", "link/new", "images/../images"):
        with pytest.raises(ConfigurationError, match=r"lies in the folder of --synthetic.*Name a folder outside of it"):
            check_place(tmp_path / out, {"train": None, "synthetic": tmp_path / "images"})
    check_place(tmp_path / "audit", {"synthetic": tmp_path / "images"})
    check_place(tmp_path, {"synthetic": tmp_path / "images"})  # images beside the result
    (tmp_path / "figures").mkdir()
    with pytest.raises(ConfigurationError, match="lies where results are written"):
        check_place(tmp_path, {"synthetic": tmp_path / "figures"})


def test_images_that_would_be_overwritten_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"figures/a.png": "x", "images/b.png": "x"})
    (tmp_path / "images" / "c.png").symlink_to(tmp_path / "figures" / "a.png")
    check_images(tmp_path, [tmp_path / "images" / "b.png"], NEW)
    for name in ("figures/a.png", "images/c.png"):
        with pytest.raises(ConfigurationError, match="lies where results are written"):
            check_images(tmp_path, [tmp_path / name], NEW)


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        ({"review.json": "x"}, "1 file"),
        ({"figures/mine.png": "x", "a.txt": "x"}, "2 files"),
        ({"review/datastore/1.png": "x", "review/study.json": "x"}, "2 files"),
        ({"hollow/": ""}, "1 file"),
        ({f"{WORK}/pixels/xyzzy": "x"}, "1 file"),
    ],
)
def test_a_redacted_result_goes_to_no_folder_with_anything_else(
    tmp_path: Path, there: dict[str, str], reason: str
) -> None:
    for name, text in there.items():
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        else:
            write(tmp_path, {name: text})
    if WORK in str(there):
        match = "not a working folder"
    else:
        match = rf"cannot go to .*{reason}.* that no redacted run wrote\. Name an empty folder"
    with pytest.raises(OutputError, match=match) as refused:
        run(tmp_path, NEW, redacted=True)
    assert refused.value.plain is not None and str(tmp_path) not in refused.value.plain
    assert all(Path(name).name not in refused.value.plain for name in there)


def test_redacted_follows_redacted_but_not_unredacted(out: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the unredacted result of monai-memo audit and 3 files"):
        run(out, NEW, redacted=True)
    assert run(tmp_path / "new", OLD, redacted=True) == []
    assert run(tmp_path / "new", NEW, redacted=True) == ["figures/b.png"]
    assert run(tmp_path / "new", OLD, redacted=True) == ["figures/c.png"]
    before = content(tmp_path / "new")
    for command, place in (("audit", "new"), ("inspect", "new"), ("evaluate", "new/figures"), ("study", "new/deep/er")):
        with pytest.raises(OutputError, match="the redacted result of monai-memo audit is there, which is handed on"):
            run(tmp_path / place, NEW, command)
    with pytest.raises(OutputError, match="the redacted result of monai-memo audit is there"):
        hold(tmp_path / "new" / "training", "training")
    assert content(tmp_path / "new") == before and not (tmp_path / "new" / "deep").exists()


def test_a_review_moves_away_with_its_audit(out: Path) -> None:
    write(out, {"review.json": "ratings", "review/study.json": "plan", "review/datastore/labels/final/1.json": "copy"})
    assert run(out, NEW) == ["figures/b.png", "review.json", "review"]
    (kept,) = (out / "earlier").glob("*/review/datastore/labels/final/1.json")
    assert kept.read_text() == "copy" and not (out / "review").exists()
    write(out, {"review/poem.txt": "of the user"})
    assert run(out, NEW) == [] and (out / "review" / "poem.txt").exists()


def test_results_of_two_commands_live_together(out: Path) -> None:
    run(out, {"evaluation.json": "x"}, "evaluate")
    assert {**OLD, "evaluation.json": "x"}.items() <= content(out).items()
    run(out, NEW)
    assert (out / "evaluation.json").read_text() == "x" and set(read_manifest(out)) == {"audit", "evaluate"}
    before = content(out)
    with pytest.raises(OutputError, match=r"report\.html there belongs to the result of monai-memo audit"):
        run(out, {"report.html": "of another command"}, "evaluate")
    assert content(out) == before


def test_what_was_looked_at_and_cards_move_away_with_their_audit(out: Path) -> None:
    run(out, {"inspection.html": "faces", "contact_sheet.png": "more of them"}, "inspect")
    write(out, {"card.md": "# Memorization card: 1\n\nfilled in", "notes.md": "# Notes"})
    moved = run(out, NEW)
    assert set(moved) == {"figures/b.png", "inspection.html", "contact_sheet.png", "card.md"}
    (earlier,) = (out / "earlier").iterdir()
    assert content(earlier) == {
        "figures/b.png": "old b", "inspection.html": "faces", "contact_sheet.png": "more of them",
        "card.md": "# Memorization card: 1\n\nfilled in",
    }  # fmt: skip
    assert (out / "notes.md").exists() and set(read_manifest(out)) == {"audit"}


def test_what_is_moved_away_is_told_with_the_reason(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    (out / "report.html").write_text("with my remarks")
    run(out, NEW)
    assert "since the new result does not hold them: figures/b.png" in caplog.text
    assert "since they were not written by monai-memo or have been changed: report.html" in caplog.text


def test_all_that_commands_put_into_their_working_folder_is_removed_at_the_end() -> None:
    """Pixels of patients lie there: a name that is not on the list would stay behind, for somebody else's."""
    named = {
        (path.name, name)
        for path in Path(monai_memo.__file__).parent.rglob("*.py")
        for name in re.findall(r'\bwork / "(\w+)"', path.read_text(encoding="utf-8"))
    }
    assert len(named) > 10 and {name for _, name in named} <= set(PARTS), named

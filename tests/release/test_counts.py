# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Every number of a statement against the files: whatever is drawn and whatever a second detector calls."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_memo.data.phantoms import chest_phantom
from monai_memo.files import sha256_of
from monai_memo.release.command import release as release_command
from monai_memo.release.looks import Look
from monai_memo.release.release import Release
from monai_memo.release.rules import SECOND
from monai_memo.release.statement import Released
from monai_memo.release.topping import DRAWN_AGAIN, DRAWN_COPY, DRAWN_OTHER, DRAWN_SURPLUS
from monai_memo.statistics.copies_left import copies_left
from tests.audit.small import SIZE
from tests.release.conftest import options


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


class Anything:
    """A generator of copies, new images, repeats, empty ones and ones of another size, as a seed decides."""

    def __init__(self, clinic: Path, seed: int) -> None:
        self.training = [np.asarray(Image.open(path)) / 255 for path in sorted((clinic / "train").iterdir())]
        self.rng = np.random.default_rng(seed)
        self.shares = self.rng.dirichlet([4, 20, 2, 1, 1])
        self.drawn = 0

    def __call__(self, seeds: Sequence[int]) -> list[np.ndarray]:
        self.drawn += len(seeds)
        made: list[np.ndarray] = []
        for seed, kind in zip(seeds, self.rng.choice(5, len(seeds), p=self.shares), strict=True):
            image = chest_phantom(5000 + seed, SIZE)
            copy = self.training[seed % len(self.training)][None]
            made.append([copy, image, chest_phantom(5000, SIZE), np.full_like(image, np.nan), image[:, :20]][kind])
        return made


def require_counts(done: Released) -> None:
    """What is said, in whatever place, is what lies there."""
    said, drawn = done.statement, done.statement.drawn
    key, removed = table(done.private / "key.csv"), table(done.private / "removed.csv")
    files = sorted(path.name for path in (done.out / "images").iterdir())
    record = json.loads((done.out / "release.json").read_text())
    listed = [name.removeprefix("images/") for name in record["files"] if name.startswith("images/")]
    assert files == sorted(listed) == sorted(row["released"].removeprefix("images/") for row in key)
    assert len({sha256_of(done.out / "images" / name) for name in files}) == len(files), "nothing is released twice"
    assert said.released == len(files) == record["statement"]["released"]

    names = [row["synthetic"] for row in (*key, *removed)]
    assert len(set(names)) == len(names), "released or removed, once"
    further = [name for name in names if name.startswith("drawn/")]
    assert len(names) - len(further) == said.audited
    reasons = Counter(row["reason"] for row in removed)
    for reason, number in said.reasons().items():
        assert reasons[reason] == number, reason
    if drawn is not None:
        assert drawn["drawn"] == len(further) == sum(number for name, number in drawn.items() if name != "drawn")
        assert drawn["released"] == sum(row["synthetic"].startswith("drawn/") for row in key)
        assert drawn["copies"] == reasons[DRAWN_COPY] and drawn["surplus"] == reasons[DRAWN_SURPLUS]
        assert drawn["others"] == reasons[DRAWN_OTHER] + reasons[DRAWN_AGAIN]
        assert said.asked is not None and said.released <= said.asked

    left, above = said.left, sum(said.removed.values()) + reasons[DRAWN_COPY]
    bound = copies_left(above, left.found, left.planted)
    assert left.above == above and left.kept_above == 0 and bound is not None
    assert left.copies == min(bound, said.released)
    text, card = (done.out / "RELEASE.md").read_text(), (done.out / "card.md").read_text()
    assert f"at most **{left.copies} of these {said.released} images" in text
    assert f"at most {left.copies} of {said.released} images" in text
    assert f"| What was released | {said.released} synthetic images" in card
    for name, page in (("RELEASE.md", text), ("card.md", card)):
        singling = next(line for line in page.splitlines() if line.startswith("| Singling out: an image"))
        assert singling.endswith(f"| {said.residual} |"), f"one word on what is left, in {name} too"
    last = json.loads((done.out / "second_look.json").read_text())
    assert said.looks[-1].images == last["n_synthetic"] == said.released, "the last look is at what is released"
    assert f"more than chance among {said.released} released images" in text


@pytest.mark.parametrize("seed", range(4))
def test_every_number_of_a_topped_up_release_is_that_of_its_files(
    clinic: Path, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    share, calls = rng.choice([0.0, 0.05, 0.3]), []

    def called(look: Look) -> dict[str, str]:
        patients = {match.synthetic: match.nearest_patient for match in look.result.matches}
        calls.append([name for name in patients if not calls and rng.random() < share])
        return {name: patients[name] for name in calls[-1]}

    monkeypatch.setattr(Look, "called", called)
    draw = Anything(clinic, seed)
    done = Release(draw, **options(clinic, tmp_path / "out", top_up_to=int(rng.integers(24, 50)))).run()
    require_counts(done)
    drawn = done.statement.drawn
    assert drawn is not None and drawn["drawn"] == draw.drawn
    assert done.statement.removed_by_second == len(calls[0]) == done.statement.reasons().get(SECOND, 0)


def test_every_number_of_a_release_without_further_images_is_that_of_its_files(clinic: Path, tmp_path: Path) -> None:
    require_counts(Release(**options(clinic, tmp_path / "out")).run())


def test_a_release_that_is_smaller_than_was_asked_for_says_so(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def called(look: Look) -> dict[str, str]:
        matches = look.result.matches
        return {} if len(matches) < 33 else {one.synthetic: one.nearest_patient for one in matches[:10]}

    monkeypatch.setattr(Look, "called", called)
    made = Release(Anything(clinic, 1), **options(clinic, tmp_path / "out", top_up_to=30)).run()
    assert made.statement.released == 33 - 10
    assert "30 images were asked for in all, fewer are left" in (made.out / "RELEASE.md").read_text()
    monkeypatch.setattr(Release, "run", lambda _: made)
    monkeypatch.setattr(Release, "__init__", lambda _, **__: None)
    release_command()
    shown = capsys.readouterr().out
    assert "warning: 30 images were asked for and 23 are left" in shown
    kept = made.statement.released - made.statement.drawn["released"]
    assert f"released  {kept} of 25 images and {23 - kept} that were drawn further" in shown

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What the page says of a second window and of damaged files, and that the rater goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai_memo.label.prepare import FINAL, IMAGES
from tests.label.browser.test_viewer import opened
from tests.label.browsing import press, severe, shown_pair, text, visible, wait
from tests.label.conftest import Served

Shot = Callable[[str], None]


def test_what_another_window_rated_stays_and_the_rater_is_told(browser: Any, pictures: Served, shot: Shot) -> None:
    first = opened(browser, pictures)
    assert pictures.rate(first, "novel", "Paula")[0] == 200  # the other window
    press(browser, "1")
    second = wait(browser, lambda: (pair := shown_pair(browser)) not in (None, first) and pair)
    shot("second_window")
    said = "The pair before this one: paula has rated this pair already, perhaps in another window"
    wait(browser, lambda: text(browser, "error").startswith(said))
    assert [entry.rating for entry in pictures.store.entries(first)] == ["novel"]
    press(browser, "3")
    third = wait(browser, lambda: (pair := shown_pair(browser)) not in (None, second) and pair)
    assert not visible(browser, "error") and text(browser, "count") == "2 of 6 rated"
    assert pictures.rate(second, "undo", "paula")[0] == 200  # there it is taken back and rated anew
    assert pictures.rate(second, "copy", "paula")[0] == 200
    press(browser, "u")
    wait(browser, lambda: visible(browser, "error") and shown_pair(browser) == third)
    wait(browser, lambda: "rated anew meanwhile" in text(browser, "error"))
    assert [entry.rating for entry in pictures.store.entries(second)] == ["novel", "undo", "copy"]
    press(browser, "u")  # now the page knows
    wait(browser, lambda: shown_pair(browser) == second)
    assert not visible(browser, "error") and len(pictures.store.entries(second)) == 4


def test_pairs_with_damaged_files_are_left_out_and_never_rated_unseen(
    browser: Any, pictures: Served, shot: Shot
) -> None:
    first = opened(browser, pictures)
    waiting = [pair for pair in pictures.store.waiting("paula", "blinded") if pair != first]
    (pictures.folder / FINAL / f"{first}.json").write_text("[{")
    press(browser, "1")
    second = wait(browser, lambda: (pair := shown_pair(browser)) not in (None, first) and pair)
    shot("damaged_ratings")
    wait(browser, lambda: "ratings of this pair is damaged" in text(browser, "error"))
    assert text(browser, "count") == "0 of 5 rated"
    assert visible(browser, "left-out") and text(browser, "left-out").startswith("1 pair is left out: files on the")
    # The images of the pair after the next, which the page has not fetched yet.
    third = waiting[waiting.index(second) + 2]
    (pictures.folder / IMAGES / f"{third}.gz").write_bytes(b"no images")
    press(browser, "3")
    wait(browser, lambda: text(browser, "count").startswith("1 of") and shown_pair(browser) not in (None, second))
    press(browser, "3")
    wait(browser, lambda: text(browser, "count").startswith("2 of") and shown_pair(browser) is not None)
    assert shown_pair(browser) not in (third, None) and text(browser, "left-out").startswith("2 pairs are left out")
    while not visible(browser, "done"):
        before = text(browser, "count")
        press(browser, "3")
        wait(browser, lambda before=before: text(browser, "count") != before and (
            visible(browser, "done") or shown_pair(browser) is not None))  # fmt: skip
    assert pictures.store.entries(third) == [] and "4 of 4 pairs" in text(browser, "done-text")
    assert (pictures.folder / FINAL / f"{first}.json").read_text() == "[{"
    assert all("500" in message for message in severe(browser)), "nothing but the refusals"

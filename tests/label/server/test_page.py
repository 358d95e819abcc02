# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The review page beside MONAI Label's API, in a real browser. What the viewer does: ``tests/label/browser``."""

from __future__ import annotations

from typing import Any

from monai_memo.label.prepare import FINAL
from monai_memo.label.ratings import all_ratings, standing
from monai_memo.label.study import Study
from tests.label.browsing import hosts_asked, open_page, press, severe, shown_pair, state, text, visible, wait
from tests.label.server.conftest import Server


def stored(server: Server, pair: str, rater: str) -> Any:
    entries = all_ratings(server.audit / "review" / FINAL, [pair])[pair]
    return standing(entries, rater)


def test_a_whole_review_beside_monai_label(server: Server, browser: Any, shot: Any) -> None:
    study = Study.load(server.audit / "review" / "study.json")
    browser.get_log("browser")
    browser.get_log("performance")
    open_page(browser, server.url, "paula")
    first = wait(browser, lambda: shown_pair(browser))
    shot("label_2d_pair")
    assert text(browser, "count") == "0 of 12 rated" and first in {pair.pair_id for pair in study.sample}
    press(browser, "d", "1")
    second = wait(browser, lambda: (pair := shown_pair(browser)) not in (None, first) and pair)
    entry = stored(server, first, "paula")
    assert entry.rating == "copy" and entry.evidence and entry.seconds > 0 and entry.strategy == "blinded"
    press(browser, "2")
    wait(browser, lambda: shown_pair(browser) not in (None, second) and text(browser, "count") == "2 of 12 rated")
    press(browser, "u")
    wait(browser, lambda: shown_pair(browser) == second)
    assert stored(server, second, "paula") is None
    seen = [first]
    while len(seen) < 12:
        seen.append(wait(browser, lambda: (now := shown_pair(browser)) not in (None, *seen) and now))
        press(browser, "3")
    wait(browser, lambda: visible(browser, "done"))
    assert set(seen) == {pair.pair_id for pair in study.sample}
    assert severe(browser) == [] and hosts_asked(browser) == {f"127.0.0.1:{server.port}"}


def test_volumes_beside_monai_label(server_3d: Server, browser: Any, shot: Any) -> None:
    browser.get_log("browser")
    open_page(browser, server_3d.url, "paula")
    first = wait(browser, lambda: shown_pair(browser))
    shot("label_3d_pair")
    assert state(browser)["planes"] == "axial coronal sagittal" and text(browser, "slice-number") == "9 of 16"
    press(browser, "1")
    wait(browser, lambda: shown_pair(browser) not in (None, first))
    assert stored(server_3d, first, "paula").rating == "copy"
    answer = server_3d.request("POST", "/infer/evidence", params={"image": first, "output": "image"})
    assert answer.status_code == 200 and answer.content[:2] == b"\x1f\x8b"
    assert server_3d.request("GET", f"/datastore/image?image={first}").content[:2] == b"\x1f\x8b"
    assert severe(browser) == []

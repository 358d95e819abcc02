# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The review page in a real browser, in 2D and 3D."""

from __future__ import annotations

import json
from typing import Any

from monai_memo.label.prepare import FINAL
from monai_memo.label.ratings import all_ratings, standing
from monai_memo.label.study import Study
from tests.label.server.conftest import Server


def open_page(browser: Any, server: Server, rater: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(server.url + "/")
    field = browser.find_element(By.ID, "rater")
    field.clear()
    field.send_keys(rater + Keys.ENTER)


def wait(browser: Any, condition: Any) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60).until(lambda driver: condition())


def text(browser: Any, name: str) -> str:
    return str(browser.execute_script("return document.getElementById(arguments[0]).textContent", name))


def shown_pair(browser: Any) -> str | None:
    """The pair whose picture is on the screen, once the page waits for a rating."""
    found: str | None = browser.execute_script(
        "const picture = document.getElementById('picture');"
        "return document.getElementById('review').hidden || document.querySelector('#buttons button').disabled "
        "|| !picture.naturalWidth ? null : picture.dataset.pair;"
    )
    return found


def press(browser: Any, key: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(key).perform()


def stored(server: Server, pair: str, rater: str) -> Any:
    entries = all_ratings(server.audit / "review" / FINAL, [pair])[pair]
    return standing(entries, rater)


def hosts_asked(browser: Any) -> set[str]:
    """Every host that the page has sent a request to."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return {url.split("/")[2] for url in urls if url.startswith("http")}


def test_a_whole_review_with_keys_and_mouse(server: Server, browser: Any, shot: Any) -> None:
    from selenium.webdriver.common.by import By

    study = Study.load(server.audit / "review" / "study.json")
    open_page(browser, server, "paula")
    first = wait(browser, lambda: shown_pair(browser))
    shot("2d_pair")
    assert text(browser, "count") == "0 of 12 rated" and first in {pair.pair_id for pair in study.sample}
    assert browser.find_element(By.ID, "undo").get_attribute("disabled")
    ratio = browser.execute_script(
        "const p = document.getElementById('picture'); return [p.naturalWidth, p.naturalHeight]"
    )
    assert ratio == [512 * 2 + 16, 512]
    # Difference map, then a key.
    press(browser, "d")
    wait(browser, lambda: browser.find_element(By.ID, "evidence").is_displayed())
    shot("2d_difference")
    wait(browser, lambda: shown_pair(browser) == first)
    press(browser, "1")
    second = wait(browser, lambda: (pair := shown_pair(browser)) not in (None, first) and pair)
    entry = stored(server, first, "paula")
    assert entry.rating == "copy" and entry.evidence and entry.seconds > 0 and entry.strategy == "blinded"
    assert text(browser, "count") == "1 of 12 rated"
    # A button.
    browser.find_element(By.CSS_SELECTOR, "[data-rating=same_patient]").click()
    wait(browser, lambda: text(browser, "count") == "2 of 12 rated" and shown_pair(browser))
    assert stored(server, second, "paula").rating == "same_patient" and not stored(server, second, "paula").evidence
    # Undo brings the pair back.
    press(browser, "u")
    wait(browser, lambda: shown_pair(browser) == second and text(browser, "count") == "1 of 12 rated")
    assert stored(server, second, "paula") is None
    # The page loaded anew goes on where it was.
    open_page(browser, server, "paula")
    assert wait(browser, lambda: shown_pair(browser)) == second
    seen = [first]
    while len(seen) < 12:
        pair = wait(browser, lambda: (now := shown_pair(browser)) not in (None, *seen) and now)
        seen.append(pair)
        press(browser, "3")
    wait(browser, lambda: browser.find_element(By.ID, "done").is_displayed())
    shot("2d_done")
    assert "12 of 12" in text(browser, "done-text") and set(seen) == {pair.pair_id for pair in study.sample}
    # Undo works from the last page too.
    press(browser, "u")
    assert wait(browser, lambda: shown_pair(browser)) == seen[-1]
    press(browser, "4")
    wait(browser, lambda: browser.find_element(By.ID, "done").is_displayed())
    assert stored(server, seen[-1], "paula").rating == "unsure"
    # Further pairs.
    browser.find_element(By.ID, "further").click()
    assert wait(browser, lambda: shown_pair(browser)) == study.uncertain[0].pair_id
    press(browser, "2")
    wait(browser, lambda: shown_pair(browser) == study.uncertain[1].pair_id)
    assert stored(server, study.uncertain[0].pair_id, "paula").strategy == "uncertain"
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []
    assert hosts_asked(browser) == {f"127.0.0.1:{server.port}"}


def test_an_impossible_name_is_refused_on_the_page(server: Server, browser: Any) -> None:
    from selenium.webdriver.common.by import By

    open_page(browser, server, "<script>")
    wait(browser, lambda: browser.find_element(By.ID, "error").is_displayed())
    assert text(browser, "error").startswith("rater must be a name")
    assert browser.find_element(By.ID, "start").is_displayed()
    logged = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert len(logged) == 1 and "/review/progress" in logged[0] and "400" in logged[0]


def test_volumes_are_scrolled_in_three_planes(server_3d: Server, browser: Any, shot: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    open_page(browser, server_3d, "paula")
    first = wait(browser, lambda: shown_pair(browser))
    shot("3d_pair")
    assert text(browser, "slice-number") == "49 of 96"

    def picture() -> str:
        return str(browser.find_element(By.ID, "picture").get_attribute("src"))

    before = picture()
    press(browser, Keys.ARROW_UP)
    wait(browser, lambda: picture() != before and text(browser, "slice-number") == "50 of 96")
    before = picture()
    press(browser, "p")
    wait(browser, lambda: picture() != before)
    assert browser.find_element(By.CSS_SELECTOR, "[data-plane=sagittal]").get_attribute("aria-pressed") == "true"
    press(browser, "d")
    wait(browser, lambda: browser.find_element(By.ID, "evidence").is_displayed())
    shot("3d_difference")
    wait(browser, lambda: shown_pair(browser) == first)
    press(browser, "1")
    wait(browser, lambda: shown_pair(browser) not in (None, first))
    assert stored(server_3d, first, "paula").rating == "copy"
    answer = server_3d.request("POST", "/infer/evidence", params={"image": first, "output": "image"})
    assert answer.status_code == 200 and answer.content[:2] == b"\x1f\x8b"
    assert server_3d.request("GET", f"/datastore/image?image={first}").content[:2] == b"\x1f\x8b"
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The viewer in a real browser: what is on the canvas after each key, drag and click, in 2D and 3D."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from monai_memo.label.native import NativePair, save_native
from monai_memo.label.prepare import IMAGES
from monai_memo.label.ratings import standing
from tests.label.browsing import (
    click,
    colour,
    drag,
    drawn,
    hosts_asked,
    open_page,
    press,
    severe,
    shade,
    shown_pair,
    state,
    text,
    turn_wheel,
    visible,
    wait,
)
from tests.label.conftest import Served

Shot = Callable[[str], None]


def opened(browser: Any, served: Served, rater: str = "paula") -> str:
    browser.get_log("browser")
    open_page(browser, served.url, rater)
    return str(wait(browser, lambda: shown_pair(browser)))


@pytest.fixture
def narrow(browser: Any) -> Iterator[None]:
    """A phone's screen, 390 pixels wide."""
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_both_images_stand_side_by_side_with_one_window(browser: Any, pictures: Served, shot: Shot) -> None:
    opened(browser, pictures)
    shot("2d_pair")
    found = state(browser)
    assert found["mode"] == "side" and len(found["panels"].split()) == 2
    # The synthetic image becomes brighter to the right, the other one downwards.
    for across, down in ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
        assert shade(browser, 0, across, down, "images") == pytest.approx(255 * across, abs=9)
        assert shade(browser, 1, across, down, "images") == pytest.approx(255 * down, abs=9)
    press(browser, "b")  # brighter: the level sinks by a twentieth
    assert shade(browser, 0, 0.25, 0.5, "images") == pytest.approx(255 * 0.3, abs=9)
    assert shade(browser, 1, 0.5, 0.25, "images") == pytest.approx(255 * 0.3, abs=9)
    press(browser, "v", "c", "c")
    low, high = (float(state(browser)[name]) for name in ("low", "high"))
    assert high - low == pytest.approx(1 / 1.21, abs=0.002) and (low + high) / 2 == pytest.approx(0.5, abs=0.002)
    assert shade(browser, 0, 0.25, 0.5, "images") == pytest.approx(255 * (0.25 - low) / (high - low), abs=9)
    press(browser, "0")
    drag(browser, (100, 100), (0, -60), button=2)
    assert float(state(browser)["low"]) == pytest.approx(0.2, abs=0.01), "the right button: level"
    press(browser, "0", "t")
    drag(browser, (100, 100), (200, 0))
    assert float(state(browser)["high"]) == pytest.approx(0.5 + 2.718 / 2, abs=0.02), "the tool: width"
    browser.execute_script(
        "const level = document.getElementById('level'); level.value = 0.8; level.dispatchEvent(new Event('input'))"
    )
    press(browser, "c")
    found = state(browser)
    assert (float(found["low"]) + float(found["high"])) / 2 == pytest.approx(0.8, abs=0.01)
    assert severe(browser) == []


def test_pictures_in_colour_stand_in_their_colours(browser: Any, pictures: Served, shot: Shot) -> None:
    """Red grows to the right, green downwards, blue stays; the training image has red and green exchanged."""
    down, across = np.indices((30, 40), dtype=np.float32)
    red, green, blue = across / 40, down / 30, np.full((30, 40), 0.25, dtype=np.float32)
    pair = NativePair(np.stack([red, green, blue]), np.stack([green, red, blue]), (30.0, 40.0))
    for one in pictures.study.pairs:
        save_native(pictures.folder / IMAGES, one.pair_id, pair)
    opened(browser, pictures)
    shot("2d_colour")
    assert colour(browser, 0, 0.75, 0.25, "images") == pytest.approx([191, 64, 64], abs=9)
    assert colour(browser, 1, 0.75, 0.25, "images") == pytest.approx([64, 191, 64], abs=9)
    press(browser, "d")
    shot("2d_colour_difference")
    differs, same = (colour(browser, 0, place, 0.25, "images") for place in (0.75, 0.25))
    assert max(differs) - min(differs) > 60, "equal in grey, and other colours"
    assert same == pytest.approx([247, 247, 247], abs=12)
    assert severe(browser) == []


def test_zoom_and_place_are_those_of_both(browser: Any, pictures: Served, shot: Shot) -> None:
    opened(browser, pictures)
    press(browser, "+", "+", "+")
    assert float(state(browser)["zoom"]) == pytest.approx(1.25**3, abs=0.002)
    shot("2d_zoomed")
    width = int(state(browser)["panels"].split(",")[2])
    before = shade(browser, 0, 0.25, 0.5), shade(browser, 1, 0.5, 0.25)
    drag(browser, (100, 200), (width // 4, width // 8))
    centre = [float(place) for place in state(browser)["centre"].split()]
    assert centre[0] < 0.5 and centre[1] < 0.5, "what was dragged lies further right and down"
    after = shade(browser, 0, 0.25, 0.5), shade(browser, 1, 0.5, 0.25)
    assert after[0] < before[0] - 10 and after[1] < before[1] - 5
    from selenium.webdriver.common.keys import Keys

    press(browser, Keys.ARROW_RIGHT)
    assert float(state(browser)["centre"].split()[1]) > centre[1]
    # The wheel enlarges what lies under the pointer.
    press(browser, "0")
    under = shade(browser, 0, 0.25, 0.5)
    panel = [int(number) for number in state(browser)["panels"].split()[0].split(",")]
    turn_wheel(browser, (panel[0] + panel[2] // 4, panel[1] + panel[3] // 2), -200)
    assert float(state(browser)["zoom"]) > 1.5
    assert shade(browser, 0, 0.25, 0.5) == pytest.approx(under, abs=8)
    press(browser, "n")
    ratio = browser.execute_script("return window.devicePixelRatio")
    fitted = min(panel[2] / 40, panel[3] / 30)  # points of the screen for one of the image
    assert float(state(browser)["zoom"]) == pytest.approx(1 / (fitted * ratio), abs=0.01)


def test_flicker_overlay_and_difference(browser: Any, pictures: Served, shot: Shot) -> None:
    pair = opened(browser, pictures)
    press(browser, "o")
    shot("2d_overlay")
    assert len(state(browser)["panels"].split()) == 1 and visible(browser, "opacity-box")
    # Where the synthetic image is dark and the training image bright; the panel is wider than the image.
    synthetic, training = 255 * 0.34, 255 * 0.75
    assert shade(browser, 0, 0.4, 0.75) == pytest.approx((synthetic + training) / 2, abs=15)
    press(browser, ".", ".", ".", ".", ".")
    assert state(browser)["opacity"] == "1.00" and shade(browser, 0, 0.4, 0.75) == pytest.approx(training, abs=12)
    press(browser, *"," * 10)
    assert state(browser)["opacity"] == "0.00"
    dark = shade(browser, 0, 0.4, 0.75)
    assert dark < training - 60
    press(browser, " ")
    assert state(browser)["mode"] == "flicker" and state(browser)["showing"] == "training"
    assert shade(browser, 0, 0.4, 0.75) == pytest.approx(training, abs=12)
    press(browser, " ")
    assert state(browser)["showing"] == "synthetic" and shade(browser, 0, 0.4, 0.75) == pytest.approx(dark, abs=3)
    press(browser, "x")
    for name in ("training", "synthetic"):
        wait(browser, lambda name=name: state(browser)["showing"] == name)
    press(browser, "x")
    stopped = state(browser)["showing"]
    browser.execute_async_script("setTimeout(arguments[0], 1200)")
    assert state(browser)["showing"] == stopped
    press(browser, "d")
    shot("2d_difference")
    red, _, blue = colour(browser, 0, 0.4, 0.8)
    assert blue > red, "purple where the synthetic image is darker"
    red, _, blue = colour(browser, 0, 0.6, 0.2)
    assert red > blue, "orange where it is brighter"
    said = browser.execute_script("return document.getElementById('picture').getAttribute('aria-label')")
    assert "purple where the synthetic one is darker" in said
    press(browser, "1")
    wait(browser, lambda: shown_pair(browser) not in (None, pair))
    entry = standing(pictures.store.entries(pair), "paula")
    assert entry is not None and entry.rating == "copy" and entry.evidence and entry.seconds is not None
    assert state(browser)["mode"] == "side", "the next pair begins as the first did"


def test_a_review_with_keys_buttons_undo_and_a_new_start(browser: Any, pictures: Served, shot: Shot) -> None:
    browser.get_log("performance")
    first = opened(browser, pictures)
    assert text(browser, "count") == "0 of 6 rated"
    click(browser, "[data-rating=same_patient]")
    second = wait(browser, lambda: (pair := shown_pair(browser)) not in (None, first) and pair)
    assert not standing(pictures.store.entries(first), "paula").evidence  # type: ignore[union-attr]
    press(browser, "u")
    wait(browser, lambda: shown_pair(browser) == first and text(browser, "count") == "0 of 6 rated")
    assert standing(pictures.store.entries(first), "paula") is None
    press(browser, "3")
    wait(browser, lambda: shown_pair(browser) == second)
    open_page(browser, pictures.url, "paula")
    assert wait(browser, lambda: shown_pair(browser)) == second, "it goes on where it was"
    seen = [first]
    while len(seen) < 6:
        seen.append(wait(browser, lambda: (now := shown_pair(browser)) not in (None, *seen) and now))
        press(browser, "4")
    wait(browser, lambda: visible(browser, "done"))
    shot("2d_done")
    assert "6 of 6" in text(browser, "done-text") and set(seen) == {pair.pair_id for pair in pictures.study.sample}
    click(browser, "#further")
    assert wait(browser, lambda: shown_pair(browser)) == pictures.study.uncertain[0].pair_id
    assert severe(browser) == []
    assert hosts_asked(browser) == {f"127.0.0.1:{pictures.server.server_port}"}


def test_full_screen_and_help_by_key(browser: Any, pictures: Served, shot: Shot) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, pictures)
    press(browser, "h")
    assert visible(browser, "help") and "flicker: the other image" in text(browser, "keys")
    shot("2d_help")
    press(browser, "1")  # nothing is rated behind the help
    press(browser, Keys.ESCAPE)
    assert not visible(browser, "help") and text(browser, "count") == "0 of 6 rated"
    press(browser, "f")
    wait(browser, lambda: not visible(browser, "toolbar"))
    drawn(browser)
    shot("2d_full")
    assert visible(browser, "buttons") and visible(browser, "leave")
    picture = "document.getElementById('picture')"
    script = f"return [{picture}.clientWidth, innerWidth, {picture}.clientHeight, innerHeight]"
    width, whole_width, height, whole_height = browser.execute_script(script)
    assert width == whole_width and height > 0.75 * whole_height, "nothing but the images and the ratings"
    press(browser, "f")
    wait(browser, lambda: visible(browser, "toolbar"))


@pytest.mark.usefixtures("narrow")
def test_a_narrow_screen_shows_one_image_below_the_other(browser: Any, pictures: Served, shot: Shot) -> None:
    opened(browser, pictures)
    shot("2d_narrow")
    panels = [[int(number) for number in panel.split(",")] for panel in state(browser)["panels"].split()]
    assert panels[0][0] == panels[1][0] and panels[1][1] > panels[0][1]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert shade(browser, 1, 0.5, 0.8) > shade(browser, 1, 0.5, 0.2) + 60


def test_three_planes_are_linked(browser: Any, volumes: Served, shot: Shot) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, volumes)
    shot("3d_pair")
    found = state(browser)
    assert found["planes"] == "axial coronal sagittal" and len(found["panels"].split()) == 6
    assert found["cross"] == "10 12 6" and text(browser, "slice-number") == "7 of 12"
    # Grey values of the synthetic volume follow its second axis (front), of the training volume its first (right).
    panels = [[int(number) for number in panel.split(",")] for panel in found["panels"].split()]
    axial = panels[0]
    assert shade(browser, 0, 0.5, 0.3) > shade(browser, 0, 0.5, 0.7) + 40, "front is up"
    assert shade(browser, 3, 0.4, 0.42) > shade(browser, 3, 0.6, 0.42) + 20, "the patient's right is on the left"
    # The crosshair in one plane moves the slices of the others.
    drag(browser, (axial[0] + axial[2] // 2, axial[1] + axial[3] // 2), (0, -axial[3] // 5))
    x, y, z = (int(place) for place in state(browser)["cross"].split())
    assert y > 14 and z == 6 and abs(x - 10) <= 1
    before = shade(browser, 1, 0.45, 0.4)
    press(browser, "a", Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert state(browser)["cross"].split()[1] == str(y - 3) and text(browser, "slice-name") == "Coronal"
    assert shade(browser, 1, 0.45, 0.4) < before, "coronal slices further back are darker"
    turn_wheel(browser, (axial[0] + axial[2] // 2, axial[1] + axial[3] // 2), 120)
    assert state(browser)["cross"].split()[2] == "9" and text(browser, "slice-number") == "10 of 12"
    press(browser, "p", "p")
    assert state(browser)["planes"] == "coronal" and len(state(browser)["panels"].split()) == 2
    shot("3d_coronal")
    press(browser, "p", "p", "o")
    shot("3d_overlay")
    assert state(browser)["planes"] == "axial coronal sagittal" and len(state(browser)["panels"].split()) == 3
    press(browser, "+", "+")
    assert float(state(browser)["zoom"]) == pytest.approx(1.5625, abs=0.001)
    press(browser, "d", "h")
    assert "ten slices" in text(browser, "keys")
    shot("3d_help")
    press(browser, Keys.ESCAPE, "1")
    wait(browser, lambda: text(browser, "count") == "1 of 6 rated")
    assert severe(browser) == []


@pytest.mark.usefixtures("narrow")
def test_volumes_on_a_narrow_screen(browser: Any, volumes: Served, shot: Shot) -> None:
    opened(browser, volumes)
    shot("3d_narrow")
    assert len(state(browser)["panels"].split()) == 6
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


def test_agreement_stands_on_the_first_page_and_disagreements_are_settled(
    browser: Any, pictures: Served, shot: Shot
) -> None:
    sample = [pair.pair_id for pair in pictures.study.sample]
    for rater, other in (("anna", {}), ("bert", {sample[0]: "unsure", sample[1]: "same_patient"})):
        browser.get(pictures.url + "/")
        wait(browser, lambda rater=rater: rater == "anna" or visible(browser, "agreement"))
        assert not visible(browser, "agreement-table") and not visible(browser, "settle")
        for pair in pictures.study.sample:
            call = "copy" if pair.copy else "novel"
            assert pictures.rate(pair.pair_id, other.get(pair.pair_id, call), rater)[0] == 200
    browser.get(pictures.url + "/")
    wait(browser, lambda: visible(browser, "agreement-table"))
    shot("first_page")
    assert "anna and bert4 of 6 (67 %)" in text(browser, "agreement-table").replace("\n", "")
    assert "differ on 2 pairs; 0 of them settled" in text(browser, "agreement-text")
    assert visible(browser, "table-link") and "pair_" not in browser.page_source
    from selenium.webdriver.common.by import By

    field = browser.find_element(By.ID, "rater")
    field.clear()
    field.send_keys("eva")
    click(browser, "#settle")
    first = wait(browser, lambda: shown_pair(browser))
    shot("settling")
    assert first in sample[:2] and visible(browser, "task") and text(browser, "count") == "0 of 2 settled"
    press(browser, "1")
    wait(browser, lambda: shown_pair(browser) not in (None, first))
    press(browser, "3")
    wait(browser, lambda: visible(browser, "done"))
    assert "2 of 2 pairs on which raters differ are settled" in text(browser, "done-text")
    assert pictures.told("/review/agreement")["open"] == 0
    click(browser, "#home")
    wait(browser, lambda: visible(browser, "start") and "2 of them settled" in text(browser, "agreement-text"))
    assert not visible(browser, "settle")


def test_refusals_and_a_server_that_is_gone_are_said_on_the_page(browser: Any, pictures: Served, shot: Shot) -> None:
    open_page(browser, pictures.url, "<script>")
    wait(browser, lambda: visible(browser, "error"))
    assert text(browser, "error").startswith("rater must be a name") and visible(browser, "start")
    first = opened(browser, pictures)
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    try:
        press(browser, "1")
        wait(browser, lambda: visible(browser, "error"))
        shot("server_gone")
        assert "Nothing was lost" in text(browser, "error") and state(browser)["pair"] == first
        assert pictures.store.entries(first) == []
    finally:
        online = {**offline, "offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", online)
    press(browser, "1")
    wait(browser, lambda: shown_pair(browser) not in (None, first))
    assert not visible(browser, "error") and len(pictures.store.entries(first)) == 1
    browser.get_log("browser")

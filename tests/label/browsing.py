# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What tests of the review page do with a browser, whichever server it comes from."""

from __future__ import annotations

import json
from typing import Any

READY = (
    "const picture = document.getElementById('picture');"
    "return document.getElementById('review').hidden || document.querySelector('#buttons button').disabled "
    "|| !document.getElementById('loading').hidden ? null : picture.dataset.pair;"
)
# Red, green and blue at a share of one panel of the viewer, or of the image in it.
COLOUR = """
const canvas = document.getElementById('picture'), [kind, panel, across, down] = arguments;
const [x, y, width, height] = canvas.dataset[kind].split(' ')[panel].split(',').map(Number);
const ratio = window.devicePixelRatio;
const data = canvas.getContext('2d').getImageData((x + across * width) * ratio, (y + down * height) * ratio, 1, 1).data;
return [data[0], data[1], data[2]];
"""


def wait(browser: Any, condition: Any) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60).until(lambda driver: condition())


def open_page(browser: Any, url: str, rater: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(url + "/")
    field = browser.find_element(By.ID, "rater")
    field.clear()
    field.send_keys(rater + Keys.ENTER)


def text(browser: Any, name: str) -> str:
    return str(browser.execute_script("return document.getElementById(arguments[0]).textContent", name))


def visible(browser: Any, name: str) -> bool:
    from selenium.webdriver.common.by import By

    return bool(browser.find_element(By.ID, name).is_displayed())


def click(browser: Any, selector: str) -> None:
    from selenium.webdriver.common.by import By

    browser.find_element(By.CSS_SELECTOR, selector).click()


def shown_pair(browser: Any) -> str | None:
    """The pair whose images are on the screen, once the page waits for a rating."""
    found: str | None = browser.execute_script(READY)
    return found


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    actions = ActionChains(browser)
    for key in keys:
        actions.send_keys(key)
    actions.perform()
    drawn(browser)


def drawn(browser: Any) -> None:
    """Wait until what was asked for is on the canvas."""
    browser.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done));")


def state(browser: Any) -> dict[str, str]:
    """What the viewer says of itself."""
    found: dict[str, str] = browser.execute_script("return {...document.getElementById('picture').dataset}")
    return found


def colour(browser: Any, panel: int, across: float, down: float, of: str = "panels") -> list[int]:
    found: list[int] = browser.execute_script(COLOUR, of, panel, across, down)
    return found


def shade(browser: Any, panel: int, across: float, down: float, of: str = "panels") -> int:
    """The grey value at a share of a panel, or of the image in it (``"images"``)."""
    red, green, blue = colour(browser, panel, across, down, of)
    assert red == green == blue, (red, green, blue)
    return red


def drag(browser: Any, start: tuple[int, int], way: tuple[int, int], button: int = 0) -> None:
    """With the mouse, on the viewer, from a place that counts from its upper left corner."""
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.by import By

    box = browser.find_element(By.ID, "picture").rect
    actions = ActionBuilder(browser, duration=20)
    pointer = actions.pointer_action
    pointer.move_to_location(int(box["x"] + start[0]), int(box["y"] + start[1]))
    pointer.pointer_down(button)
    pointer.move_to_location(int(box["x"] + start[0] + way[0]), int(box["y"] + start[1] + way[1]))
    pointer.pointer_up(button)
    actions.perform()
    drawn(browser)


def turn_wheel(browser: Any, place: tuple[int, int], way: int) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
    from selenium.webdriver.common.by import By

    element = browser.find_element(By.ID, "picture")
    size = element.size
    origin = ScrollOrigin.from_element(element, place[0] - int(size["width"]) // 2, place[1] - int(size["height"]) // 2)
    ActionChains(browser).scroll_from_origin(origin, 0, way).perform()
    drawn(browser)


def severe(browser: Any) -> list[str]:
    """Errors on the browser's console."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def hosts_asked(browser: Any) -> set[str]:
    """Every host that the page has sent a request to."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return {url.split("/")[2] for url in urls if url.startswith("http")}

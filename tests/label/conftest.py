# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Finished audits of phantoms, to be reviewed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_memo.audit.audit import Audit
from monai_memo.audit.result import Estimate, Match
from monai_memo.label.desk import Desk
from monai_memo.label.native import NativePair, save_native
from monai_memo.label.prepare import FINAL, IMAGES
from monai_memo.label.ratings import append_entry, new_entry
from monai_memo.label.store import RatingStore
from monai_memo.label.study import Study, draw_study
from monai_memo.label.web import ReviewServer


def run_audit(images: Path, out: Path, size: int, epochs: int) -> Path:
    cohorts = {"train": images / "training", "heldout": images / "heldout", "synthetic": images / "synthetic"}
    Audit(
        **{name: str(path) for name, path in cohorts.items()},
        out=str(out), size=size, epochs=epochs, n_bootstrap=100, planted=10, limit_copies=0, gallery=2, progress=False,
    ).run()  # fmt: skip
    return out


@pytest.fixture(scope="session")
def finished_audit(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_audit(demo_folder, tmp_path_factory.mktemp("audit2d") / "audit", 32, 3)


@pytest.fixture(scope="session")
def finished_audit_3d(demo_folder_3d: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_audit(demo_folder_3d, tmp_path_factory.mktemp("audit3d") / "audit", 16, 1)


@pytest.fixture
def audit(finished_audit: Path, tmp_path: Path) -> Path:
    """30 synthetic images, 12 of them planted copies; a copy that a test may write to."""
    return Path(shutil.copytree(finished_audit, tmp_path / "audit"))


@pytest.fixture
def audit_3d(finished_audit_3d: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_audit_3d, tmp_path / "audit3d"))


@pytest.fixture
def truth(demo_folder: Path) -> dict[str, str]:
    """Training image that each synthetic image copies; empty for novel ones."""
    with open(demo_folder / "truth.csv", newline="", encoding="utf-8") as stream:
        return {row["synthetic"]: row["copied_from"] for row in csv.DictReader(stream)}


@pytest.fixture
def study() -> Study:
    """60 of 200 pairs, 40 of them called copies, and 5 further ones."""
    similarity = np.sort(np.random.default_rng(5).uniform(0.2, 0.99, 200))[::-1]
    matches = [
        Match(f"s{i}.png", f"t{i % 50}.png", "", round(float(value), 6), 0.8, i < 40)
        for i, value in enumerate(similarity)
    ]
    return draw_study(matches, Estimate(0.8, 0.78, 0.82), "identity", 2, n=60, n_uncertain=5, seed=1)


@dataclass
class Served:
    """A review of six pairs and two further ones in a folder, without an audit, and our server of it."""

    folder: Path
    study: Study
    server: ReviewServer

    @property
    def store(self) -> RatingStore:
        return self.server.desk.store

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def ask(self, path: str, body: object = None, method: str | None = None, **headers: str) -> tuple[int, Any, bytes]:
        """Status, headers and content of an answer."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        kinds = {"Content-Type": "application/json"} if data is not None else {}
        given = {**kinds, **{name.replace("_", "-"): value for name, value in headers.items()}}
        request = urllib.request.Request(self.url + path, data, given, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def told(self, path: str) -> Any:
        """The JSON of an answer."""
        status, _, content = self.ask(path)
        assert status == 200, content
        return json.loads(content)

    def rate(self, pair: str, rating: str, rater: str, **further: object) -> tuple[int, Any]:
        status, _, content = self.ask("/review/rating", {"pair": pair, "rating": rating, "rater": rater, **further})
        return status, json.loads(content)


def small_study(dims: int) -> Study:
    matches = [
        Match(f"synthetic_{i}", f"patient_{i}", "", round(0.951234 - 0.05 * i, 6), 0.7, i < 5) for i in range(12)
    ]
    return draw_study(matches, Estimate(0.7, 0.65, 0.75), "identity", dims, n=6, n_uncertain=2, seed=1)


def write_small_review(folder: Path, study: Study) -> None:
    """Pairs of the same size: columns of the synthetic image become brighter to the right, rows of the other down."""
    shape = (30, 40) if study.spatial_dims == 2 else (20, 24, 12)
    places = np.indices(shape).astype(np.float32)
    for number, pair in enumerate(study.pairs):
        synthetic = places[1] / shape[1] + 0.001 * number
        told = NativePair(synthetic, places[0] / shape[0], tuple(map(float, shape)), study.spatial_dims == 3)
        save_native(folder / IMAGES, pair.pair_id, told)
    (folder / FINAL).mkdir(parents=True)


@contextmanager
def serving(folder: Path, study: Study, blind: bool = True) -> Iterator[Served]:
    server = ReviewServer(Desk(folder, RatingStore(folder, study), blind), ("127.0.0.1", 0))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Served(folder, study, server)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    study = small_study(2)
    write_small_review(tmp_path, study)
    with serving(tmp_path, study) as running:
        yield running


def rate_all(audit: Path, ratings: Mapping[str, str], rater: str, **further: object) -> None:
    """Store one rating for each pair."""
    for pair_id, rating in ratings.items():
        append_entry(
            audit / "review" / FINAL / f"{pair_id}.json", new_entry({"rating": rating, "rater": rater, **further})
        )


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium with an empty profile, where Selenium and a browser are at hand (``./runtests.sh --label``)."""
    webdriver = pytest.importorskip("selenium.webdriver")
    program = os.environ.get("MEMO_BROWSER") or shutil.which("chromium")
    driver = os.environ.get("MEMO_CHROMEDRIVER") or shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture
def shot(browser: Any) -> Callable[[str], None]:
    """Save what the page looks like, where MEMO_SCREENSHOTS names a folder."""

    def save(name: str) -> None:
        folder = os.environ.get("MEMO_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            browser.save_screenshot(str(Path(folder) / f"{name}.png"))

    return save

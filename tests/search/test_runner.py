# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""While a card works on one block, the processor makes the next ones ready."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from monai_memo.data.phantoms import chest_phantom
from monai_memo.search.gallery import Gallery
from monai_memo.search.local_features import LocalFeatureRetriever
from monai_memo.search.runner import AHEAD, Runner

PARTS = [slice(i, i + 2) for i in range(0, 20, 2)]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_every_part_comes_once_and_in_order(device: str) -> None:
    made = list(Runner.on(device).ahead(lambda rows: rows.start * 10, PARTS))
    assert made == [(rows, rows.start * 10) for rows in PARTS]


def test_a_card_finds_the_next_blocks_ready_and_a_processor_makes_one_at_a_time() -> None:
    begun: list[int] = []

    def make(rows: slice) -> int:
        begun.append(rows.start)
        return rows.start

    for device, most in (("cpu", 1), ("meta", AHEAD + 1)):
        begun.clear()
        following = Runner.on(device).ahead(make, PARTS)
        next(following)
        deadline = time.monotonic() + 5
        while len(begun) < most and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(begun) == most, device
        following.close()


def test_an_error_of_the_processor_reaches_the_caller() -> None:
    def make(rows: slice) -> int:
        if rows.start == 4:
            raise ValueError("no such block")
        return rows.start

    with pytest.raises(ValueError, match="no such block"):
        list(Runner.on("meta").ahead(make, PARTS))


def test_what_is_looked_up_by_another_thread_is_the_same() -> None:
    images = np.stack([chest_phantom(i, (64, 64)) for i in range(12)])
    retriever = LocalFeatureRetriever()
    retriever.fit(Gallery(images), Runner())
    here = retriever.look_up(images[:6], Runner())
    found = []
    other = threading.Thread(target=lambda: found.append(retriever.look_up(images[:6], Runner.on("meta"))))
    other.start()
    other.join()
    assert np.array_equal(here.which, found[0].which) and np.array_equal(here.variants, found[0].variants)
    placed = retriever.placed(here.points.frames.new_empty(0), Runner(), here)
    assert (placed.candidates[:, 0].numpy() == np.arange(6)).all()

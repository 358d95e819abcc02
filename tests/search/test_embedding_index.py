# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from monai_memo.search.embedding_index import EmbeddingIndex, normalise


def test_similarity_is_the_pearson_correlation() -> None:
    rng = np.random.default_rng(0)
    candidates, queries = rng.normal(2, 3, (50, 16)), rng.normal(-1, 5, (20, 16))
    similarity, nearest = EmbeddingIndex(candidates).search(queries, k=50)
    expected = np.corrcoef(queries, candidates)[:20, 20:]
    np.testing.assert_allclose(np.take_along_axis(expected, nearest, axis=1), similarity, atol=1e-6)
    np.testing.assert_array_equal(nearest[:, 0], expected.argmax(axis=1))
    assert (np.diff(similarity, axis=1) <= 0).all()


def test_blocks_do_not_change_the_result_and_keep_memory_flat() -> None:
    rng = np.random.default_rng(1)
    index = EmbeddingIndex(rng.normal(size=(100, 8)))
    queries = rng.normal(size=(20_000, 8)).astype(np.float32)
    whole = index.search(queries, k=3, block=20_000)
    tracemalloc.start()
    parts = index.search(queries, k=3, block=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(parts[0], whole[0], atol=1e-6)
    np.testing.assert_array_equal(parts[1], whole[1])
    # The result itself takes 20,000 x 3 x (8 + 8) bytes; the blocks must not add anything of that order.
    assert peak < 20_000 * 3 * 16 * 2.5


def test_save_and_load(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    index, queries = EmbeddingIndex(rng.normal(size=(30, 8))), rng.normal(size=(5, 8))
    again = EmbeddingIndex.load(index.save(tmp_path / "index.faiss"))
    np.testing.assert_array_equal(index.search(queries)[1], again.search(queries)[1])
    assert [path.name for path in tmp_path.iterdir()] == ["index.faiss"]
    with pytest.raises(FileNotFoundError, match=r"nothing\.faiss"):
        EmbeddingIndex.load(tmp_path / "nothing.faiss")


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="embedding 1 is constant"):
        normalise(np.array([[1.0, 2.0], [3.0, 3.0]]))
    with pytest.raises(ValueError, match="embedding 0 holds NaN"):
        normalise(np.array([[np.nan, 2.0], [3.0, 4.0]]))
    with pytest.raises(ValueError, match="at least one"):
        EmbeddingIndex(np.empty((0, 4)))
    index = EmbeddingIndex(np.eye(4))
    with pytest.raises(ValueError, match="k must lie between 1 and 4"):
        index.search(np.eye(4), k=5)
    with pytest.raises(ValueError, match=r"\(n, 4\)"):
        index.search(np.eye(5))

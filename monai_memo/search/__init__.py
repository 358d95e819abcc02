# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The search for copies: retrieve candidates, register and score them, normalise the scores; parts can be exchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_memo.lazy import lazily

if TYPE_CHECKING:
    from monai_memo.search.copy_search import CopySearch as CopySearch
    from monai_memo.search.embedding_index import EmbeddingIndex as EmbeddingIndex
    from monai_memo.search.embedding_retriever import ArrayEncoder as ArrayEncoder
    from monai_memo.search.embedding_retriever import EmbeddingRetriever as EmbeddingRetriever
    from monai_memo.search.gallery import Gallery as Gallery
    from monai_memo.search.local_features import LocalFeatureRetriever as LocalFeatureRetriever
    from monai_memo.search.matches import Matches as Matches
    from monai_memo.search.pair import PairComparison as PairComparison
    from monai_memo.search.pair import compare_pair as compare_pair
    from monai_memo.search.parts import PartMatches as PartMatches
    from monai_memo.search.parts import PartSearch as PartSearch
    from monai_memo.search.placed import Placed as Placed
    from monai_memo.search.protocols import Encoder as Encoder
    from monai_memo.search.protocols import Reranker as Reranker
    from monai_memo.search.protocols import Retriever as Retriever
    from monai_memo.search.protocols import Search as Search
    from monai_memo.search.reranker import RegisteredReranker as RegisteredReranker
    from monai_memo.search.runner import Runner as Runner
    from monai_memo.search.shape_retriever import ShapeRetriever as ShapeRetriever
    from monai_memo.search.volume_retriever import VolumeRetriever as VolumeRetriever

_MODULES = {
    "ArrayEncoder": "monai_memo.search.embedding_retriever",
    "CopySearch": "monai_memo.search.copy_search",
    "EmbeddingIndex": "monai_memo.search.embedding_index",
    "EmbeddingRetriever": "monai_memo.search.embedding_retriever",
    "Encoder": "monai_memo.search.protocols",
    "Gallery": "monai_memo.search.gallery",
    "LocalFeatureRetriever": "monai_memo.search.local_features",
    "Matches": "monai_memo.search.matches",
    "PairComparison": "monai_memo.search.pair",
    "PartMatches": "monai_memo.search.parts",
    "PartSearch": "monai_memo.search.parts",
    "Placed": "monai_memo.search.placed",
    "RegisteredReranker": "monai_memo.search.reranker",
    "Reranker": "monai_memo.search.protocols",
    "Retriever": "monai_memo.search.protocols",
    "Runner": "monai_memo.search.runner",
    "Search": "monai_memo.search.protocols",
    "ShapeRetriever": "monai_memo.search.shape_retriever",
    "VolumeRetriever": "monai_memo.search.volume_retriever",
    "compare_pair": "monai_memo.search.pair",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazily(__name__, _MODULES)

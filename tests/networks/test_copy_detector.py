# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_memo.errors import ConfigurationError
from monai_memo.networks.copy_detector import CopyDetector


@pytest.mark.parametrize(
    ("architecture", "size", "dim"),
    [
        ("default", (32, 32), 128),
        ("default", (64, 32), 128),
        ("default", (16, 16, 16), 128),
        ("paper", (32, 32), 128),
        ("paper", (16, 32, 32), 32),
    ],
)
def test_shapes_of_both_architectures(architecture: str, size: tuple[int, ...], dim: int) -> None:
    network = CopyDetector(len(size), size, architecture=architecture).eval()
    images = torch.rand(3, 1, *size)
    assert network(images).shape == (3, dim) and network.embedding_dim == dim


def test_inner_products_of_embeddings_are_pearson_correlations() -> None:
    network = CopyDetector(2, (32, 32), in_channels=3, embedding_dim=16).eval()
    images = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        products = (network.embed(images) @ network.embed(images).T).numpy()
        expected = np.corrcoef(network(images).numpy())
    np.testing.assert_allclose(products, expected, atol=1e-5)


def test_paper_network_has_the_published_form() -> None:
    flat = CopyDetector(2, (64, 64), architecture="paper")
    assert sum(p.numel() for p in flat.parameters()) == pytest.approx(23.8e6, rel=0.01)  # ResNet-50
    deep = CopyDetector(3, (32, 32, 32), architecture="paper")
    widths = [m.in_features for m in deep.modules() if isinstance(m, torch.nn.Linear)]
    assert widths == [512, 128] and deep.embedding_dim == 32
    assert any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in deep.modules())


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ConfigurationError, match="architecture must be one of default, paper, got 'vit'"):
        CopyDetector(2, (32, 32), architecture="vit")
    with pytest.raises(ConfigurationError, match=r"\[50, 50\] cannot be halved evenly .* for example \[32, 32\]"):
        CopyDetector(2, (50, 50))
    with pytest.raises(ConfigurationError, match="one number per axis"):
        CopyDetector(3, (32, 32))

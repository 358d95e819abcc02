# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What MONAI's ``verify_net_in_out`` can check: networks with one tensor in and one out."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class SingleOutput(nn.Module):
    """One of several outputs of a network.

    Args:
        network: returns a tuple or list of tensors, such as AutoencoderKL (reconstruction, mean, standard deviation) or
            PatchDiscriminator (features, then logits).
        index: which of them.
    """

    def __init__(self, network: nn.Module, index: int = 0) -> None:
        super().__init__()
        self.network, self.index = network, index

    def forward(self, inputs: Tensor, **arguments: Any) -> Tensor:
        """The chosen output for ``(batch, channels, *spatial)``."""
        result: Tensor = self.network(inputs, **arguments)[self.index]
        return result

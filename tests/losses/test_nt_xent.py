# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from monai_memo.losses.nt_xent import NTXentLoss


def by_hand(embeddings: torch.Tensor, temperature: float) -> torch.Tensor:
    """The formula of Chen et al. 2020, row by row."""
    n = len(embeddings) // 2
    z = embeddings - embeddings.mean(dim=1, keepdim=True)
    z = z / z.norm(dim=1, keepdim=True)
    total = torch.tensor(0.0)
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        logits = torch.stack([z[i] @ z[k] / temperature for k in range(2 * n) if k != i])
        total = total - (z[i] @ z[partner] / temperature - torch.logsumexp(logits, 0))
    return total / (2 * n)


def test_loss_is_the_formula() -> None:
    embeddings = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(NTXentLoss(0.07)(embeddings), by_hand(embeddings, 0.07), atol=1e-4)
    assert torch.allclose(NTXentLoss(0.5)(embeddings), by_hand(embeddings, 0.5), atol=1e-5)


def test_bad_batches_are_refused() -> None:
    for shape in ((3, 8), (2, 8), (4, 8, 1)):
        with pytest.raises(ValueError, match="two pairs or more"):
            NTXentLoss()(torch.zeros(shape))


RANK = """
import sys
import time
import torch
from monai_memo.losses.nt_xent import NTXentLoss
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
embeddings = torch.randn(8, 8, generator=torch.Generator().manual_seed(rank)).requires_grad_()
loss = NTXentLoss(0.1)(embeddings)
loss.backward()
torch.save({"loss": loss.detach(), "gradient": embeddings.grad}, f"{folder}/{rank}.pt")
torch.distributed.destroy_process_group()
time.sleep(0.5)  # see training.ranks
"""


def test_two_ranks_see_all_negatives(tmp_path: Path) -> None:
    ranks = [subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    parts = [torch.randn(8, 8, generator=torch.Generator().manual_seed(rank)) for rank in range(2)]
    together = torch.cat([parts[0][:4], parts[1][:4], parts[0][4:], parts[1][4:]]).requires_grad_()
    expected = by_hand(together, 0.1)
    expected.backward()
    assert together.grad is not None
    for rank in range(2):
        assert torch.allclose(found[rank]["loss"], expected.detach(), atol=1e-4)
        mine = torch.cat([together.grad[4 * rank : 4 * rank + 4], together.grad[8 + 4 * rank : 12 + 4 * rank]])
        # Each rank's gradient is that of the sum over ranks; averaging by DDP gives the gradient of the one loss.
        assert torch.allclose(found[rank]["gradient"] / 2, mine, atol=1e-4)

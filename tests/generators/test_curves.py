# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from monai_memo.errors import ConfigurationError
from monai_memo.generators.curves import COPY_RATES, plot_copy_rates, read_curves


def test_curves_are_read_in_order_and_drawn(tmp_path: Path) -> None:
    for values in ({10: 0.1, 20: 0.2}, {20: 0.3, 30: 0.4}):  # the second is a resumed training
        with SummaryWriter(str(tmp_path / "logs")) as writer:
            for step, value in values.items():
                for name in (*COPY_RATES, "nearest_similarity", "tau"):
                    writer.add_scalar(f"copy_rate/{name}", value, step)
                writer.add_scalar("train_loss", 1.0, step)
    curves = read_curves(tmp_path / "logs")
    assert curves["copies"][:, 0].tolist() == [10, 20, 30]
    assert curves["copies"][:, 1] == pytest.approx([0.1, 0.3, 0.4])
    assert "train_loss" not in curves
    assert Image.open(plot_copy_rates({"a": tmp_path / "logs"}, tmp_path / "curves.png", "t")).size[0] == 1100
    with pytest.raises(ConfigurationError, match="no TensorBoard scalars"):
        read_curves(tmp_path / "nothing")

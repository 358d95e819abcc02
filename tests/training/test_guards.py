# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import json
import logging
from pathlib import Path

import pytest
from ignite.engine import Engine

from monai_memo.errors import OutputError
from monai_memo.training.guards import Stats

BUNDLES = Path(__file__).parents[2] / "bundles"


@pytest.mark.parametrize(
    ("error", "logged"),
    [(OSError(errno.ENOSPC, "No space left on device"), False), (OutputError("cannot write"), False),
     (MemoryError(), False), (KeyError("image"), True)],
)  # fmt: skip
def test_only_errors_that_nobody_expects_are_logged_as_tracebacks(
    error: Exception, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def step(engine: Engine, batch: int) -> float:
        raise error

    engine = Engine(step)
    engine.logger = logging.getLogger("guarded")
    engine.logger.setLevel(logging.INFO)
    Stats(tag_name="loss").attach(engine)
    with pytest.raises(type(error)):
        engine.run([1])
    assert ("Traceback" in caplog.text) == logged


def test_every_training_of_a_bundle_logs_so() -> None:
    files = [path for path in sorted(BUNDLES.glob("*/configs/*.json")) if '_handlers"' in path.read_text()]
    assert len(files) >= 7
    for path in files:
        text = json.dumps(json.loads(path.read_text(encoding="utf-8")))
        assert '"_target_": "StatsHandler"' not in text and "guards.Stats" in text, path

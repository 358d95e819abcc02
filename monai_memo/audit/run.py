# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What every step of an audit is handed: its settings, where it works, with whom, and the clock."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from monai_memo.audit.configuration import AuditConfiguration
from monai_memo.audit.sharing import Sharing
from monai_memo.progress import Progress
from monai_memo.search.copy_search import CopySearch, MakeSearch
from monai_memo.search.runner import Runner
from monai_memo.workspace.team import Team
from monai_memo.workspace.torchrun import local_rank

logger = logging.getLogger(__name__)


def resolve_device(device: str, team: Team | None = None) -> str:
    """``"auto"`` is a GPU if there is one; of several ranks on a machine each takes its own."""
    found = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if team is not None and found == "cuda":
        return f"cuda:{local_rank() % max(1, torch.cuda.device_count())}"
    return found


@dataclass(frozen=True)
class Run:
    """One run of an audit.

    Attributes:
        settings: what was asked for.
        out: folder for the result.
        work: folder for what is in progress.
        sharing: what rank 0 says to the others; None where there are none.
        seconds: that each step took; filled while it runs.
        said: of cohorts by name, what is told of them beside what their files tell.
        make_search: see ``Audit``.
    """

    settings: AuditConfiguration
    out: Path
    work: Path
    sharing: Sharing | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)
    make_search: MakeSearch = CopySearch.default

    @property
    def team(self) -> Team | None:
        """The ranks, if there are several."""
        return None if self.sharing is None else self.sharing.team

    @property
    def device(self) -> str:
        """Where this process computes."""
        return resolve_device(self.settings.device, self.team)

    def runner(self, place: str) -> Runner:
        """How a search works here; what it has in progress lies in a folder of that name."""
        settings = self.settings
        return Runner(
            torch.device(self.device), folder=self.work / place, seed=settings.seed, progress=settings.progress,
            team=self.team,
        )  # fmt: skip

    @contextmanager
    def timed(self, step: str, wanted: bool = True) -> Iterator[None]:
        """Tell of a step while it runs, and keep how long it took; nothing of that where it is not ``wanted``."""
        if not wanted:
            yield
            return
        logger.info("%s ...", step)
        start = time.perf_counter()
        with Progress(None, step, shown=self.settings.progress):
            yield
        self.seconds[step] = round(time.perf_counter() - start, 3)

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Options of the commands that look at a study that was run."""

from __future__ import annotations

import argparse

from monai_memo.study.study import GeneratorStudy

SOURCES = ("dataset", "heldout", "detector", "autoencoder")


def add_study(parser: argparse.ArgumentParser) -> None:
    """The options that name a study."""
    parser.add_argument("--study", required=True, help="folder that monai-memo study wrote")
    parser.add_argument("--config", required=True, help="its file")
    for name in SOURCES:
        parser.add_argument(f"--{name}", help="as for monai-memo study")


def study_of(given: argparse.Namespace, progress: bool) -> GeneratorStudy:
    """The study that these options name."""
    sources = {name: getattr(given, name) for name in SOURCES}
    return GeneratorStudy(config=given.config, out=given.study, progress=progress, **sources)

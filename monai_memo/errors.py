# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The errors that a user can cause and can mend. Every message names the argument or file and says what to do."""

from __future__ import annotations

from pathlib import Path


class MemoError(Exception):
    """Base of all errors that monai_memo raises on purpose. The command line prints the message without a traceback.

    Args:
        message: what is wrong, with its names, and what to do.
        plain: the same without any name, id or path: a redacted run shows this one (``monai_memo.redaction``).
    """

    def __init__(self, message: str = "", plain: str | None = None) -> None:
        super().__init__(message)
        self.plain = plain


class CohortError(MemoError):
    """A cohort cannot be read: folder missing or empty, a CSV without its columns, mixed 2D and 3D images."""


class CohortOverlapError(CohortError):
    """The same patient or the same file content stands in two cohorts that have to be disjoint."""


class UnusableImageError(MemoError):
    """One image cannot be used. Callers that work through a cohort catch it, name the image, count it and go on.

    Args:
        path: the file, or the folder of one DICOM series.
        reason: short and free of paths, e.g. ``"unreadable"`` or ``"contains NaN"``; it is shown in the report.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}", f"an image cannot be used: {reason}")
        self.path = Path(path)
        self.reason = reason


class DetectorError(MemoError):
    """A detector file is damaged, of another kind, or does not fit the cohort (dimensions, channels)."""


class GeneratorError(MemoError):
    """Weights of a generator are missing, damaged or of another network, or its latents do not have the right shape."""


class CalibrationError(MemoError):
    """There are too few held-out images for the threshold that was asked for."""


class OutputError(MemoError):
    """The output folder cannot be written: missing permission or disk full. Earlier output is left as it was."""


class TrainingError(MemoError):
    """Training cannot go on: a loss that is not a number, or a checkpoint that belongs to another run."""


class ConfigurationError(MemoError):
    """An argument has a value that is not allowed; the message names it, the value and what is allowed."""

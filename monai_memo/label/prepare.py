# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Prepare a review: draw the pairs and write their pictures into the audit's folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from monai_memo.errors import ConfigurationError
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.label.pairs import write_pairs
from monai_memo.label.settings import ReviewPrepareSettings
from monai_memo.label.study import Study, draw_study
from monai_memo.workspace.locking import FolderLock, require_free
from monai_memo.workspace.working_folder import Workspace

logger = logging.getLogger(__name__)

STUDY, DATASTORE, IMAGES = "study.json", "datastore", "images"
FINAL = Path(DATASTORE) / "labels" / "final"


def open_study(audit: AuditFolder) -> Study:
    """The plan of the review in this audit's folder.

    Raises:
        MemoError: none there.
        ConfigurationError: it belongs to an earlier audit in the same folder.
    """
    study = Study.load(audit.review / STUDY)
    if study.audit != audit.identity:
        raise ConfigurationError(
            f"{audit.review} belongs to an earlier audit in this folder: its pairs are not those of matches.csv. "
            "Move it away, or prepare anew with monai-memo review-prepare --restart."
        )
    return study


def prepare_review(audit: str | Path, **options: Any) -> Study:
    """Draw the pairs of a review and write their pictures to ``AUDIT/review``.

    Pairs are drawn over the whole range of similarities, with known chances, so that ratings can be weighted back to
    all synthetic images. Images that can no longer be read are named and counted.

    Args:
        audit, options: see ``ReviewPrepareSettings``.

    Raises:
        ConfigurationError: no audit there, a redacted one, or a review that has begun already.
    """
    settings = ReviewPrepareSettings(audit=str(audit), **options)
    folder = AuditFolder(Path(settings.audit), settings.train, settings.synthetic)
    folder.require_named()
    with FolderLock(folder.folder, "review-prepare"):
        return _prepare(folder, settings)


def _prepare(folder: AuditFolder, settings: ReviewPrepareSettings) -> Study:
    if (folder.review / STUDY).exists():
        if not settings.restart:
            raise ConfigurationError(
                f"{folder.review} holds a review already. Go on with it, or begin anew with --restart, which keeps "
                "the old one as review.old."
            )
        set_aside(folder)
    result = folder.result
    preprocessing = folder.preprocessing
    study = draw_study(
        folder.matches,
        result.tau,
        folder.identity,
        preprocessing.spatial_dims,
        n=settings.n,
        n_uncertain=settings.n_uncertain,
        seed=settings.seed,
        confidence=float(result.calibration["confidence"]),
    )
    images = {name: folder.images(name) for name in ("synthetic", "training")}
    if any(
        os.path.lexists(folder.review / name) for name in (DATASTORE, IMAGES)
    ):  # without a plan, so that it is nobody's who goes on with it
        set_aside(folder)
    workspace = Workspace(folder.review, "review-prepare").open()
    for name in (DATASTORE, IMAGES):  # of a preparation that was interrupted
        workspace.discard(name)
    verified = result.verification is not None
    folders = (workspace.path / DATASTORE, workspace.path / IMAGES)
    study = write_pairs(study, images, preprocessing, folders, verified, settings.progress)
    for path in folders:
        os.replace(path, folder.review / path.name)
    missing = [pair for pair in study.pairs if pair.missing]
    if missing:
        names = ", ".join(f"{pair.synthetic} / {pair.training} ({pair.missing})" for pair in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        logger.warning("%d of %d pairs cannot be shown: %s%s", len(missing), len(study.pairs), names, more)
    # Last: a folder with a plan is a folder that is ready.
    study.save(folder.review / STUDY)
    workspace.clear()
    return study


def set_aside(folder: AuditFolder) -> Path:
    """Move the review of an audit to the first of ``review.old``, ``review.old.2``, ... that is free.

    It holds the work of people: it is never removed.

    Raises:
        OutputError: a server is showing it to raters.
    """
    names = (f"review.old{'' if number == 1 else f'.{number}'}" for number in range(1, 10_000))
    require_free(folder.review, "review-prepare")
    old = next(folder.folder / name for name in names if not os.path.lexists(folder.folder / name))
    os.rename(folder.review, old)
    logger.warning("the earlier review was moved to %s", old.name)
    return old

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The built-in demo: procedural phantoms, a known share of planted copies, one audit."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from monai_memo.audit.configuration import AuditOptions
from monai_memo.errors import ConfigurationError
from monai_memo.progress import Progress
from monai_memo.settings import MODALITIES, Choice, Epochs, Folder, Seed, Share, Whole
from monai_memo.workspace.manifest import require_unredacted
from monai_memo.workspace.place import check_place

if TYPE_CHECKING:
    from monai_memo.audit.result import AuditResult

logger = logging.getLogger(__name__)

Images = Annotated[int, Whole(2, 100_000)]


class DemoSettings(AuditOptions):
    """Write phantom cohorts with planted copies, audit them, and compare the result with the truth.

    Attributes:
        out: folder; the images go to ``<out>/images``, the audit to ``<out>/audit``.
        modality: ``"chest"``, ``"ultrasound"``, ``"pet"`` or ``"dermoscopy"`` (2D, the last one in colour), ``"knee"``,
            ``"coronary"`` or ``"pet_volume"`` (3D).
        n_train, n_heldout, n_synthetic: images of each cohort.
        copy_share: share of the synthetic images that are planted copies of training images.
        seed: of every random step.
        epochs: of the detector; few, so that the demo takes minutes.
    """

    out: Folder = "demo_audit"
    modality: Annotated[str, Choice(*MODALITIES)] = "chest"
    n_train: Images = 300
    n_heldout: Images = 200
    n_synthetic: Images = 150
    copy_share: Share = 0.3
    seed: Seed = 0
    epochs: Epochs | None = 60


DESCRIBED = {
    "data_set": "demo: phantoms drawn by a program, of nobody",
    "model": "none: some of the synthetic images are copies, planted on purpose",
    "author": "monai-memo demo",
}


def run_demo(**arguments: Any) -> tuple[AuditResult, dict[str, int]]:
    """Write phantom cohorts with planted copies, audit them, and return the result next to the truth.

    Args:
        arguments: see ``DemoSettings``.

    Returns:
        The result, and the truth: ``copies`` planted and distinct training images ``memorized`` by them.
    """
    settings = DemoSettings(**arguments)
    logger.info("load PyTorch and MONAI ... (the first time after an installation can take a minute)")
    # PyTorch, SciPy and readers of images, which the help of the command line does without.
    from monai_memo.audit.audit import Audit
    from monai_memo.data.demo_cohorts import write_demo_cohorts

    check_place(settings.out)
    require_unredacted(settings.out)
    out = Path(settings.out)
    _require_ours(out)
    images = out / "images"
    logger.info(
        "draw phantoms ... %d training, %d held-out and %d synthetic images, %d of these planted copies; then they are "
        "audited",
        settings.n_train, settings.n_heldout, settings.n_synthetic, round(settings.copy_share * settings.n_synthetic),
    )  # fmt: skip
    with Progress(None, "draw phantoms", shown=settings.progress):
        write_demo_cohorts(
            images, settings.modality, settings.n_train, settings.n_heldout, settings.n_synthetic, settings.copy_share,
            settings.seed,
        )  # fmt: skip
    with open(images / "truth.csv", newline="", encoding="utf-8") as stream:
        copied = [row["copied_from"] for row in csv.DictReader(stream) if row["copied_from"]]
    audit = Audit(
        train=str(images / "training"),
        heldout=str(images / "heldout"),
        synthetic=str(images / "synthetic"),
        out=str(out / "audit"),
        seed=settings.seed,
        **{**DESCRIBED, "epochs": settings.epochs, **settings.audit_options()},
    )
    return audit.run(), {"copies": len(copied), "memorized": len(set(copied))}


def _require_ours(out: Path) -> None:
    """Phantoms and images of somebody else do not mix, whatever their names.

    Raises:
        ConfigurationError: the folder holds something, and not from a demo.
    """
    from monai_memo.data.demo_cohorts import MARKER

    if not out.is_dir() or (out / "images" / MARKER).is_file() or not any(out.iterdir()):
        return
    raise ConfigurationError(
        f"{out} holds something already that no demo wrote. It is left as it is: name another folder with --out.",
        "the folder of --out holds something already that no demo wrote. It is left as it is: name another folder.",
    )

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""An audit of images in memory, or of a model that draws them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from monai_memo.audit.audit import Audit
from monai_memo.audit.result import AuditResult
from monai_memo.data.in_memory import Written, write_images
from monai_memo.errors import ConfigurationError
from monai_memo.image_arrays import Images
from monai_memo.progress import following
from monai_memo.sampling import Generator, as_generator, drawn
from monai_memo.settings import Whole, value_of

logger = logging.getLogger(__name__)

DRAWN, MOST, AT_ONCE = 200, 10**7, 16  # samples of a model, and how many it is asked for at once
BESIDE = ".images"  # what the folder of images in memory is called, after the folder of the result
COHORTS = {"train": "training", "heldout": "heldout", "synthetic": "synthetic"}

Draw = Callable[[Sequence[int]], Images]


def audit_images(
    train: Images | str | Path,
    heldout: Images | str | Path,
    synthetic: Images | Generator | Draw | str | Path,
    out: str | Path | None = None,
    train_patients: Sequence[object] | None = None,
    heldout_patients: Sequence[object] | None = None,
    **options: object,
) -> AuditResult:
    """``Audit`` of images in memory: arrays, tensors on any device, pictures of Pillow, sequences of these.

    .. versionadded:: 0.2.0

    Each cohort says in the log, in ``result.cohorts`` and in the report what it was taken for: how many images of which
    size, grey or in colour, in which range of values. A cohort may also be a folder or table, as ``Audit`` takes it.
    Images are written as files to ``<out>.images``, where ``release`` and ``review`` find them; with ``redacted`` these
    files are removed at the end.

    Args:
        train: images that the generator was trained on.
        heldout: of other patients.
        synthetic: images to be shared, or a generator (``monai_memo.sampling.Generator``) or function of seeds that
            draws them.
        out: folder for the result; None keeps no file.
        train_patients, heldout_patients: patient of each image; without them every image is a patient of its own.
        options: those of ``Audit`` (``seed``, ``device``, ``size``, ``redacted``, ...); ``n_samples`` of a generator,
            200 by default; ``dims``, 2 or 3, where shapes do not tell.

    Raises:
        MemoError: images or options that cannot be used; the message names the shape and what was expected.

    Example:
        >>> result = audit_images(train, heldout, model.sample, n_samples=500)  # doctest: +SKIP
        >>> result.n_copies.value, result.cohorts["synthetic"].notes  # doctest: +SKIP
    """
    given: dict[str, object] = {"train": train, "heldout": heldout, "synthetic": synthetic}
    patients = {"train": train_patients, "heldout": heldout_patients, "synthetic": None}
    dims = _dims(options.pop("dims", None))
    number = value_of("n_samples", options.pop("n_samples", DRAWN), Whole(1, MOST))
    if isinstance(synthetic, Generator) or (callable(synthetic) and not hasattr(synthetic, "detach")):
        given["synthetic"] = _drawn(as_generator(synthetic), int(number), options)
    for name, who in patients.items():
        if who is not None and isinstance(given[name], str | Path):
            raise ConfigurationError(
                f"{name}_patients: {name} is the path {given[name]}, whose patients stand in its table or files"
            )
    redacted = bool(options.get("redacted", False))
    with _folder(out) as (result, images):
        written: dict[str, Written] = {}
        sources: dict[str, str] = {}
        for name, cohort in given.items():
            if isinstance(cohort, str | Path):
                sources[name] = str(cohort)
                continue
            place = images / name
            written[name] = write_images(cohort, place, patients[name], f"the {COHORTS[name]} images", dims)  # type: ignore[arg-type]
            logger.info("%s images: %s", COHORTS[name], written[name].note)
            sources[name] = str(written[name].table)
        arguments: dict[str, Any] = {**sources, **options}
        audit = Audit(out=str(result), **arguments)
        audit.said = {COHORTS[name]: item.note for name, item in written.items()}
        try:
            return audit.run()
        finally:
            if redacted:
                _remove(written.values())


def _dims(value: object) -> int | None:
    if value not in (None, 2, 3):
        raise ConfigurationError(f"dims must be 2 or 3, got {value!r}")
    return None if value is None else int(str(value))


def _drawn(generator: Generator, number: int, options: dict[str, object]) -> Images:
    """Samples of consecutive seeds, as the monitor draws them."""
    first = int(str(options.get("seed", 0)))
    starts = range(first, first + number, AT_ONCE)
    shown = bool(options.get("progress", True))
    return np.concatenate([
        drawn(generator, range(start, min(start + AT_ONCE, first + number)))
        for start in following(starts, "sample", len(starts), shown)
    ])  # fmt: skip


@contextmanager
def _folder(out: str | Path | None) -> Iterator[tuple[Path, Path]]:
    """Where the result goes, and where the images."""
    if out is not None:
        text = os.fspath(out).rstrip("/\\") or os.fspath(out)
        yield Path(out), Path(text + BESIDE)
        return
    with TemporaryDirectory(prefix="monai_memo_") as folder:
        yield Path(folder) / "audit", Path(folder) / "images"


def _remove(written: Iterable[Written]) -> None:
    """Files of images that were in memory, and the folders that are empty then."""
    for item in written:
        for path in item.files:
            path.unlink(missing_ok=True)
        for folder in (item.table.parent, item.table.parent.parent):
            with suppress(OSError):
                folder.rmdir()

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The memorization card: one page that a team publishes next to a synthetic data set, filled in from an audit.

Like a model card (Mitchell et al., FAT* 2019), for one question: which patients could be in these images?
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from monai_memo.audit.configuration import CardSettings
from monai_memo.audit.giving import privacy_of, privacy_promise, records_of_model, what_was_tested
from monai_memo.audit.pages import FILTERS
from monai_memo.audit.report import repeat_command, skipped_images
from monai_memo.audit.result import AuditResult
from monai_memo.audit.verdict import percent
from monai_memo.data.ladder import UNITS
from monai_memo.errors import ConfigurationError, MemoError, OutputError
from monai_memo.files import sha256_of, write_text, write_with
from monai_memo.text import code, markdown
from monai_memo.workspace.manifest import CARD_HEADING, require_unredacted
from monai_memo.workspace.place import check_place
from monai_memo.workspace.transaction import require_settled

logger = logging.getLogger(__name__)

TODO = "**TO FILL IN**"
TITLES = {"training": "Training", "heldout": "Held-out", "synthetic": "Synthetic"}


def write_card(audit: str | Path, out: str | Path = "card.md", **options: Any) -> Path:
    """Fill in the memorization card of a data set from its audit.

    The card holds counts, rates and settings: no image, name, id or path, whether or not the audit was redacted. What
    an audit cannot know is marked "TO FILL IN".

    Args:
        audit, out, options: see ``CardSettings``.

    Raises:
        OutputError: ``out`` is there and no card. An earlier card is kept beside the new one.
        ConfigurationError: a folder without a record, or an audit before that is not of the same training cohort or of
            fewer images.
    """
    settings = CardSettings(audit=str(audit), out=str(out), **options)
    folder, title, before = Path(settings.audit), settings.title, settings.before
    result = _read_audit(folder, "audit")
    _check_out(Path(settings.out), folder)
    earlier = _earlier_card(Path(settings.out))
    text = render_card(
        result, sha256_of(folder / "audit.json"), title, _review(folder),
        None if before is None else _before(Path(before), result), records_of_model(folder),
        None if settings.weights is None else privacy_of(settings.weights),
    )  # fmt: skip
    if earlier not in (None, text):
        out = Path(settings.out)
        kept = next(
            path for number in count(1) if not os.path.lexists(path := out.with_stem(f"{out.stem}.earlier-{number}"))
        )
        write_with(kept, lambda temporary: shutil.copyfile(out, temporary))  # people may have filled it in
        logger.warning("the earlier card is kept as %s", kept)
    return write_text(settings.out, text)


def render_card(
    result: AuditResult,
    audit_sha256: str,
    title: str | None = None,
    review: Mapping[str, str] | None = None,
    before: Mapping[str, Any] | None = None,
    model: Mapping[str, Mapping[str, Any] | None] | None = None,
    privacy: Mapping[str, Any] | None = None,
) -> str:
    """The text of a card.

    Args:
        result: of the audit of what is released, without patients.
        audit_sha256: of its record.
        title: name of the data set.
        review: what raters say, in words.
        before: the audit before images were removed: ``result``, ``removed``, ``review``, ``same_detector``, and of a
            release ``same_filter``, ``rule``, ``reasons`` (how many went for each) and ``release`` (its statement).
        model: records of tests of the model itself, ``membership`` and ``extraction``.
        privacy: record of the differential privacy that the generator was trained with, see ``giving.privacy_of``.
    """
    environment = Environment(
        loader=PackageLoader("monai_memo.audit"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=False,  # Markdown; text that comes from elsewhere goes through the filter md
    )  # fmt: skip
    environment.filters.update({**FILTERS, "md": markdown, "promise": privacy_promise})
    return environment.get_template("card.md.jinja").render(
        result=result,
        title=title,
        todo=TODO,
        titles=TITLES,
        skipped=skipped_images(result),
        command=code(repeat_command(result)),
        audit_sha256=audit_sha256,
        units=UNITS,
        review=review,
        tested=what_was_tested(result, **(model or {})),
        membership=(model or {}).get("membership"),
        extraction=(model or {}).get("extraction"),
        privacy=privacy,
        before=None if before is None else {"same_filter": False, "rule": TODO, "release": None, **before},
    )


def _check_out(path: Path, audit: Path) -> None:
    """A card lies neither among the images of a cohort, nor in a redacted result, which is handed on as it is."""
    place = path.parent
    require_unredacted(place)
    asked = AuditResult.from_json((audit / "audit.json").read_text(encoding="utf-8")).configuration
    check_place(place.resolve(), {name: asked.get(name) for name in ("train", "heldout", "synthetic")})


def _earlier_card(path: Path) -> str | None:
    """The card that is there already; None if nothing is. Anything else is somebody's and stays."""
    if not os.path.lexists(path):
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    if not path.is_file() or not text.startswith(CARD_HEADING):
        raise OutputError(f"{path} is there already and no memorization card. It is left as it is: name another --out")
    return text


def _read_audit(folder: Path, option: str) -> AuditResult:
    """The record without anything that names a patient, image or folder."""
    path = folder / "audit.json"
    require_settled(folder)
    if not path.is_file():
        raise ConfigurationError(f"{folder} has no audit.json: name the output folder of an audit with --{option}")
    return AuditResult.from_json(path.read_text(encoding="utf-8")).without_patients()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record
    except (OSError, ValueError) as error:
        raise MemoError(f"{path} cannot be read as JSON: {error}") from error


def _before(folder: Path, after: AuditResult) -> dict[str, Any]:
    """What an earlier audit of the same generator found, and how many images were removed since."""
    earlier = _read_audit(folder, "before")
    if earlier.cohorts["training"].content_sha256 != after.cohorts["training"].content_sha256:
        raise ConfigurationError(f"{folder} is an audit with other training images: --before takes one with the same")
    if earlier.n_synthetic < after.n_synthetic:
        raise ConfigurationError(
            f"{folder} is an audit of {earlier.n_synthetic} synthetic images, fewer than the {after.n_synthetic} of "
            "--audit: --before takes the audit before images were removed"
        )
    return {
        "result": earlier,
        "removed": earlier.n_synthetic - after.n_synthetic,
        "review": _review(folder),
        "same_detector": earlier.detector["sha256"] == after.detector["sha256"],
    }


def _review(folder: Path) -> dict[str, str] | None:
    """Raters against the detector, in words; None without a review of this very audit."""
    path = folder / "review.json"
    if not path.is_file():
        return None
    record = _read_json(path)
    if record["audit"] != sha256_of(folder / "matches.csv"):
        return None
    number, rates = len(record["raters"]), record["detector"]["copy_or_same_patient"]["consensus"]

    def words(name: str) -> str:
        rate = rates[name]
        if rate is None:
            return "not known"
        value, low, high = (percent(rate[key], 0) for key in ("value", "low", "high"))
        return f"{value} ({low} to {high})"

    return {
        "raters": f"{number} rater{'s' if number > 1 else ''}, {rates['pairs']} pairs decided",
        **{name: words(name) for name in ("sensitivity", "specificity", "prevalence")},
    }

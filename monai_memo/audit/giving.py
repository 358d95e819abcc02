# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Images alone, an interface, or weights: what was tested of each before it is given away, and what was not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from monai_memo.audit.pages import FILTERS
from monai_memo.audit.result import AuditResult
from monai_memo.audit.verdict import percent
from monai_memo.errors import MemoError
from monai_memo.files import sha256_of
from monai_memo.statistics.membership import excluded_share

Record = Mapping[str, Any]


def records_of_model(folder: Path) -> dict[str, Record | None]:
    """Records of ``monai-memo membership`` and ``extract`` that lie beside an audit and were made for this very one."""
    audit = sha256_of(folder / "audit.json")
    found: dict[str, Record | None] = {}
    for name in ("membership", "extraction"):
        path = folder / f"{name}.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        except (OSError, ValueError) as error:
            raise MemoError(f"{path} cannot be read as JSON: {error}", "a record cannot be read as JSON") from error
        found[name] = record if record is not None and record.get("audit") == audit else None
    return found


def what_was_tested(
    result: AuditResult, membership: Record | None = None, extraction: Record | None = None
) -> list[tuple[str, str]]:
    """What is given away, and what is known of it.

    Args:
        membership, extraction: records of these commands.
    """
    n, most = result.n_synthetic, percent(excluded_share(result.n_synthetic, result.calibration["confidence"]))
    count = cast(Any, FILTERS["count"])(result.n_copies)
    unsearched = "not searched on purpose (monai-memo extract)"
    aimed = unsearched if extraction is None else f"searched on purpose: {_found(extraction)}"
    asked = "not tested (monai-memo membership): weights tell more than images do"
    return [
        ("Images alone", f"these {n} were audited: N_copies {count}. Further images of the same generator were not"),
        (
            "An interface that draws images",
            f"no copy among {n} images would leave up to {most} of all images possible, and whoever draws at will "
            f"draws more; {aimed}",
        ),
        ("Weights", asked if membership is None else f"membership inference: {_found(membership)}"
         + ("" if extraction is None else f" {_found(extraction)}")),
    ]  # fmt: skip


def _found(record: Record) -> str:
    return " ".join([record["headline"], *record["found"]])

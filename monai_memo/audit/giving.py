# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Images alone, an interface, or weights: what was tested of each before it is given away, and what was not."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from monai_memo.audit.pages import FILTERS
from monai_memo.audit.result import AuditResult
from monai_memo.audit.verdict import percent
from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.files import sha256_of
from monai_memo.sealing import load_torch
from monai_memo.statistics.membership import excluded_share

Record = Mapping[str, Any]
# Of the record of differential privacy, what is told; see ``training.private.PrivateTraining.record``.
PRIVACY_KEPT = ("epsilon", "delta", "unit", "patient", "covers", "not_covered", "public_seed", "statement")
MOST_SHOWN = 20.0  # epsilon, beyond which its power is no number to read


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


def privacy_of(weights: str | Path) -> Record:
    """The record of differential privacy beside a generator's weights, and the hash of their file.

    Raises:
        ConfigurationError: no file of weights, or one that knows of none.
    """
    path = Path(weights)
    try:
        content = load_torch(path)
    except OSError as error:
        raise ConfigurationError(f"--weights {path} cannot be read: {error.strerror}") from error
    except Exception as error:
        raise ConfigurationError(f"--weights {path} is damaged or no file of weights") from error
    record = content.get("privacy") if isinstance(content, Mapping) else None
    if not isinstance(record, Mapping):
        raise ConfigurationError(
            f"--weights {path} was not trained with differential privacy (privacy_epsilon): leave the option out"
        )
    if missing := [name for name in PRIVACY_KEPT if name not in record]:
        raise ConfigurationError(
            f"--weights {path} has a record of differential privacy without {missing[0]}: it was written by another "
            "version or program, so that what it guarantees is not known. Leave the option out"
        )
    return {**{name: record[name] for name in PRIVACY_KEPT}, "weights_sha256": sha256_of(path)}


def privacy_promise(privacy: Record) -> str:
    """What a training with differential privacy guarantees for an image and for a patient, in words."""
    if privacy["public_seed"]:
        return "nothing: its noise came from a seed that is known"
    epsilon = privacy["epsilon"]
    power = f" = {math.exp(epsilon):,.1f}" if epsilon < MOST_SHOWN else ""
    said = (
        f"epsilon {epsilon:g}, delta {privacy['delta']:g} for {privacy['unit']} (what somebody finds in the weights is "
        f"up to e^{epsilon:g}{power} times as likely with it as without, but for delta)"
    )
    patient = privacy["patient"]
    if patient is None:
        return f"{said}; patients were not known, so nothing for somebody with several images"
    if patient["images"] == 1:
        return f"{said}; the same for a patient, since nobody has more images"
    who = f"a patient with {patient['images']} images"
    if patient["delta"] is None:
        return f"{said}; nothing for {who} (delta would be 1 or more)"
    return f"{said}; epsilon {patient['epsilon']:g}, delta {patient['delta']:.3g} for {who}"


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

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from monai_memo.audit.result import AuditResult, schema, validate_record
from monai_memo.errors import MemoError


def test_round_trip_and_schema(record: AuditResult, tmp_path: Path) -> None:
    record.validate()
    jsonschema.Draft202012Validator.check_schema(schema())
    again = AuditResult.from_json(record.to_json())
    assert replace(again, matches=record.matches) == record
    assert set(schema()["properties"]) == set(json.loads(record.to_json()))
    assert all("description" in part for part in schema()["properties"].values())


def test_files(record: AuditResult, tmp_path: Path) -> None:
    record.write(tmp_path)
    assert AuditResult.from_json((tmp_path / "audit.json").read_text()).tau == record.tau
    with open(tmp_path / "matches.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0] == {
        "synthetic": "<script>alert(0)</script>.png",
        "nearest_training": "anna & bert 0.png",
        "similarity": "0.900000",
        "tau": "0.700000",
        "copy": "true",
        "p_value": "1.000000",
        "listed": "false",
        "same_image": "",
    }


def test_foreign_records_are_refused(record: AuditResult) -> None:
    content = json.loads(record.to_json())
    with pytest.raises(MemoError, match="must be JSON"):
        AuditResult.from_json("{")
    with pytest.raises(MemoError, match="schema version 2"):
        AuditResult.from_json(json.dumps({**content, "schema_version": "2.0"}))
    with pytest.raises(MemoError, match="n_copies/value"):
        AuditResult.from_json(json.dumps({**content, "n_copies": {**content["n_copies"], "value": "many"}}))
    del content["tau"]
    with pytest.raises(MemoError, match="'tau' is a required property"):
        validate_record(content)


def test_without_patients_nothing_names_one(record: AuditResult) -> None:
    hidden = record.without_patients()
    hidden.validate()
    text = hidden.to_json() + "".join(str(match) for match in hidden.matches)
    for word in ("anna", "hospital", "script", "bert"):
        assert word not in text
    assert hidden.redacted and not record.redacted
    assert hidden.n_copies == record.n_copies and len(hidden.cohorts["training"].skipped) == 1
    assert [match.synthetic for match in hidden.matches] == [f"synthetic {i}" for i in range(1, 7)]
    # The same training image keeps the same number.
    assert hidden.matches[0].nearest_training == hidden.matches[3].nearest_training
    assert any(text.startswith("1 patient in both") for text in hidden.warnings)
    assert "Patients are not known: so be careful." in hidden.warnings

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from monai_memo.audit.parts import Estimate
from monai_memo.audit.result import AuditResult, schema, validate_record
from monai_memo.audit.schema import generated_schema
from monai_memo.errors import MemoError


def test_round_trip_and_schema(record: AuditResult, tmp_path: Path) -> None:
    record.validate()
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.Draft202012Validator(schema()).validate(json.loads(record.to_json()))
    jsonschema.Draft7Validator(schema()).validate(json.loads(record.to_json()))
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
        "look_alikes": "",
        "agrees": "",
        "as_found": "",
        "pair": "1",
        "page": "",
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
    with pytest.raises(MemoError, match="tau: Field required"):
        validate_record(content)


def test_the_schema_in_the_package_is_made_from_the_types() -> None:
    assert schema() == generated_schema(), "python -m monai_memo.audit.schema monai_memo/audit/audit_result.schema.json"


@pytest.mark.parametrize("version", ["1.0", "1.2", "1.3"])
def test_records_of_earlier_versions_are_read(record: AuditResult, version: str) -> None:
    content = json.loads(record.to_json())
    for name in ("discoveries", "sampling_curve", "same_patient", "verification", "detection_limit"):
        del content[name]
    for summary in content["cohorts"].values():
        del summary["notes"], summary["repeated"]
    content |= {"schema_version": version, "added_later": {"x": 1}}
    content["detector"]["added_later"] = [2]
    again = AuditResult.from_json(json.dumps(content))
    assert again.n_copies == record.n_copies and again.detection_limit is None
    assert again.cohorts["training"].notes == [] and again.cohorts["training"].skipped[0]["reason"] == "unreadable"
    assert again.sensitivity is not None and again.sensitivity["rate"] == Estimate(0.9, 0.79, 0.96)
    assert again.detector["added_later"] == [2]  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n_train", "100", "n_train: Input should be a valid integer, got '100'"),
        ("n_train", -1, "n_train: Input should be greater than or equal to 0, got -1"),
        ("tau", {"value": 1, "low": 0, "high": 1, "more": 2}, "tau/more"),
        ("verdict", {"level": "safe", "headline": "", "detail": ""}, "verdict/level"),
        ("cohorts", {}, "cohorts: .*training, heldout, synthetic is missing"),
        ("distributions", {"x": ["1"]}, "distributions/x/0"),
        ("redacted", "no", "redacted"),
    ],
)
def test_fields_of_another_type_are_refused(record: AuditResult, name: str, value: object, message: str) -> None:
    with pytest.raises(MemoError, match=f"not an audit's record: {message}"):
        validate_record({**json.loads(record.to_json()), name: value})


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", "3", '{"schema_version": {"a": 1}}', "\ud800", "NaN"])
def test_no_text_gives_another_error(text: str) -> None:
    with pytest.raises(MemoError):
        AuditResult.from_json(text)


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

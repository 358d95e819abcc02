# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The audit: the run, its record, its evidence and its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_memo.lazy import lazily

if TYPE_CHECKING:
    from monai_memo.audit.audit import Audit as Audit
    from monai_memo.audit.configuration import AuditConfiguration as AuditConfiguration
    from monai_memo.audit.configuration import InspectionSettings as InspectionSettings
    from monai_memo.audit.evidence import PairEvidence as PairEvidence
    from monai_memo.audit.in_memory import audit_images as audit_images
    from monai_memo.audit.inspection import Inspection as Inspection
    from monai_memo.audit.parts import Count as Count
    from monai_memo.audit.parts import Estimate as Estimate
    from monai_memo.audit.parts import Match as Match
    from monai_memo.audit.parts import Verdict as Verdict
    from monai_memo.audit.report import render_report as render_report
    from monai_memo.audit.report import write_report as write_report
    from monai_memo.audit.result import AuditResult as AuditResult
    from monai_memo.audit.result import validate_record as validate_record

_MODULES = {
    "Audit": "monai_memo.audit.audit",
    "AuditConfiguration": "monai_memo.audit.configuration",
    "AuditResult": "monai_memo.audit.result",
    "Count": "monai_memo.audit.parts",
    "Estimate": "monai_memo.audit.parts",
    "Inspection": "monai_memo.audit.inspection",
    "InspectionSettings": "monai_memo.audit.configuration",
    "Match": "monai_memo.audit.parts",
    "PairEvidence": "monai_memo.audit.evidence",
    "Verdict": "monai_memo.audit.parts",
    "audit_images": "monai_memo.audit.in_memory",
    "render_report": "monai_memo.audit.report",
    "validate_record": "monai_memo.audit.result",
    "write_report": "monai_memo.audit.report",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazily(__name__, _MODULES)

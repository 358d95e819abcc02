# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Thresholds, counts, controls and intervals. NumPy and SciPy only: everything here sees arrays of similarities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_memo.lazy import lazily

if TYPE_CHECKING:
    from monai_memo.statistics.agreement import cohen_kappa as cohen_kappa
    from monai_memo.statistics.agreement import fleiss_kappa as fleiss_kappa
    from monai_memo.statistics.agreement import stratified_bootstrap as stratified_bootstrap
    from monai_memo.statistics.calibration import smallest_heldout as smallest_heldout
    from monai_memo.statistics.calibration import threshold_copies as threshold_copies
    from monai_memo.statistics.calibration import threshold_memorized as threshold_memorized
    from monai_memo.statistics.calibration import threshold_paper as threshold_paper
    from monai_memo.statistics.control import control_copies as control_copies
    from monai_memo.statistics.control import control_memorized as control_memorized
    from monai_memo.statistics.discoveries import Discoveries as Discoveries
    from monai_memo.statistics.discoveries import benjamini_hochberg as benjamini_hochberg
    from monai_memo.statistics.discoveries import conformal_p_values as conformal_p_values
    from monai_memo.statistics.discoveries import discover as discover
    from monai_memo.statistics.intervals import Interval as Interval
    from monai_memo.statistics.intervals import percentile_interval as percentile_interval
    from monai_memo.statistics.intervals import proportion_interval as proportion_interval
    from monai_memo.statistics.intervals import wilson_interval as wilson_interval
    from monai_memo.statistics.rates import AuditRates as AuditRates
    from monai_memo.statistics.rates import audit_rates as audit_rates
    from monai_memo.statistics.rates import thresholds as thresholds
    from monai_memo.statistics.reader_study import DetectionRates as DetectionRates
    from monai_memo.statistics.reader_study import detection_rates as detection_rates
    from monai_memo.statistics.reader_study import draw_sample as draw_sample
    from monai_memo.statistics.reader_study import score_strata as score_strata
    from monai_memo.statistics.sampling_curve import SamplingCurve as SamplingCurve
    from monai_memo.statistics.sampling_curve import expected_copied as expected_copied
    from monai_memo.statistics.similarities import Similarities as Similarities
    from monai_memo.statistics.similarities import neighbours_needed as neighbours_needed

_MODULES = {
    "AuditRates": "monai_memo.statistics.rates",
    "DetectionRates": "monai_memo.statistics.reader_study",
    "Discoveries": "monai_memo.statistics.discoveries",
    "Interval": "monai_memo.statistics.intervals",
    "SamplingCurve": "monai_memo.statistics.sampling_curve",
    "Similarities": "monai_memo.statistics.similarities",
    "audit_rates": "monai_memo.statistics.rates",
    "benjamini_hochberg": "monai_memo.statistics.discoveries",
    "cohen_kappa": "monai_memo.statistics.agreement",
    "conformal_p_values": "monai_memo.statistics.discoveries",
    "control_copies": "monai_memo.statistics.control",
    "control_memorized": "monai_memo.statistics.control",
    "detection_rates": "monai_memo.statistics.reader_study",
    "discover": "monai_memo.statistics.discoveries",
    "draw_sample": "monai_memo.statistics.reader_study",
    "expected_copied": "monai_memo.statistics.sampling_curve",
    "fleiss_kappa": "monai_memo.statistics.agreement",
    "neighbours_needed": "monai_memo.statistics.similarities",
    "percentile_interval": "monai_memo.statistics.intervals",
    "proportion_interval": "monai_memo.statistics.intervals",
    "score_strata": "monai_memo.statistics.reader_study",
    "smallest_heldout": "monai_memo.statistics.calibration",
    "stratified_bootstrap": "monai_memo.statistics.agreement",
    "threshold_copies": "monai_memo.statistics.calibration",
    "threshold_memorized": "monai_memo.statistics.calibration",
    "threshold_paper": "monai_memo.statistics.calibration",
    "thresholds": "monai_memo.statistics.rates",
    "wilson_interval": "monai_memo.statistics.intervals",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazily(__name__, _MODULES)

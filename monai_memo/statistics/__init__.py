# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Thresholds, counts, controls and intervals. NumPy and SciPy only: everything here sees arrays of similarities."""

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The audit: the run, its record, its evidence and its report."""

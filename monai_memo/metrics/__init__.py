# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Metrics in MONAI's form."""

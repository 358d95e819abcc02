# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Cohorts, one preprocessing for all of them, and phantoms and planted copies to try things on."""

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Losses that MONAI does not have in the form needed here."""

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Retrieve and verify: candidates by embedding, then alignment and local comparison of each pair."""

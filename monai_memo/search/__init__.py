# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours among embeddings."""

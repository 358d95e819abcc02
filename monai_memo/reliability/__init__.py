# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Faults on purpose: kills, full disks, commands against each other, damaged files. See ``docs/reliability.md``."""

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""From an audit to a folder that can be given away: filter, second look, clean files, and what is still possible."""

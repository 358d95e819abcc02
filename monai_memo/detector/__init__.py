# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The detector: how it is trained, what its file holds, and how it embeds a cohort."""

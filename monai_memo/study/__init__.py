# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Studies: what makes a generator memorize, over a grid of trainings that are all audited in the same way."""

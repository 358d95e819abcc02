# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What comes with the library besides Python: bundles, ready detectors, lists of tested versions."""

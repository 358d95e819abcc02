# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How good is the detector, and do the numbers of an audit hold? Measured with copies planted on purpose."""

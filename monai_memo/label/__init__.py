# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The review: raters look at pairs of a synthetic image and its nearest training image, served by MONAI Label.

Modules in ``server`` and ``app`` need MONAI Label (extra ``label``); everything else works without.
"""

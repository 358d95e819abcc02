# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The review: raters look at pairs of a synthetic image and its nearest training image, rated in a browser.

Our own server (``web``) needs nothing further. Modules in ``server`` and ``app`` are for MONAI Label (extra ``label``).
"""

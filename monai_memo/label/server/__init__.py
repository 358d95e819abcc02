# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The MONAI Label app. These modules need MONAI Label (extra ``label``)."""

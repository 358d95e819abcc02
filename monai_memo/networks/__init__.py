# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Networks that turn an image into an embedding."""

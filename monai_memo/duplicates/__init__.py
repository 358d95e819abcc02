# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Images that stand twice, nearly twice, or in two splits by one patient: before anything is trained on them."""

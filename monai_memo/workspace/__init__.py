# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Output folders: who may write there, what is work in progress, and how a result comes in whole or not at all."""

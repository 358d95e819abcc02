# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Ignite handlers: copy rates while a generator trains, and what follows from them."""

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Latent diffusion models: training, sampling, evaluation, and weights from elsewhere."""

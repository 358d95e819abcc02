# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Registration of image pairs: filters, affine transforms, a coarse search, Gauss-Newton steps, local correlation."""

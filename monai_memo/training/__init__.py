# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Training that can be killed and repeated: seeded batches, atomic checkpoints, guards."""

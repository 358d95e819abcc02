# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""App folder for ``monailabel start_server --app``."""

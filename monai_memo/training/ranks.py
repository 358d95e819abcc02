# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Leaving a training that ran in several processes."""

import time

import ignite.distributed as idist

# Gloo's threads need milliseconds to let go of the last collective; an exiting interpreter aborts a thread that
# still holds a tensor (github.com/pytorch/pytorch/pull/179291), and one aborted rank makes a finished training fail.
SECONDS_TO_SETTLE = 0.5


def leave_ranks() -> None:
    """End the process group of :mod:`ignite.distributed`, so that every rank exits with status 0.

    Belongs at the very end of a training, on every rank; without a process group it does nothing.
    """
    several = idist.get_world_size() > 1
    idist.finalize()
    if several:
        time.sleep(SECONDS_TO_SETTLE)

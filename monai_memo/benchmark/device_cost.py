# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What a search takes on one device: seconds, memory, and what share of a card's peak that is."""

from __future__ import annotations

import platform
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from monai_memo.search.copy_search import CopySearch
from monai_memo.search.gallery import Gallery
from monai_memo.search.runner import Runner

SIDE, REPEATS = 8192, 10  # of the matrix product that a card's peak is read off
PROFILED = 4  # blocks of queries


def peak_tflops(device: torch.device) -> float:
    """10**12 operations a second of a large matrix product in single precision, without reduced formats."""
    first = torch.randn(SIDE, SIDE, device=device)
    first @ first
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(REPEATS):
        first @ first
    torch.cuda.synchronize(device)
    return 2 * SIDE**3 * REPEATS / (time.perf_counter() - start) / 1e12


def operations_a_query(search: CopySearch, queries: NDArray[np.floating]) -> float:
    """Operations of matrix products and convolutions; what is done place by place is not counted."""
    with FlopCounterMode(display=False) as counter:
        search.search(queries)
    return counter.get_total_flops() / len(queries)


def busy_share(search: CopySearch, queries: NDArray[np.floating]) -> tuple[float, list[tuple[str, float]]]:
    """Share of the time in which the card works, and the steps that it works on longest, with their shares."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    start = time.perf_counter()
    with torch.profiler.profile(activities=activities) as profile:
        search.search(queries)
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    events = [(one.key, one.self_device_time_total / 1e6) for one in profile.key_averages() if _on_card(one)]
    work = sum(taken for _, taken in events)
    longest = sorted(events, key=lambda one: -one[1])[:8]
    return work / seconds, [(name[:60], round(taken / work, 3)) for name, taken in longest]


def _on_card(event: Any) -> bool:
    return event.device_type == torch.autograd.DeviceType.CUDA


def time_search(
    search: CopySearch, gallery: NDArray[np.floating], queries: NDArray[np.floating], device: torch.device
) -> dict[str, Any]:
    """Fit and search once, after a card was woken up.

    Args:
        search: not fitted yet.
        gallery, queries: ``(n, channels, *spatial)`` in [0, 1].

    Returns:
        Seconds of both, and on a card: the most memory held (GiB), its peak, operations a query, the share of the peak
        that matrix products and convolutions reach, and the share of the time in which the card works.
    """
    on_card, row = device.type == "cuda", dict[str, Any]()
    if on_card:
        row["card_tflops"] = round(peak_tflops(device), 1)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    search.fit(Gallery(gallery), Runner(device))
    fitted = time.perf_counter()
    search.search(queries)
    seconds = time.perf_counter() - fitted
    row |= {
        "device": torch.cuda.get_device_name(device) if on_card else platform.processor() or "cpu",
        "gallery": len(gallery), "queries": len(queries), "size": list(gallery.shape[2:]),
        "fit_seconds": round(fitted - start, 2), "search_seconds": round(seconds, 2),
    }  # fmt: skip
    if on_card:
        row["peak_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
        some = queries[: PROFILED * search.runner.queries_at_once]
        operations = operations_a_query(search, some)
        row["gigaflops_a_query"] = round(operations / 1e9, 3)
        row["share_of_peak"] = round(operations * len(queries) / seconds / 1e12 / row["card_tflops"], 4)
        row["busy_share"], row["longest"] = busy_share(search, some)
        row["busy_share"] = round(row["busy_share"], 3)
    return row

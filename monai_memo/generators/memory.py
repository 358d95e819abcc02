# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Memory of one training step: found on the meta device, where nothing is computed, or measured on the CPU."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_memo.errors import ConfigurationError

PROCESS = Path("/proc/self")


@dataclass(frozen=True)
class StepMemory:
    """What one training step keeps at once.

    Attributes:
        parameters: numbers in the network.
        weight_bytes: weights, gradients and Adam's two moments in float32, and ``copies`` more of the weights (EMA).
        activation_bytes: tensors that autograd keeps for the backward pass, in float32.
    """

    parameters: int
    weight_bytes: int
    activation_bytes: int

    def gib(self, autocast: bool = False) -> float:
        """GiB in all; with autocast activations count half. Buffers of convolutions and the allocator come on top."""
        return (self.weight_bytes + self.activation_bytes / (2 if autocast else 1)) / 2**30


def step_memory(build: Callable[[], nn.Module], *inputs: tuple[int, ...], copies: int = 0) -> StepMemory:
    """Memory of one forward and backward pass.

    Args:
        build: makes the network; called on the meta device.
        inputs: shapes of the arguments of ``forward``, batch included.
        copies: further copies of the weights on the device.

    Example:
        >>> memory = step_memory(lambda: nn.Linear(10, 5), (4, 10))
        >>> memory.parameters, memory.weight_bytes, memory.activation_bytes
        (55, 880, 160)
    """
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.device("meta"):
        network = build().train()
        parameters = list(network.parameters())
        weights = {parameter.untyped_storage()._cdata for parameter in parameters}
        arguments = [torch.empty(shape) for shape in inputs]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output: Any = network(*arguments)
    held = [tensor for storage, tensor in kept.items() if storage not in weights]
    del output
    count = sum(parameter.numel() for parameter in parameters)
    activations = sum(tensor.untyped_storage().nbytes() for tensor in held)
    return StepMemory(count, count * 4 * (4 + copies), activations)


def measure_step(build: Callable[[], nn.Module], *inputs: tuple[int, ...]) -> int:
    """Peak memory in bytes of one real step on the CPU: forward, backward and Adam, whose moments are there already.

    What the process holds beforehand does not count; workspace of the convolutions and what the allocator keeps do. It
    is the resident memory that Linux counts, whose peak is reset first.

    Args:
        build: makes the network.
        inputs: shapes of the arguments of ``forward``, batch included; filled with random numbers.

    Raises:
        ConfigurationError: a system that does not let a process reset its peak.
    """
    gc.collect()  # what is collected during the step would be taken off its peak
    try:
        (PROCESS / "clear_refs").write_text("5")  # proc(5): resets the peak of the resident memory
        before = _resident("VmHWM")
    except (OSError, KeyError) as error:
        raise ConfigurationError(f"memory can be measured on Linux only ({error}): use step_memory") from error
    network = build().train()
    optimizer = torch.optim.Adam(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # makes the moments, which a first step does not have to hold beside its activations
    output: Any = network(*(torch.rand(shape) for shape in inputs))
    tensors = [output] if isinstance(output, Tensor) else [part for part in output if isinstance(part, Tensor)]
    sum(tensor.square().mean() for tensor in tensors).backward()  # type: ignore[union-attr]
    optimizer.step()
    return _resident("VmHWM") - before


def _resident(key: str) -> int:
    lines = (PROCESS / "status").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(":", 1) for line in lines)[key].split()[0]) * 1024

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Weights of autoencoders and diffusion models: save, and load whoever trained them.

Loaded are files of this library, plain state dicts of MONAI core and of monai-generative
(``generative.networks.nets``, the older key names included), and state dicts inside a record, as trainers write them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from monai_memo.errors import GeneratorError
from monai_memo.files import write_with
from monai_memo.sealing import load_torch, save_torch

Record = Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None  # beside weights; called when they are written
KIND, FORMAT = "monai_memo generator weights", 1
WRAPPERS = ("state_dict", "unet_state_dict", "autoencoder_state_dict", "model_state_dict", "network", "model")
PREFIX = "module."
RENAMED = (".attn.to_", "out_proj.", "postconv.")  # by MONAI core, compared with monai-generative

Network = TypeVar("Network", bound=nn.Module)


def weights_sha256(network: nn.Module) -> str:
    """Hash of names and values: equal weights have equal hashes, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def parameters_of(*networks: nn.Module) -> int:
    """Numbers in networks."""
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def told(record: Record) -> dict[str, Any]:
    """What is to stand beside weights, as it is now."""
    return dict(record() if callable(record) else record or {})


def save_weights(path: str | Path, network: nn.Module, **record: Any) -> Path:
    """Write a network's weights and what else is known (plain types only) to one file, atomically."""
    weights = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    content = {"kind": KIND, "format": FORMAT, "network": type(network).__name__, "state_dict": weights, **record}
    return write_with(path, lambda temporary: save_torch(temporary, content))


def read_record(path: str | Path, what: str = "weights") -> dict[str, Any]:
    """Whole content of a weights file; nothing in it is executed (``weights_only=True``).

    Args:
        what: how the file is called in the message, for example ``"autoencoder weights"``.

    Raises:
        GeneratorError: missing, damaged, or holding anything but tensors and plain types.
    """
    path = Path(path)
    if not path.is_file():
        raise GeneratorError(f"no {what} at {path}. Train them first, or name the file.")
    try:
        record = load_torch(path)
    except Exception as error:
        raise GeneratorError(f"{path} is damaged or no file of {what}: {error.__class__.__name__}") from error
    if not isinstance(record, Mapping):
        raise GeneratorError(f"{path} holds a {type(record).__name__} and no {what}")
    return dict(record)


def state_dict_of(record: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict in a record, whatever it is wrapped in, without the prefix of ``DistributedDataParallel``."""
    inner: Mapping[str, Any] = record
    for _ in range(3):  # trainers nest them: {"model": {"state_dict": ...}}
        name = next((key for key in WRAPPERS if isinstance(inner.get(key), Mapping)), None)
        if name is None:
            break
        inner = inner[name]
    tensors = {key: value for key, value in inner.items() if isinstance(value, Tensor)}
    if tensors and all(key.startswith(PREFIX) for key in tensors):
        tensors = {key.removeprefix(PREFIX): value for key, value in tensors.items()}
    return tensors


def _mismatch(network: nn.Module, weights: Mapping[str, Tensor]) -> str:
    own = network.state_dict()
    missing, unknown = [key for key in own if key not in weights], [key for key in weights if key not in own]
    shapes = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    parts = []
    if missing:
        parts.append(f"{len(missing)} weights are missing, for example {missing[0]}")
    if unknown:
        parts.append(f"{len(unknown)} are unknown, for example {unknown[0]}")
    if shapes:
        key = shapes[0]
        parts.append(
            f"{len(shapes)} have another shape, for example {key}: {tuple(weights[key].shape)} in the file, "
            f"{tuple(own[key].shape)} in the network"
        )
    return "; ".join(parts) or "no weights in it"


def _without_projection(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of monai-generative whose attention ends without a projection.

    ``generative.networks.nets`` has a layer ``proj_attn`` that it never applies. MONAI core applies ``out_proj`` in its
    place, so for equal outputs that has to be the identity.
    """
    result = dict(weights)
    for key, value in weights.items():
        if key.endswith("proj_attn.weight"):
            result[key] = torch.eye(len(value), dtype=value.dtype)
        elif key.endswith("proj_attn.bias"):
            result[key] = torch.zeros_like(value)
    return result


def load_state(network: Network, weights: Mapping[str, Tensor], source: str | Path) -> Network:
    """Load a state dict with MONAI core's or monai-generative's key names; strict in everything else.

    Raises:
        GeneratorError: the weights are of another network.
    """
    own = network.state_dict()
    before = {key: value.clone() for key, value in own.items()}
    error: Exception | None = None
    try:
        if set(weights) == set(own):
            network.load_state_dict(dict(weights))
            return network
        renamed = all(key in weights or any(part in key for part in RENAMED) for key in own)
        if weights and renamed and hasattr(network, "load_old_state_dict"):
            # MONAI's method empties the dict, prints, and leaves at random what is missing: hence the check before.
            remaining, loader = _without_projection(weights), cast(Any, network)
            with contextlib.redirect_stdout(io.StringIO()):
                loader.load_old_state_dict(remaining)
            left = [key for key in remaining if not key.endswith(("proj_attn.weight", "proj_attn.bias"))]
            if not left:
                return network
    except (KeyError, RuntimeError) as found:
        error = found
    network.load_state_dict(before)
    raise GeneratorError(
        f"{source} does not fit {type(network).__name__}: {_mismatch(network, weights)}. It belongs to another "
        "network, or the config describes another one."
    ) from error


def load_weights(network: Network, path: str | Path, what: str = "weights") -> Network:
    """Load a file into a network and switch it to evaluation mode.

    Raises:
        GeneratorError: missing, damaged, or of another network.

    Example:
        >>> from monai.networks.nets import AutoencoderKL
        >>> net = AutoencoderKL(2, 1, 1, (1,), (4,), (False,), norm_num_groups=4)
        >>> load_weights(net, "nowhere.pt")
        Traceback (most recent call last):
        ...
        monai_memo.errors.GeneratorError: no weights at nowhere.pt. Train them first, or name the file.
    """
    if not network.state_dict():  # there is nothing to load, as in ``first_stage.PixelSpace``
        return network.eval()
    return load_state(network, state_dict_of(read_record(path, what)), path).eval()

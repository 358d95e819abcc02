# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Caches and checkpoints that know what they were made from, and whether they are still whole.

``fingerprint`` is one hash of everything that changes a result. A *sealed* file ends with the fingerprint of what it
was made from and the hash of its bytes: NumPy and PyTorch ignore what follows their data, so that it stays an ordinary
file of its kind. A file that was cut, or in which one bit has changed, is never used.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.errors import OutputError
from monai_memo.files import blocks, release, write_json, write_with

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

CODE = 1  # raise it when the same input comes to give another result: older caches and checkpoints are then not used
NUMERIC = ("torch", "monai", "numpy")
READERS = ("pillow", "nibabel", "itk", "pydicom", "python-gdcm")
BEGINNING = b"\nmonai_memo seal "
LENGTH = len(BEGINNING) + 64 + 1 + 64 + 1
NO_FINGERPRINT = "0" * 64
BLOCK = 1 << 20
DEEPEST = 20


@cache
def package_version(name: str) -> str:
    """Installed version without its build (``+cpu``)."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return "not installed"


def fingerprint(
    kind: str,
    parts: Any,
    arrays: Iterable[NDArray[np.generic]] = (),
    packages: Iterable[str] = NUMERIC,
) -> str:
    """Hash of everything that a result is made from.

    Args:
        kind: what is made, for example ``"latents"``; two kinds never share a fingerprint.
        parts: settings, and networks, optimisers and the like as they are built: see ``described``.
        arrays: data, may be memory-mapped; type and shape count too.
        packages: whose versions count.

    Raises:
        TypeError: a part that cannot be described; nothing is left out in silence.

    Example:
        >>> fingerprint("a", {"x": 1, "y": 2}) == fingerprint("a", {"y": 2, "x": 1}) != fingerprint("b", {"x": 1})
        True
    """
    versions = {"code": CODE, **{name: package_version(name) for name in packages}}
    text = json.dumps([kind, versions, described(parts)], sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        digest.update(array_sha256(array).encode())
    return digest.hexdigest()


def array_sha256(array: NDArray[np.generic]) -> str:
    """Hash of an array's type, shape and values; read in blocks."""
    digest = hashlib.sha256(json.dumps([array.dtype.str, list(array.shape)]).encode())
    for rows in blocks(array) if array.ndim else ():
        digest.update(np.ascontiguousarray(array[rows]).tobytes())
        release(array)
    if not array.ndim:
        digest.update(array.tobytes())
    return digest.hexdigest()


def described(value: Any, depth: int = 0) -> Any:
    """``value`` in JSON types, the same in every process.

    Networks are described by the settings of all their layers (also those that no weight shows, such as the number of
    groups of a norm or of heads) and by the values that training does not change; optimisers by their settings;
    functions by their name and what they close over; other objects by their attributes.

    Raises:
        TypeError: something without any of these.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return repr(value)
    if depth > DEEPEST:
        raise TypeError(f"{type(value).__name__} is nested too deeply to be described")
    inner: Callable[[Any], Any] = partial(described, depth=depth + 1)
    if isinstance(value, Path | bytes):
        return [type(value).__name__, str(value)]
    if isinstance(value, np.generic | np.ndarray):
        return ["array", array_sha256(np.asarray(value))]
    if isinstance(value, list | tuple | range):
        return [inner(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): inner(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((inner(item) for item in value), key=repr)
    return _described_object(value, inner)


def _described_object(value: Any, inner: Callable[[Any], Any]) -> Any:
    import torch

    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, torch.device):
        return [kind, value.type]  # not its number: the second of two like GPUs computes the same
    if isinstance(value, torch.Tensor):
        return [kind, array_sha256(value.detach().cpu().numpy())]
    if isinstance(value, torch.nn.Module):
        return _described_module(value, inner)
    if isinstance(value, torch.optim.Optimizer):
        groups = [{key: item for key, item in group.items() if key != "params"} for group in value.param_groups]
        return [kind, inner(groups)]
    if isinstance(value, type | BuiltinFunctionType | torch.dtype):
        return [kind, getattr(value, "__qualname__", str(value))]
    if isinstance(value, MethodType):
        return [kind, value.__qualname__]
    if isinstance(value, partial):
        return [kind, inner(value.func), inner(value.args), inner(value.keywords)]
    if isinstance(value, FunctionType):
        closed = [cell.cell_contents for cell in value.__closure__ or ()]
        return [kind, value.__module__, value.__qualname__, inner(closed), inner(value.__defaults__)]
    if dataclasses.is_dataclass(value):
        return [kind, {field.name: inner(getattr(value, field.name)) for field in dataclasses.fields(value)}]
    if hasattr(value, "__dict__"):
        return [kind, inner(vars(value))]
    raise TypeError(f"{kind} cannot be described for a fingerprint")


def _described_module(module: nn.Module, inner: Callable[[Any], Any]) -> Any:
    layers = []
    for name, layer in module.named_modules():
        plain = {
            key: inner(item)
            for key, item in vars(layer).items()
            if key != "training" and not key.startswith("_") and _is_plain(item)
        }
        layers.append([name, f"{type(layer).__module__}.{type(layer).__qualname__}", plain])
    tensors = []
    for name, tensor in module.state_dict().items():
        tensors.append([name, str(tensor.dtype), list(tensor.shape)])
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    fixed = {name: inner(tensor) for name, tensor in module.state_dict().items() if name not in trained}
    return [layers, tensors, fixed]


def _is_plain(value: Any) -> bool:
    """Numbers, words, arrays and lists of them; layers in lists are met as modules of their own."""
    import torch

    if isinstance(value, list | tuple | set | frozenset):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(_is_plain(item) for item in value.values())
    if isinstance(value, torch.nn.Module):
        return False
    return value is None or isinstance(value, bool | int | float | str | torch.Tensor | np.ndarray | np.generic)


class DamagedError(ValueError):
    """A file that was sealed, and is not any more what was written."""


def seal(path: Path, identity: str) -> None:
    """Append fingerprint and hash to a file."""
    digest = _digest(path, os.path.getsize(path), identity)
    with open(path, "ab") as stream:
        stream.write(BEGINNING + identity.encode() + b" " + digest.encode() + b"\n")


def sealed_identity(path: str | Path) -> str | None:
    """The fingerprint that a file was sealed with; None for a file without a seal.

    The whole file is read.

    Raises:
        DamagedError: cut, or changed by as little as one bit.
    """
    path = Path(path)
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        stream.seek(max(0, size - LENGTH))
        tail = stream.read()
    if len(tail) < LENGTH or not tail.startswith(BEGINNING):
        return None
    identity, _, digest = tail[len(BEGINNING) : -1].decode("ascii", "replace").partition(" ")
    if tail[-1:] != b"\n" or _digest(path, size - LENGTH, identity) != digest:
        raise DamagedError(f"{path} is damaged")
    return identity


def is_sealed(path: str | Path, identity: str) -> bool:
    """Whether a file is there, whole, and made from this. Says in the log what is wrong with one that is not."""
    path = Path(path)
    if not path.is_file():
        return False
    try:
        found = sealed_identity(path)
    except (OSError, ValueError):
        logger.warning("%s is damaged: it is made again", path)
        return False
    if found is None:
        logger.warning("%s is damaged or of an earlier version: it is made again", path)
        return False
    if found != identity:
        logger.info("%s was made from something else: it is made again", path)
    return found == identity


def write_sealed(path: str | Path, writer: Callable[[Path], Any], identity: str = NO_FINGERPRINT) -> Path:
    """Let ``writer`` write a temporary file, seal it, and replace ``path`` with it in one step."""

    def write(temporary: Path) -> None:
        writer(temporary)
        seal(temporary, identity)

    return write_with(path, write)


def save_torch(path: Path, record: Any) -> None:
    """``torch.save``, whose complaint about a full disk is an ``OSError`` like everybody else's.

    Equal records give equal bytes: written by its name, the archive would keep that of the temporary file.
    """
    import torch

    try:
        with open(path, "wb") as stream:
            torch.save(record, stream)
    except RuntimeError as error:
        # PyTorch's writer says "[enforce fail at inline_container.cc ...] unexpected pos": it has lost errno.
        if any(words in str(error) for words in ("inline_container", "PytorchStreamWriter", "unexpected pos")):
            raise OSError(errno.ENOSPC, "No space left on device") from error
        raise


def _digest(path: Path, length: int, identity: str) -> str:
    digest = hashlib.sha256(identity.encode())
    with open(path, "rb") as stream:
        while length > 0:
            block = stream.read(min(BLOCK, length))
            if not block:
                break
            digest.update(block)
            length -= len(block)
    return digest.hexdigest()


def write_sealed_json(path: str | Path, record: Mapping[str, Any]) -> Path:
    """JSON with the hash of its own content under ``"seal"``."""
    return write_json(path, {**record, "seal": _json_sha256(record)})


def read_sealed_json(path: str | Path) -> dict[str, Any] | None:
    """What ``write_sealed_json`` wrote; None where it is missing, damaged or not sealed (said in the log)."""
    path = Path(path)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or record.pop("seal", None) != _json_sha256(record):
            raise ValueError("its content is not what was written")
    except (OSError, ValueError, RecursionError):
        logger.warning("%s is damaged or of an earlier version: it is made again", path)
        return None
    return record


def _json_sha256(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def require_space(path: str | Path, needed: int, what: str) -> None:
    """Refuse to begin what cannot be written.

    Raises:
        OutputError: less room than ``needed`` bytes beside ``path``.
    """
    folder = Path(path)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{what} needs {needed / 1e6:,.0f} MB in {path}, {free / 1e6:,.0f} MB are free. Free some space or name "
            "another folder. Nothing was changed."
        )


def load_torch(path: str | Path) -> Any:
    """``torch.load`` on the CPU, with the checksums of the archive looked at; nothing in the file is executed.

    Raises:
        Exception: of many kinds, as ``torch.load`` does; ``DamagedError`` where a checksum is wrong.
    """
    import torch

    # torch.load does not look at the checksums of its archive: changed bytes would be wrong weights.
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise DamagedError(f"{broken} has a wrong checksum")
    return torch.load(path, map_location="cpu", weights_only=True)

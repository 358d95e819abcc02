# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The public names of each room: there, quick to import, and typed."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path

import pytest
from pydantic import BaseModel

PACKAGE = Path(__file__).resolve().parents[1] / "monai_memo"
ROOMS = ("handlers", "metrics", "detector", "generators", "statistics", "data", "audit", "search")
PACKAGES = ("monai_memo", *(f"monai_memo.{room}" for room in ROOMS))

# What a type would not say more about, by method name.
RECORDS = {
    "state_dict": "torch's convention for checkpoints: plain values and tensors by name",
    "load_state_dict": "the same",
    "to_dict": "a record as JSON has it",
    "from_dict": "the same",
    "summary": "the same",
    "identity": "weights and settings, in the types that monai_memo.sealing.fingerprint takes",
}
# By qualified name.
EXCEPTIONS = {
    "Audit.__init__": "takes the fields of AuditConfiguration, which checks their names and types",
    "Inspection.__init__": "takes the fields of InspectionSettings, which checks their names and types",
    "Detector.__init__": "the summary is a record as JSON has it",
    "ContrastiveTrainer.detector": "takes further entries of that record",
    "validate_record": "takes whatever JSON holds, to say whether it is a record",
    "AutoencoderTrainer.__init__": "hands further arguments on to MONAI's Trainer, which has no types",
    "load_bundle": "takes values of a bundle's config by name, of any type",
    "Evaluation.__init__": "takes the fields of its settings, which check their names and types",
    "AuditResult.configuration": "the options of the audit as JSON has them",
    "as_generator": "a function may give arrays or tensors: what it gives is looked at",
    "GeneratorEvaluation.run": "a record as JSON has it",
    "save_weights": "takes plain values of any type for the file",
    "WeightsSaver.__init__": "the same",
}


def public(package: str) -> Iterator[tuple[str, object]]:
    module = import_module(package)
    for name in module.__all__:
        if name != "__version__":
            yield name, getattr(module, name)


ALL = sorted({id(thing): (name, thing) for package in PACKAGES for name, thing in public(package)}.values(), key=str)


def is_protocol(thing: type) -> bool:
    """Whether a class only says what others have."""
    return bool(getattr(thing, "_is_protocol", False))


def callables(name: str, thing: object) -> Iterator[tuple[str, Callable[..., object]]]:
    """A function, or the constructor, public methods and properties that a class defines itself."""
    if not isinstance(thing, type):
        assert callable(thing), f"{name} is not callable: constants stay in their modules"
        yield name, thing
        return
    for member, value in vars(thing).items():
        if member.startswith("_") and member not in ("__init__", "__call__"):
            continue
        if member == "__init__" and (is_dataclass(thing) or issubclass(thing, BaseModel) or is_protocol(thing)):
            continue  # made from the fields, which are looked at by themselves
        found = value.fget if isinstance(value, property) else getattr(value, "__func__", getattr(value, "func", value))
        if inspect.isfunction(found):
            yield f"{name}.{member}", found


def annotations(name: str, thing: object) -> Iterator[tuple[str, str]]:
    """Where and how: as written, since ``from __future__ import annotations`` keeps the words."""
    if isinstance(thing, type):
        for field, kind in vars(thing).get("__annotations__", {}).items():
            if not field.startswith("_") and f"{name}.{field}" not in EXCEPTIONS:
                yield f"{name}.{field}", str(kind)
    for where, function in callables(name, thing):
        if where in EXCEPTIONS or where.rpartition(".")[2] in RECORDS:
            continue
        signature = inspect.signature(function)
        parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
        for parameter in parameters:
            kind = parameter.annotation
            yield f"{where}({parameter.name})", "" if kind is parameter.empty else str(kind)
        kind = signature.return_annotation
        yield f"{where} ->", "" if kind is signature.empty else str(kind)


def faults(name: str, thing: object) -> list[str]:
    return [
        f"{where}: {kind or 'no type'}"
        for where, kind in annotations(name, thing)
        if not kind or re.search(r"\bAny\b", kind)
    ]


@pytest.mark.parametrize(("name", "thing"), ALL, ids=[name for name, _ in ALL])
def test_public_names_are_typed_without_any(name: str, thing: object) -> None:
    assert faults(name, thing) == []


def test_a_missing_type_and_any_are_seen() -> None:
    class Example:
        field: dict[str, Any]  # type: ignore[name-defined]  # noqa: F821

        def __init__(self, a: int, b, *, c: Any = 1) -> None: ...  # type: ignore[no-untyped-def, name-defined]  # noqa: F821

        @property
        def length(self) -> Any: ...  # type: ignore[name-defined]  # noqa: F821

        @classmethod
        def make(cls, many: int): ...  # type: ignore[no-untyped-def]

        def state_dict(self) -> dict[str, Any]: ...  # type: ignore[name-defined]  # noqa: F821

    assert faults("Example", Example) == [
        "Example.field: dict[str, Any]",
        "Example.__init__(b): no type",
        "Example.__init__(c): Any",
        "Example.length ->: Any",
        "Example.make ->: no type",
    ]


def test_no_exception_is_left_over() -> None:
    known = {where for name, thing in ALL for where, _ in callables(name, thing)}
    known |= {f"{name}.{field}" for name, thing in ALL for field in vars(thing).get("__annotations__", {})}
    assert set(EXCEPTIONS) <= known, sorted(set(EXCEPTIONS) - known)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_room_says_what_it_has_and_refuses_what_it_has_not(package: str) -> None:
    module = import_module(package)
    assert len(set(module.__all__)) == len(module.__all__) >= 3 and set(module.__all__) <= set(dir(module))
    modules = {info.name for info in pkgutil.iter_modules(module.__path__)}
    assert not modules & set(module.__all__), "a name that is a module's too depends on what was imported before"
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing
    # Type checkers and editors read the imports that never run.
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    seen = {
        str(alias.asname): str(node.module)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == module._MODULES


def test_rooms_are_quick_to_import_and_load_what_is_asked_for() -> None:
    code = (
        f"import sys\nfor name in {PACKAGES!r}: __import__(name)\n"
        "assert not {'torch', 'monai', 'numpy', 'pydantic'} & set(sys.modules), 'importing a room loads nothing'\n"
        "from monai_memo.statistics import wilson_interval\n"
        "assert 'torch' not in sys.modules, 'statistics needs arrays only'\n"
        "from monai_memo.handlers import CopyRateMonitor\n"
        "from monai_memo import CopyRateMonitor as same\n"
        "assert CopyRateMonitor is same and CopyRateMonitor.__module__ == 'monai_memo.handlers.copy_rate_monitor'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

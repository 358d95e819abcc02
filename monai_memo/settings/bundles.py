# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Values and keys of a bundle's config, checked before anything else is made of it.

MONAI takes any key on its command line (``--num_inference_step 5`` becomes a key that nothing reads) and any value. The
bundles' configs therefore begin with ``$@settings``, a component that looks at the whole config.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from importlib import import_module
from types import TracebackType
from typing import Any

from monai_memo.errors import MemoError
from monai_memo.files import exhausted
from monai_memo.settings.model import Problem, Settings, SettingsError

ENTRIES = ("imports", "initialize", "run", "finalize", "settings")  # names that MONAI or the configs look for


def checked(model: str) -> Settings:
    """Check the config that is being parsed. For the key ``settings`` of a bundle's config.

    Args:
        model: ``module:class`` of the settings that hold what the bundle's keys may be.

    Raises:
        SettingsError: keys that nothing reads, with the nearest name, and values out of range.
    """
    tell_plainly()
    module, name = model.split(":")
    found: type[Settings] = getattr(import_module(module), name)
    return check_config(found, config_in_use())


def tell_plainly() -> None:
    """Let ``python -m monai.bundle`` end an error of ours as our command line does: the message alone, and status 2.

    MONAI wraps what a component raises in errors of its own, under which the message would stand in the middle of some
    hundred lines. Errors that nobody expects keep their traceback; so does all that is called from Python.
    """
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is None or not spec.name.startswith("monai.bundle") or getattr(sys.excepthook, "of_monai_memo", False):
        return
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        message = _ours(error)
        if message is None:
            before(kind, error, trace)
            return
        # What is wrong with the settings every rank finds, and rank 0 tells.
        if os.environ.get("RANK", "0") == "0" or not isinstance(_cause(error), SettingsError):
            print(f"monai-memo: {message}", file=sys.stderr)
        raise SystemExit(2)

    hook.of_monai_memo = True  # type: ignore[attr-defined]
    sys.excepthook = hook


def _cause(error: BaseException) -> BaseException | None:
    """Ours that an error was made from."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, MemoError):
        cause = cause.__cause__
    return cause


def _ours(error: BaseException) -> str | None:
    """The message of ours that an error was made from."""
    cause = _cause(error)
    return exhausted(error) if cause is None else str(cause)


def config_in_use() -> Mapping[str, Any]:
    """The whole config. MONAI hands components their own part only, so it is taken from the parser that calls."""
    from monai.bundle import ConfigParser

    frame = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigParser):
            config: Mapping[str, Any] = owner.get()
            return config
        frame = frame.f_back  # type: ignore[assignment]
    raise RuntimeError("settings are checked while monai.bundle parses a config")


def check_config(model: type[Settings], config: Mapping[str, Any]) -> Settings:
    """Check keys and plain values of a config; expressions and references are MONAI's to evaluate.

    Raises:
        SettingsError: what is wrong, all of it.
    """
    referred = set(re.findall(r"@(\w+)", json.dumps(config, default=str)))
    plain = {key: value for key, value in config.items() if _is_plain(value) and not key.startswith("_")}
    known = [*model.model_fields, *(key for key in config if key not in plain)]
    problems = [
        Problem("unknown", key, "")
        for key in plain
        if key not in model.model_fields and key not in referred and key not in ENTRIES
    ]
    try:
        settings = model(**{key: value for key, value in plain.items() if key in model.model_fields})
    except SettingsError as error:
        raise SettingsError([*problems, *error.problems], known) from None
    if problems:
        raise SettingsError(problems, known)
    return settings


def _is_plain(value: Any) -> bool:
    """Whether a value is neither a component nor something to evaluate."""
    if isinstance(value, str):
        return not value.startswith(("$", "@", "%"))
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return not isinstance(value, Mapping)

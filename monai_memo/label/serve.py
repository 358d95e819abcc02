# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Serve the review page: ``monai-memo review-server``, by our own server or by MONAI Label with the review app."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import sys
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from monai_memo.errors import ConfigurationError
from monai_memo.files import write_text
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.label.desk import Desk
from monai_memo.label.generator import check_bundle
from monai_memo.label.prepare import STUDY, open_study, prepare_review
from monai_memo.label.settings import ReviewServerSettings
from monai_memo.label.store import RatingStore
from monai_memo.label.web import ReviewServer
from monai_memo.shipped.places import CHECKOUT, HERE, constraints_file
from monai_memo.workspace.locking import SERVER, FolderLock, hold, let_go


def how_to_install() -> str:
    """What makes an environment for the review server, from an installed package or a checkout."""
    constraints = constraints_file("constraints-label.txt")
    what = "monai-memo[label]" if HERE in constraints.parents else f"{CHECKOUT}[label]"
    return (
        "--monai_label needs MONAI Label, in an environment of its own (without the option nothing is needed): "
        "python -m venv .venv-label && .venv-label/bin/pip install torch==2.13.0 && "
        f".venv-label/bin/pip install -c {shlex.quote(str(constraints))} {shlex.quote(what)}"
    )


def serve_alone(audit: AuditFolder) -> None:
    """Hold the review for this process until its end: one server, and nobody moves the review away under it.

    Ratings would be safe with two, which take turns; trainings, scores and what MONAI Label keeps in memory would not.
    Evaluating the ratings meanwhile is fine.

    Raises:
        OutputError: another server has it, or an audit is writing to the folder.
    """
    with FolderLock(audit.folder, SERVER):  # no audit and no preparation is under way, and none begins meanwhile
        hold(audit.review, SERVER)


def app_folder(audit: AuditFolder) -> Path:
    """A copy of the app in the audit's folder: MONAI Label writes logs and further folders into it."""
    folder = audit.review / "app"
    write_text(folder / "main.py", files("monai_memo.label").joinpath("app", "main.py").read_text(encoding="utf-8"))
    return folder


def server_command(
    audit: AuditFolder, host: str, port: int, configuration: Sequence[tuple[str, str]]
) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of MONAI Label's ``start_server``."""
    command = [
        sys.executable, "-m", "monailabel.main", "start_server", "--app", str(app_folder(audit)),
        "--studies", str(audit.folder), "--host", host, "--port", str(port), "--log_level", "warning",
    ]  # fmt: skip
    for name, value in configuration:
        command += ["--conf", name, value]
    environment = dict(os.environ)
    # MONAI Label finds the tools of its environment by PATH, also where the environment was not activated.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    return command, environment


def review_server(audit: str | Path, **options: Any) -> None:
    """Serve the pairs of an audit to raters, and do not return.

    The page is ``http://HOST:PORT/review/``; with ``monai_label``, MONAI Label's API is beside it.

    Args:
        audit, options: see ``ReviewServerSettings``.

    Raises:
        ConfigurationError: an address of the network without ``remote``, a port that is taken, or MONAI Label is asked
            for and not installed.
    """
    settings = ReviewServerSettings(audit=str(audit), **options)
    host, train, synthetic = settings.host, settings.train, settings.synthetic
    folder = AuditFolder(Path(settings.audit).resolve(), train, synthetic)
    if not settings.remote and not _is_loopback(host):
        raise ConfigurationError(
            f"host {host} can be reached from other machines, and there is no login. If that is meant, add --remote."
        )
    if settings.monai_label and find_spec("monailabel") is None:
        raise ConfigurationError(how_to_install())
    names = host_names(settings.hosts, host)
    if settings.hosts and not settings.remote:
        raise ConfigurationError(
            f"hosts {settings.hosts} are names for other machines: add --remote, or leave them out"
        )
    bundle = None if settings.generator is None else check_bundle(settings.generator)
    if (folder.review / STUDY).exists():
        open_study(folder)
    else:
        prepare_review(str(folder.folder), train=train, synthetic=synthetic)
    serve_alone(folder)  # a refusal comes here, in one line
    if settings.monai_label:
        let_go(folder.review)  # MONAI Label takes the place of this process, and the review with it
        configuration = [("blind", str(settings.blind).lower()), ("remote", str(settings.remote).lower())]
        configuration += [("hosts", ",".join(names))] if settings.remote else []
        configuration += [("generator", str(bundle))] if bundle is not None else []
        configuration += [
            (name, str(Path(value).resolve())) for name, value in (("train", train), ("synthetic", synthetic)) if value
        ]
        command, environment = server_command(folder, host, settings.port, configuration)
        _tell(host, settings.port)
        os.execve(command[0], command, environment)
        return
    try:
        with our_server(folder, settings) as server:
            _tell(host, server.server_port)
            server.serve_forever(poll_interval=0.2)
    finally:
        let_go(folder.review)


def our_server(folder: AuditFolder, settings: ReviewServerSettings) -> ReviewServer:
    """Our own server for a review that is prepared; it listens, and serves with ``serve_forever``."""
    store = RatingStore(folder.review, open_study(folder), float(folder.result.calibration["confidence"]))
    store.remove_leftovers()
    names = host_names(settings.hosts, settings.host) if settings.remote else []
    desk = Desk(folder.review, store, settings.blind)
    return ReviewServer(desk, (settings.host, settings.port), settings.remote, names)


def _tell(host: str, port: int) -> None:
    named = f"[{host}]" if ":" in host else host
    print(f"review page: http://{named}:{port}/review/   (end with Ctrl+C)", flush=True)


def host_names(hosts: str | None, bound: str) -> list[str]:
    """Names given by the user, and the address that is listened on unless that is every one.

    Raises:
        ConfigurationError: a name with a scheme, a path, a wildcard or blanks in it.
    """
    names = [name.strip() for name in (hosts or "").split(",") if name.strip()]
    for name in names:
        if not re.fullmatch(r"[\w.-]+(:\d+)?|\[?[0-9a-fA-F:.]+\]?(:\d+)?", name):
            raise ConfigurationError(
                f"hosts must be names or addresses like review.hospital.example, without http:// and *, got {name!r}"
            )
    return names + ([bound] if bound not in ("0.0.0.0", "::", "") else [])


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

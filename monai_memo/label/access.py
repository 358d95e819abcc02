# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Who may ask a review server what: one set of rules for our own server and for the one inside MONAI Label."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LARGEST_BODY = 2 << 20
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEADERS = (
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
)
Routes = tuple[tuple[tuple[str, ...], str], ...]
# The page and what it asks for; the same in both servers.
PAGE_ROUTES: Routes = ((("GET", "HEAD"), r"/(review/?|review/[a-z_.]+)?"), (("POST",), r"/review/rating"))
ONCE = ("host", "origin", "content-type", "content-length")


@dataclass(frozen=True)
class Asked:
    """A request, as far as it decides whether it is let in.

    Attributes:
        method: ``"GET"``, ...
        path: decoded, without the query.
        raw: as it was sent.
        headers: names and values in the order of the request.
        client, server: addresses of both ends of the connection.
    """

    method: str
    path: str
    raw: str
    headers: Sequence[tuple[str, str]]
    client: str
    server: str


class Access:
    """The rules.

    Args:
        routes: methods and patterns of paths that are part of a review.
        remote: answer other machines too; only they who may see the patients' images should reach the server then.
        hosts: names and addresses under which the server may be asked, beside those of its own machine and the very
            address that a request came to.
    """

    def __init__(self, routes: Routes, remote: bool = False, hosts: Iterable[str] = ()) -> None:
        self.routes, self.remote = routes, remote
        self.hosts = {host_name(name) for name in hosts if name}

    def refusal(self, asked: Asked) -> tuple[int, str] | None:
        """Status and reason if a request is refused, None if it may pass."""
        headers: dict[str, str] = {}
        for key, value in asked.headers:
            name = key.lower()
            if name in headers and name in ONCE:
                return 400, f"the header {name} was sent twice"
            headers[name] = value
        host = headers.get("host", "").lower()
        if not self.remote and not is_loopback(asked.client):
            return 403, "this server answers its own machine only; start it with --remote to change that"
        # A name of the outside that points to this machine (DNS rebinding) must not open the door.
        if not self._is_known(host_name(host), asked):
            return 403, "unknown host name; name those of this server with --hosts when it is started with --remote"
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            return 403, "requests of other web sites are refused"
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return 403, "requests of other web sites are refused"
        if any(".." in path or "\\" in path or "\0" in path or "//" in path for path in (asked.path, asked.raw)):
            return 404, "not part of a review"
        for methods, pattern in self.routes:
            if asked.method in methods and re.fullmatch(pattern, asked.path):
                return None
        return 404, "not part of a review"

    def _is_known(self, name: str, asked: Asked) -> bool:
        if is_loopback(asked.client) and name in LOCAL_NAMES:
            return True
        if not self.remote:
            return False
        # A name can be pointed here by anybody; an address that the connection was made to cannot be a mistake.
        return bool(name) and (name in self.hosts or (bool(asked.server) and name == host_name(asked.server)))


def host_name(host: str) -> str:
    """Name or address of a ``Host`` header or of an address, lower case, without port.

    Example:
        >>> host_name("Review.Hospital.Example:8000"), host_name("[::1]:8000"), host_name("::1")
        ('review.hospital.example', '[::1]', '[::1]')
    """
    text = host.strip().lower()
    try:
        return f"[{ipaddress.IPv6Address(text)}]"
    except ValueError:
        return re.sub(r":\d+$", "", text).rstrip(".")


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine alone.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("::ffff:127.0.0.1"), is_loopback("10.0.0.5"), is_loopback("")
        (True, True, False, False)
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)

# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What the review server answers, to whom, and without which paths: a layer around MONAI Label's web application.

MONAI Label is made for a trusted network: it listens on all interfaces, answers scripts of any web site, takes paths of
the server in place of image ids, and returns paths. Here patients are at stake.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any

from monai_memo.errors import ConfigurationError
from monai_memo.label.forms import checked_form, checked_json
from monai_memo.label.uploads import RequestFiles

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LARGEST_BODY = 2 << 20
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
ROUTES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("GET", "HEAD"), r"/(review/?|review/[a-z_.]+)?"),
    (("GET",), r"/(info/?|auth/?|openapi\.json|favicon\.ico|datastore/?)"),
    (("GET", "HEAD"), r"/datastore/(image|label)"),
    (("GET",), r"/datastore/(image|label)/info"),
    (("PUT",), r"/datastore/label"),
    (("POST",), r"/(activelearning|infer)/\w+"),
    (("POST",), r"/(scoring|train)/\w+"),
    (("GET", "DELETE"), r"/(scoring|train)/?"),
)
# MONAI Label passes unknown parameters on, among them folders to load code from.
PARAMETERS = {
    "activelearning": {"rater", "client_id", "strategy"},
    "scoring": {"detector"},
    "train": {"epochs", "learning_rate", "seed", "model", "device"},
}
HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
PLACEHOLDER = "[folder]"


class Guard:
    """ASGI layer: refuses what is not part of a review, and takes paths out of answers.

    Args:
        application: MONAI Label's.
        folders: paths whose text is taken out of answers.
        remote: answer other machines too; only they who may see the patients' images should reach the server then.
        hosts: names and addresses under which the server may be asked, beside those of its own machine and the very
            address that a request came to.
        files: where the web application keeps uploads meanwhile.
    """

    def __init__(
        self,
        application: Application,
        folders: Iterable[str] = (),
        remote: bool = False,
        hosts: Iterable[str] = (),
        files: RequestFiles | None = None,
    ) -> None:
        self.application, self.remote, self.files = application, remote, files
        self.hosts = {host_name(name) for name in hosts if name}
        # Longest first: a folder's parent may be in the list as well.
        self.folders = sorted({text.rstrip("/") for text in folders if len(text) > 1}, key=len, reverse=True)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.application(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        refused = self.refusal(scope)
        if refused is not None:
            return await _answer(send, *refused)
        body = None if _announced(scope) > LARGEST_BODY else await _read(receive)
        if body is None:
            return await _answer(send, 413, f"at most {LARGEST_BODY} bytes are taken")
        try:
            check_body(scope["path"], _header(scope, b"content-type"), body)
        except ConfigurationError as error:
            return await _answer(send, 400, str(error))
        if self.files is None:
            return await self.application(scope, _once(body, receive), self._redacting(send))
        with self.files.request():
            return await self.application(scope, _once(body, receive), self._redacting(send))

    def refusal(self, scope: MutableMapping[str, Any]) -> tuple[int, str] | None:
        """Status and reason if a request is refused, None if it may pass."""
        headers: dict[str, str] = {}
        for key, value in scope["headers"]:
            name = key.decode("latin-1").lower()
            if name in headers and name in ("host", "origin", "content-type", "content-length"):
                return 400, f"the header {name} was sent twice"
            headers[name] = value.decode("latin-1")
        host = headers.get("host", "").lower()
        client_is_here = _is_loopback((scope.get("client") or ("",))[0])
        if not self.remote and not client_is_here:
            return 403, "this server answers its own machine only; start it with --remote to change that"
        # A name of the outside that points to this machine (DNS rebinding) must not open the door.
        if not self._is_known(host_name(host), scope, client_is_here):
            return 403, "unknown host name; name those of this server with --hosts when it is started with --remote"
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            return 403, "requests of other web sites are refused"
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return 403, "requests of other web sites are refused"
        raw = scope.get("raw_path") or b""
        decoded = {scope["path"], raw.decode("latin-1")}
        if any(".." in path or "\\" in path or "\0" in path or "//" in path for path in decoded):
            return 404, "not part of a review"
        for methods, pattern in ROUTES:
            if scope["method"] in methods and re.fullmatch(pattern, scope["path"]):
                return None
        return 404, "not part of a review"

    def _is_known(self, name: str, scope: MutableMapping[str, Any], client_is_here: bool) -> bool:
        if client_is_here and name in LOCAL_NAMES:
            return True
        if not self.remote:
            return False
        # A name can be pointed here by anybody; an address that the connection was made to cannot be a mistake.
        reached = (scope.get("server") or ("",))[0]
        return bool(name) and (name in self.hosts or (bool(reached) and name == host_name(str(reached))))

    def redacted(self, content: bytes) -> bytes:
        """``content`` without the paths of folders."""
        for folder in self.folders:
            for text in {folder, json.dumps(folder)[1:-1]}:
                content = content.replace(text.encode("utf-8"), PLACEHOLDER.encode())
        return content

    def _redacting(self, send: Send) -> Send:
        """Hold text answers back until they are whole; let images pass."""
        start: list[Message] = []
        held: list[bytes] = []

        async def checked(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if not pair[0].lower().startswith(b"access-control-")]
                message["headers"] = [*kept, *HEADERS]
                kind = dict(kept).get(b"content-type", b"")
                if kind.startswith((b"application/json", b"text/plain", b"multipart/")):
                    start.append(message)
                    return
            elif start:
                held.append(message.get("body", b""))
                if message.get("more_body"):
                    return
                content = self.redacted(b"".join(held))
                first = start.pop()
                length = (b"content-length", str(len(content)).encode())
                first["headers"] = [pair for pair in first["headers"] if pair[0].lower() != b"content-length"]
                first["headers"].append(length)
                await send(first)
                message = {"type": "http.response.body", "body": content}
            await send(message)

        return checked


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


def check_body(path: str, content_type: str, body: bytes) -> None:
    """Refuse a body that MONAI Label would pass on unseen, or stumble over.

    Raises:
        ConfigurationError: no JSON where JSON is due, unknown parameters, or uploads that no review needs.
    """
    room = path.split("/")[1]
    if room == "infer":
        checked_form(content_type, body, {"params"})
        return
    if path == "/datastore/label":
        checked_form(content_type, body, {"params", "label"})
        return
    known = PARAMETERS.get(room)
    if known is None or not body.strip():
        return
    found = checked_json(body, "the body")
    if found is None:
        return
    unknown = sorted(set(found) - known)
    if unknown:
        shown = ", ".join(unknown)[:200]
        raise ConfigurationError(f"unknown parameter {shown}; known: {', '.join(sorted(known))}")


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def _header(scope: MutableMapping[str, Any], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name), "")


def _announced(scope: MutableMapping[str, Any]) -> int:
    """Bytes that a request says it has; the server has made sure that it is a number."""
    text = _header(scope, b"content-length")
    return int(text) if text.isdecimal() and len(text) < 20 else 0 if not text else LARGEST_BODY + 1


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None if it is too large."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LARGEST_BODY:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _once(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read already, then what else comes (the end of the connection)."""
    waiting: Sequence[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    left = list(waiting)

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again


async def _answer(send: Send, status: int, reason: str) -> None:
    content = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})

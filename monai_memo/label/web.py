# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Our own server of the review page, made of Python's standard library: no MONAI Label, no further package."""

from __future__ import annotations

import ipaddress
import logging
import socket
import sys
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from monai_memo.errors import ConfigurationError
from monai_memo.label.access import HEADERS, LARGEST_BODY, PAGE_ROUTES, Access, Asked
from monai_memo.label.desk import Answer, Desk

logger = logging.getLogger(__name__)
IDLE_SECONDS = 60  # a connection that says nothing for so long is closed
LINGER_SECONDS, LINGER_BYTES = 2.0, 32 << 20  # what a refused client still sends is taken away, within reason
HOME = "/review/"


class ReviewServer(ThreadingHTTPServer):
    """Serves one review until ``shutdown``.

    Args:
        desk: answers.
        address: host and port to listen on; port 0 takes a free one.
        remote, hosts: see ``Access``.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """

    daemon_threads = True  # the end of the server does not wait for a browser
    allow_reuse_address = True

    def __init__(self, desk: Desk, address: tuple[str, int], remote: bool = False, hosts: Iterable[str] = ()) -> None:
        self.desk, self.access = desk, Access(PAGE_ROUTES, remote, hosts)
        self.address_family = _family(address[0])
        try:
            super().__init__(address, _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigurationError(
                f"cannot listen on {address[0]} port {address[1]}: {reason}. Choose another --port (or --host)."
            ) from error

    def server_bind(self) -> None:
        """As Python's, without looking the own name up in the network, which can take a minute."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error; anything else is told in one line, without what was sent."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            logger.error("a request was not answered: %s", type(error).__name__)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: ReviewServer
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def version_string(self) -> str:
        return "monai-memo"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: requests name raters."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = do_GET

    def _answer(self) -> None:
        raw, _, query = self.path.partition("?")
        path = unquote(raw, errors="replace")
        asked = Asked(
            method=self.command,
            path=path,
            raw=raw,
            headers=list(self.headers.items()),
            client=str(self.client_address[0]).partition("%")[0],
            server=str(self.connection.getsockname()[0]).partition("%")[0],
        )
        refused = self.server.access.refusal(asked)
        body = self._body(wanted=refused is None)
        if refused is not None:
            answer = Answer.refusal(*refused)
        elif isinstance(body, Answer):
            answer = body
        elif path in ("/", "/review"):
            answer = Answer(307, "text/plain; charset=utf-8", b"", {"location": HOME})
        else:
            name, kind = path.removeprefix(HOME), self.headers.get("content-type", "")
            answer = self.server.desk.answer(self.command, name, query, kind, body)
        self._send(answer)
        if refused is not None or isinstance(body, Answer):
            self._linger()

    def _linger(self) -> None:
        """Throw away what is still on its way: a connection that ends meanwhile would take the refusal with it."""
        end, left = time.monotonic() + LINGER_SECONDS, LINGER_BYTES
        try:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            while left > 0 and (wait := end - time.monotonic()) > 0:
                self.connection.settimeout(wait)
                part = self.rfile.read1(1 << 16)  # type: ignore[attr-defined]
                if not part:
                    return
                left -= len(part)
        except OSError:
            return

    def _body(self, wanted: bool) -> bytes | Answer:
        """What was sent. A connection on which something was left unread is closed."""
        text = self.headers.get("content-length", "0").strip()
        self.close_connection = self.close_connection or not wanted
        problem: Answer | None = None
        if self.headers.get("transfer-encoding") is not None:
            problem = Answer.refusal(411, "a body must tell its length")
        elif not (text.isascii() and text.isdecimal()):
            problem = Answer.refusal(400, "content-length must be a number")
        elif len(text) > 18 or int(text) > LARGEST_BODY:
            problem = Answer.refusal(413, f"at most {LARGEST_BODY} bytes are taken")
        body = b"" if problem or not wanted else self.rfile.read(int(text))
        if problem is None and wanted and len(body) < int(text):
            problem = Answer.refusal(400, "the body is shorter than it says")
        if problem is not None:
            self.close_connection = True
            return problem
        return body

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in (("content-type", answer.kind), *HEADERS, *answer.headers.items()):
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.content)))
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Python's own refusals (a header too long, a method unknown): as short as ours, and the connection ends."""
        self.close_connection = True
        self.command = getattr(self, "command", None) or "GET"
        self.request_version = getattr(self, "request_version", None) or self.protocol_version
        self._send(Answer.refusal(code, "not part of a review"))


def _family(host: str) -> socket.AddressFamily:
    try:
        return socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return socket.AF_INET

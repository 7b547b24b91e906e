"""A proxy on loopback that records what a W&B client sends, and that can be slow, silent, failing or gone."""

from __future__ import annotations

import gzip
import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Fault = Literal["normal", "late", "never", "status", "gone"]
Kind = Literal["graphql", "file_stream", "files"]
# Headers of one connection, which are not passed on.
HOP_BY_HOP = {"connection", "content-length", "expect", "keep-alive", "transfer-encoding", "upgrade"}


@dataclass(frozen=True)
class Request:
    """A request of a client.

    Attributes:
        time: Time of arrival, in seconds since the epoch.
        method: HTTP method.
        path: Path of the URL.
        operation: Name of the GraphQL operation; empty if it is another request.
        status: HTTP status of the answer; 0 if there was none.
        sent_bytes: Size of the request's body.
    """

    time: float
    method: str
    path: str
    operation: str
    status: int
    sent_bytes: int

    @property
    def kind(self) -> Kind:
        """Returns what the request is for."""
        return kind_of(self.path)


@dataclass(frozen=True)
class Behavior:
    """What the proxy does to a share of the requests of one kind."""

    fault: Fault = "normal"
    seconds: float = 1.0
    status: int = 500
    of: Literal["all"] | Kind = "all"
    share: float = 1.0

    @property
    def refuses_connections(self) -> bool:
        """Returns whether nothing listens at all."""
        return self.fault == "gone" and self.of == "all" and self.share == 1.0


def kind_of(path: str) -> Kind:
    """Returns what a request for a path is for."""
    if path.startswith("/graphql"):
        return "graphql"
    return "file_stream" if path.endswith("/file_stream") else "files"


class RecordingProxy:
    """The proxy; its port stays the same while it comes and goes.

    Args:
        backend_port: Port of the server on loopback.
        answer: Gets name and variables of a GraphQL operation; returns the answer's data, or None for the server's.
        accepted: Is called with path and body of each request other than GraphQL that the server has accepted.
    """

    def __init__(
        self,
        backend_port: int,
        answer: Callable[[str, dict[str, Any]], dict[str, Any] | None],
        accepted: Callable[[str, bytes], None],
    ) -> None:
        self.backend_port = backend_port
        self.answer = answer
        self.accepted = accepted
        self.requests: list[Request] = []
        self.unknown_operations: dict[str, str] = {}
        self.behavior = Behavior()
        self._changed = threading.Condition()
        self._generation = 0
        self._random = random.Random(0)
        self._connections: set[socket.socket] = set()
        self._listener: ThreadingHTTPServer | None = None
        self.port = 0
        self._listen()

    def behave(self, behavior: Behavior) -> None:
        """Changes the behavior; requests that wait for an answer are released first."""
        with self._changed:
            self.behavior = behavior
            self._generation += 1
            self._changed.notify_all()
        if behavior.refuses_connections:
            self.close()
        elif self._listener is None:
            self._listen()

    def close(self) -> None:
        """Stops listening and resets all connections."""
        with self._changed:
            self._generation += 1
            self._changed.notify_all()
        if self._listener is not None:
            self._listener.shutdown()
            self._listener.server_close()
            self._listener = None
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def fault_of(self, path: str) -> Behavior:
        """Returns how one request is answered."""
        with self._changed:
            behavior = self.behavior
            hit = behavior.of in ("all", kind_of(path)) and self._random.random() < behavior.share
        return behavior if hit else Behavior()

    def wait_for_change(self, seconds: float | None) -> None:
        """Waits until the behavior changes, at most the given time."""
        with self._changed:
            generation = self._generation
            self._changed.wait_for(lambda: self._generation != generation, seconds)

    def _listen(self) -> None:
        handler = type("Handler", (_Handler,), {"proxy": self, "connections": self._connections})
        self._listener = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._listener.daemon_threads = True
        self.port = self._listener.server_address[1]
        threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    """Handles the requests of one connection."""

    protocol_version = "HTTP/1.1"
    proxy: RecordingProxy
    connections: set[socket.socket]

    def setup(self) -> None:
        super().setup()
        self.connections.add(self.connection)

    def finish(self) -> None:
        self.connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with suppress(OSError):  # the client, or a test that takes the server away, closes connections at any time
            super().handle()

    def log_message(self, *args: Any) -> None:
        """Prints nothing."""

    def _serve(self) -> None:
        arrival = time.time()
        body = b"".join(self._body())
        path = self.path.partition("?")[0]
        call = json.loads(decoded(body, self.headers)) if kind_of(path) == "graphql" and body else {}
        operation = call.get("operationName") or (operation_name(call["query"]) if "query" in call else "")
        status = 0
        try:
            status, headers, content = self._answer(path, body, operation, call.get("variables") or {})
        finally:
            self.proxy.requests.append(Request(arrival, self.command, path, operation, status, len(body)))
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP | {"date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _serve  # noqa: N815  # http.server's names

    def _answer(
        self, path: str, body: bytes, operation: str, variables: dict[str, Any]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Returns status, headers and content of the answer; status 0 closes the connection without one."""
        json_type = [("Content-Type", "application/json")]
        behavior = self.proxy.fault_of(path)
        match behavior.fault:
            case "never":
                self.proxy.wait_for_change(None)
                return 0, [], b""
            case "gone":
                return 0, [], b""
            case "status":
                return behavior.status, json_type, json.dumps({"errors": [{"message": "injected"}]}).encode()
            case "late":
                self.proxy.wait_for_change(behavior.seconds)
        if operation and (data := self.proxy.answer(operation, variables)) is not None:
            return 200, json_type, json.dumps({"data": data}).encode()
        response, content = self._forward(body)
        if operation and b'"errors"' in content:
            self.proxy.unknown_operations[operation] = content.decode(errors="replace")
        elif not operation and response.status < 300:
            self.proxy.accepted(path, decoded(body, self.headers))
        return response.status, response.getheaders(), content

    def _forward(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        """Asks the server, on a connection of its own: the server closes connections that are idle."""
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        with closing(http.client.HTTPConnection("127.0.0.1", self.proxy.backend_port, timeout=60)) as backend:
            backend.request(self.command, self.path, body, headers)
            response = backend.getresponse()
            return response, response.read()

    def _body(self) -> Iterator[bytes]:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            yield self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()


def decoded(body: bytes, headers: Any) -> bytes:
    """Returns a body without its compression."""
    return gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body


def operation_name(query: str) -> str:
    """Returns the name of a GraphQL query's first operation; "unnamed" if it has none."""
    words = query.replace("(", " ").replace("{", " ").split()
    return words[1] if len(words) > 1 and words[0] in ("query", "mutation") else "unnamed"

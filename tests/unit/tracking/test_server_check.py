"""Reasons why a W&B server cannot be used, as seen at real servers on loopback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wandb

from rlwandb_callbacks.errors import ConfigError
from rlwandb_callbacks.tracking.account import find_account_obstacle, read_settings
from rlwandb_callbacks.tracking.server_check import find_obstacle

KEY = "0123456789abcdef0123456789abcdef01234567"
KNOWN_USER = b'{"data": {"viewer": {"id": "1"}}}'
Answer = Callable[[Any], tuple[int, bytes]]


@pytest.fixture(autouse=True)
def _account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Starts without settings of this machine, with a key."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], list[Any]]]:
    """Returns a function that starts the server of ``WANDB_BASE_URL`` and returns the headers of its requests."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> list[Any]:
        headers: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                headers.append(self.headers)
                self.rfile.read(int(self.headers["Content-Length"]))
                status, body = answer(self.headers)
                self.send_response(status)
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{servers[-1].server_address[1]}")
        return headers

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def reason(max_seconds: float = 1.0) -> str:
    obstacle = find_obstacle(max_seconds)
    assert obstacle is not None
    assert KEY not in f"{obstacle}"
    assert obstacle.remedy.endswith(".")
    return obstacle.reason


def test_nothing_speaks_against_a_server_that_knows_the_key(serve: Any) -> None:
    headers = serve(lambda _: (200, KNOWN_USER))
    assert find_obstacle() is None
    assert headers[0]["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, b"", "refuses the API key in WANDB_API_KEY (HTTP 401)"),
        (403, b"", "refuses the API key in WANDB_API_KEY (HTTP 403)"),
        (200, b'{"data": {"viewer": null}}', "refuses the API key in WANDB_API_KEY (it belongs to no user)"),
        (429, b"", "too many requests (HTTP 429)"),
        (500, b"", "an error of its own (HTTP 500)"),
        (503, b"", "an error of its own (HTTP 503)"),
    ],
)
def test_reason_of_a_server_that_answers(serve: Any, status: int, body: bytes, expected: str) -> None:
    serve(lambda _: (status, body))
    assert expected in reason(max_seconds=0.4)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"not json"),
        (200, b'{"errors": []}'),
        (400, b""),
        (302, b""),
        (403, b"\n<html>blocked by a firewall, which lets the client of W&B through</html>"),
    ],
)
def test_a_server_that_does_not_know_the_question_is_used(serve: Any, status: int, body: bytes) -> None:
    serve(lambda _: (status, body))
    assert find_obstacle() is None


def test_a_server_that_is_overloaded_for_a_moment_is_used(serve: Any) -> None:
    answers = iter([(503, b""), (200, KNOWN_USER)])
    serve(lambda _: next(answers))
    assert find_obstacle(3.0) is None


def test_a_silent_server_is_given_up_in_time(serve: Any) -> None:
    released = threading.Event()
    serve(lambda _: (released.wait(20), (200, b""))[1])
    started = time.monotonic()
    assert "did not answer within" in reason(max_seconds=0.3)
    assert time.monotonic() - started < 5
    released.set()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:{closed}", "http://127.0.0.1:{closed} cannot be reached: it refuses connections"),
        ("http://no-such-host.invalid", "http://no-such-host.invalid cannot be reached: its name is not known"),
    ],
)
def test_reason_without_a_connection(monkeypatch: pytest.MonkeyPatch, url: str, expected: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", url.format(closed=closed))
    assert reason(max_seconds=20.0) == expected.format(closed=closed)


@pytest.mark.parametrize("has_key", [True, False])
def test_a_dead_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch, has_key: bool) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.com")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2@127.0.0.1:1")
    monkeypatch.setenv("WANDB_API_KEY", KEY if has_key else "")
    assert reason() == "the proxy http://***@127.0.0.1:1 of HTTPS_PROXY cannot be reached: it refuses connections"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("", "no W&B account is set up on this machine"),
        (" ", "no W&B account is set up on this machine"),
        ("abc", "the API key in WANDB_API_KEY has 3 characters, and a key has 40 or more"),
        (f"{KEY[:-1]}!", "the API key in WANDB_API_KEY has characters that no key has"),
    ],
)
def test_a_missing_or_malformed_key_is_told(
    serve: Any, monkeypatch: pytest.MonkeyPatch, key: str, expected: str
) -> None:
    serve(lambda _: (401, b""))
    monkeypatch.setenv("WANDB_API_KEY", key)
    assert expected in reason()
    obstacle = find_account_obstacle()
    assert obstacle is not None
    assert expected in obstacle.reason


def test_blanks_around_the_key_are_removed(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = serve(lambda _: (200, KNOWN_USER))
    assert find_obstacle() is None
    wandb.teardown()
    monkeypatch.setenv("WANDB_API_KEY", f" {KEY}\r\n")
    assert find_obstacle() is None
    assert headers[0]["Authorization"] == headers[1]["Authorization"]


def test_the_key_of_netrc_is_that_of_the_machine_with_its_port(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(wandb.sdk.lib, "wbauth"):
        pytest.skip("older versions read ~/.netrc by other rules")
    serve(lambda _: (401, b""))
    monkeypatch.delenv("WANDB_API_KEY")
    netrc = Path(str(wandb.setup().settings.base_url).replace("http://", ""))
    file = Path.home() / "netrc"
    file.write_text(f"machine {netrc}\n login user\n password {KEY}\n")
    file.chmod(0o600)
    assert f"refuses the API key in {file} (HTTP 401)" in reason()


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("WANDB_MODE", "Offline", "WANDB_MODE is 'Offline', which W&B does not accept"),
        ("WANDB_TAGS", "x" * 100, "WANDB_TAGS is 'xxx"),
        ("WANDB_PROJECT", "a/b", "Invalid project name 'a/b'"),
        ("WANDB_RUN_ID", "a/b", "Run ID cannot contain the characters"),
    ],
)
def test_settings_that_wandb_refuses_are_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=expected.replace("(", r"\(")):
        read_settings()
    monkeypatch.delenv(variable)

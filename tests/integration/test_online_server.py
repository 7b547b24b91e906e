"""The server of the online tests can be slow, silent, failing and gone."""

from __future__ import annotations

import http.client
import time
from contextlib import closing

import pytest
from wandb_server import WandbServer


def ask(server: WandbServer, path: str = "/api/v1/debug/headers", timeout_seconds: float = 5.0) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", server.proxy.port, timeout=timeout_seconds)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


def test_a_request_is_passed_on_and_recorded(server: WandbServer) -> None:
    assert ask(server) == 200
    (request,) = server.requests
    assert (request.method, request.status, request.kind) == ("GET", 200, "files")


def test_a_status_is_answered_to_the_kind_of_requests_that_is_hit(server: WandbServer) -> None:
    server.behave("status", status=429, of="file_stream")
    assert (ask(server), ask(server, "/files/a/b/c/file_stream")) == (200, 429)


def test_a_late_answer_arrives_after_the_delay(server: WandbServer) -> None:
    server.behave("late", seconds=0.5)
    started = time.monotonic()
    assert ask(server) == 200
    assert time.monotonic() - started >= 0.5


def test_a_silent_server_keeps_the_client_waiting(server: WandbServer) -> None:
    server.behave("never")
    with pytest.raises(TimeoutError):
        ask(server, timeout_seconds=0.3)


def test_a_server_that_is_gone_refuses_connections_until_it_is_back(server: WandbServer) -> None:
    server.behave("gone")
    with pytest.raises(ConnectionRefusedError):
        ask(server)
    server.behave("normal")
    assert ask(server) == 200


def test_a_share_of_the_requests_fails(server: WandbServer) -> None:
    server.behave("status", status=500, share=0.5)
    statuses = [ask(server) for _ in range(40)]
    assert 5 < statuses.count(500) < 35

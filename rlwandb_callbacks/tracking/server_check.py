"""Finds out, within a few seconds and without a prompt, whether a W&B server can be used, and if not, why."""

from __future__ import annotations

import base64
import ipaddress
import json
import queue
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from rlwandb_callbacks.core.secrets import without_secrets_in
from rlwandb_callbacks.tracking.account import Key, Obstacle, find_key, how_to_renew, read_settings

CHECK_SECONDS = 5.0
PAUSE_SECONDS = 0.5  # before an overloaded server is asked again
VIEWER = json.dumps({"query": "query Viewer { viewer { id } }"}).encode()


def find_obstacle(max_seconds: float = CHECK_SECONDS) -> Obstacle | None:
    """Returns why W&B's server cannot be used with the account of this machine; None if nothing speaks against it.

    It asks the server who the key belongs to, and waits at most ``max_seconds`` for the answer.
    """
    settings = read_settings()
    url = str(settings.base_url)
    found = find_key(settings)
    key = None if isinstance(found, Obstacle) else found
    answers: queue.SimpleQueue[Obstacle | None] = queue.SimpleQueue()  # looking up a name has no time limit of its own
    deadline = time.monotonic() + max_seconds

    def ask() -> None:
        try:
            answers.put(_ask(url, key, settings, deadline))
        except Exception:  # noqa: BLE001  # W&B's own answer counts if the question cannot be put
            answers.put(None)

    threading.Thread(target=ask, name="rlwandb-server-check", daemon=True).start()
    try:
        obstacle = answers.get(timeout=max_seconds)
    except queue.Empty:
        obstacle = _is_silent(without_secrets_in(url), max_seconds)
    no_account = found if isinstance(found, Obstacle) else None
    return no_account if no_account and not (obstacle and obstacle.is_of_connection) else obstacle


def _is_silent(name: str, seconds: float) -> Obstacle:
    reason = f"{name} did not answer within {seconds:.0f} s"
    return Obstacle(reason, "Check the network, a firewall or the server.", is_of_connection=True)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Keeps the key from other hosts."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _ask(url: str, key: Key | None, settings: Any, deadline: float) -> Obstacle | None:
    proxy, variable = _proxy_of(url, settings)
    if proxy and urlsplit(proxy).scheme not in ("http", "https"):
        return None  # SOCKS, which W&B's client knows and urllib does not
    scheme = urlsplit(url).scheme
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({scheme: proxy} if proxy else {}), _NoRedirect)
    headers = {"Content-Type": "application/json", "User-Agent": "rlwandb-callbacks"}
    headers |= getattr(settings, "x_extra_http_headers", None) or {}
    if key is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(f'api:{key.value}'.encode()).decode()}"
    shown = without_secrets_in(url)
    peer = f"the proxy {without_secrets_in(proxy)} of {variable}" if proxy else shown
    request = urllib.request.Request(f"{url}/graphql", VIEWER, headers)  # noqa: S310  # the scheme is W&B's
    while True:
        obstacle, may_pass = _ask_once(opener, request, peer, key, max(0.1, deadline - time.monotonic()))
        if not may_pass or time.monotonic() + PAUSE_SECONDS > deadline:
            return obstacle
        time.sleep(PAUSE_SECONDS)


def _ask_once(
    opener: urllib.request.OpenerDirector, request: urllib.request.Request, peer: str, key: Key | None, seconds: float
) -> tuple[Obstacle | None, bool]:
    """Returns what speaks against the server, and whether the same question may have another answer soon."""
    url = without_secrets_in(request.full_url.removesuffix("/graphql"))
    try:
        with opener.open(request, timeout=seconds) as answer:
            return _refusal(url, key, answer.read()), False
    except urllib.error.HTTPError as error:
        if error.code == 403 and error.read(64).lstrip().startswith(b"<"):
            return None, False  # a page of a firewall, which may let W&B's client through; W&B's own answer counts
        return _obstacle_of_status(url, peer, error.code, key), error.code == 429 or error.code >= 500
    except (OSError, HTTPException, ValueError) as error:
        return _obstacle_of_connection(peer, error, seconds, is_proxy=peer != url), False


def _proxy_of(url: str, settings: Any) -> tuple[str, str]:
    """Returns the proxy that W&B's client uses for a server, and the variable that names it; empty without one."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    variable = f"{parts.scheme.upper()}_PROXY"
    configured = getattr(settings, f"{parts.scheme}_proxy", None)
    if configured:
        return str(configured), f"WANDB_{variable}"
    if _is_loopback(host) or urllib.request.proxy_bypass(parts.netloc):
        return "", ""
    return urllib.request.getproxies_environment().get(parts.scheme, ""), variable


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refusal(url: str, key: Key | None, body: bytes) -> Obstacle | None:
    """Returns that the key is refused if the server answers without an error and without a user."""
    try:
        answer = json.loads(body)
        is_unknown = not answer.get("errors") and answer["data"]["viewer"] is None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return _key_refused(url, key, "it belongs to no user") if is_unknown else None


def _key_refused(url: str, key: Key | None, why: str) -> Obstacle:
    if key is None:
        return Obstacle(f"{url} refuses the identity token ({why})", "Renew WANDB_IDENTITY_TOKEN_FILE.")
    return Obstacle(
        f"{url} refuses the API key in {key.source} ({why})",
        f"Copy a key of this server from {url.replace('://api.wandb.ai', '://wandb.ai')}/authorize, and "
        f"{how_to_renew(key.source)}; WANDB_BASE_URL chooses the server.",
    )


def _obstacle_of_status(url: str, peer: str, status: int, key: Key | None) -> Obstacle | None:
    if status in (401, 403):
        return _key_refused(url, key, f"HTTP {status}")
    if status == 407:
        return Obstacle(f"{peer} asks for a password (HTTP 407)", "Put it into the URL of the proxy.")
    if status == 429:
        return Obstacle(f"{url} answers that there are too many requests (HTTP 429)", "Nothing is wrong here; wait.")
    if status >= 500:
        return Obstacle(f"{url} answers with an error of its own (HTTP {status})", "Ask who runs the server.")
    return None


def _obstacle_of_connection(peer: str, error: Exception, seconds: float, *, is_proxy: bool) -> Obstacle | None:
    cause = getattr(error, "reason", error)
    setting = "Correct the proxy variable" if is_proxy else "Check the network, and WANDB_BASE_URL"
    if isinstance(cause, ssl.SSLError):
        return None  # W&B's client has other certificates; its own answer counts
    if isinstance(cause, TimeoutError):
        return _is_silent(peer, seconds)
    if isinstance(cause, socket.gaierror):
        what = f"{peer} cannot be reached: its name is not known"
    elif isinstance(cause, ConnectionRefusedError):
        what = f"{peer} cannot be reached: it refuses connections"
    elif "Tunnel" in str(cause):
        what = f"{peer} does not let a connection through: {cause}"
    else:
        what = f"{peer} cannot be reached: {without_secrets_in(str(cause)) or type(cause).__name__}"
    return Obstacle(what, f"{setting}.", is_of_connection=True)

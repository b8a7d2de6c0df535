"""A web server for the pages of commands: closed to other websites, bounded, in a thread of its own.

A page on this machine can be reached by every website that its user visits. `Guard` refuses what
such a site can send: requests under a foreign host name (DNS rebinding) and requests that another
site's page makes. It also bounds requests, ends slow clients and adds headers.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import threading
import urllib.parse
from collections.abc import Collection

import h11
import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_REQUEST_S = 10.0  # chosen: for a client to send a request's headers, and then its body
_IDLE_S = 15.0  # chosen: that a connection is kept without a request
_SEND_S = 30.0  # chosen: a client that reads nothing for so long is gone
_MOST_HEADER_BYTES = 16 * 1024
_MOST_CONNECTIONS = 512  # chosen
_PORTS_TRIED = 100  # chosen
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors "
)
_HEADERS = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex",
}


class Guard:
    """ASGI middleware that refuses what the page does not send, and adds headers to every answer.

    Args:
        app: the application.
        names: host names under which the server is reached, besides numeric addresses and localhost;
            one that begins with a dot stands for all names that end in it.
        body_bytes: a longer request body is refused.
        embedded: whether other pages, such as a notebook, may show the page in a frame.
    """

    def __init__(
        self, app: ASGIApp, *, names: Collection[str] = (), body_bytes: int = 4096, embedded: bool = False
    ) -> None:
        self._app, self._body_bytes, self._embedded = app, body_bytes, embedded
        self._names = {name.lower() for name in names}
        self._suffixes = tuple(name for name in self._names if name.startswith("."))
        self._headers = _HEADERS | {"content-security-policy": _POLICY + ("*" if embedded else "'none'")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sender = _adding_headers(send, self._headers)
        refused = self._refusal(Headers(scope=scope), scope["method"])
        if refused is None:
            try:
                body = await asyncio.wait_for(_read_body(receive, self._body_bytes), _REQUEST_S)
            except TimeoutError:
                refused = (408, "The request took too long.")
            else:
                refused = (413, "The request is too long.") if body is None else None
        if refused is None:
            await self._app(scope, _replay(body, receive), sender)
            return
        status, text = refused
        # What follows of a refused body would be read as the next request.
        await PlainTextResponse(text, status, {"connection": "close"})(scope, receive, sender)

    def _refusal(self, headers: Headers, method: str) -> tuple[int, str] | None:
        """Returns the status and the text with which a request is refused; None for a good one."""
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            return 400, "Expected one host."
        if not self._is_own(_host_name(hosts[0])):
            return 421, f"This server is not {hosts[0][:100]}; to be reached by this name it needs --name."
        if not self._is_own_request(headers, method, hosts[0]):
            return 403, "Requests of other websites are refused."
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > self._body_bytes:
            return 413, "The request is too long."
        return None

    def _is_own(self, name: str) -> bool:
        """Whether a host name is this server's. A site that rebinds its name can't have a number."""
        if name in self._names or name.endswith((*self._suffixes, ".localhost")) or name == "localhost":
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _is_own_request(self, headers: Headers, method: str, host: str) -> bool:
        """Whether a request comes from the page itself, from a link to it, or from no page at all.

        Reference: Valsorda 2025, "Cross-Site Request Forgery"; W3C, "Fetch Metadata Request Headers".
        """
        site = headers.get("sec-fetch-site")
        if site in ("same-origin", "none"):
            return True
        if site is not None:
            shown = ("document", "iframe") if self._embedded else ("document",)
            is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") in shown
            return is_link and method in ("GET", "HEAD")
        origin = headers.get("origin")
        return origin is None or urllib.parse.urlsplit(origin).netloc.lower() == host.lower()


class Server:
    """An address of this machine, and the application that a thread serves there.

    Args:
        host: the address to listen on.
        port: None: the first free one of a hundred, from `first_port` on. 0: any free one.
        first_port: see `port`.

    Raises:
        OSError: the address cannot be used; the message says why and what to do.
    """

    def __init__(self, host: str, port: int | None, first_port: int = 0) -> None:
        self._socket = _listen(host, port, first_port)
        shown = f"[{host}]" if ":" in host else host
        self.port = self._socket.getsockname()[1]
        self.url = f"http://{shown}:{self.port}/"
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, app: ASGIApp) -> None:
        """Begins to serve an application, and returns."""
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            log_level="warning",
            access_log=False,  # it would tell who listens to what
            server_header=False,
            proxy_headers=False,  # a client could give itself another address
            limit_concurrency=_MOST_CONNECTIONS,
            h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
            timeout_keep_alive=_IDLE_S,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="web server", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Returns when the server has ended; Ctrl-C and signals raise here."""
        while self._thread.is_alive():
            self._thread.join(0.5)  # not without a limit, or Windows would not see Ctrl-C

    def close(self) -> None:
        """Ends the server and frees the address."""
        if self._thread:
            self._server.should_exit = True
            self._thread.join()
        self._socket.close()


class _Protocol(H11Protocol):
    """HTTP that ends a connection whose client does not finish its request, or stops reading the answer."""

    _request_timer: asyncio.TimerHandle | None = None
    _answer_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Starts the time for the first request."""
        super().connection_made(transport)
        self._request_timer = self.loop.call_later(_REQUEST_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Ends the time for a request when its headers are complete."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._request_timer = _cancelled(self._request_timer)
        elif self._request_timer is None:
            self._request_timer = self.loop.call_later(_REQUEST_S, self.transport.abort)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write: watches whether it reads at all."""
        super().pause_writing()
        self._watch_answer(None)

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self._answer_timer = _cancelled(self._answer_timer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the times."""
        self._request_timer = _cancelled(self._request_timer)
        self._answer_timer = _cancelled(self._answer_timer)
        super().connection_lost(exc)

    def _watch_answer(self, left_before: int | None) -> None:
        left = self.transport.get_write_buffer_size()
        if left == left_before:
            self.transport.abort()
        else:
            self._answer_timer = self.loop.call_later(_SEND_S, self._watch_answer, left)


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def is_loopback(host: str) -> bool:
    """Whether an address is that of the machine itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_names(host: str) -> list[str]:
    """Returns the names under which other machines reach a server on `host`; none if they can't."""
    if is_loopback(host):
        return []
    name = socket.gethostname().lower()
    return [host, name, f"{name.partition('.')[0]}.local"]


def _listen(host: str, port: int | None, first_port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ports = range(first_port, first_port + _PORTS_TRIED) if port is None else [port]
    for candidate in ports:
        try:
            return socket.create_server((host, candidate), family=family)
        except OSError as error:
            reason = error
            if error.errno != errno.EADDRINUSE:
                break
    what = f"ports {ports[0]} to {ports[-1]}" if port is None else f"port {port}"
    if reason.errno == errno.EADDRINUSE:
        text = f"--port: {what} of {host} taken by another program; end that program, or choose another port"
        raise OSError(text.replace("taken", "are taken" if port is None else "is taken"))
    if reason.errno == errno.EACCES:
        raise OSError(f"--port: {what} needs administrator rights; choose one above 1023")
    raise OSError(f"--host: {host} is not an address of this machine ({reason.strerror or reason})")


def _host_name(host: str) -> str:
    """Returns a host header without its port and brackets, in small letters."""
    try:
        return urllib.parse.urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _read_body(receive: Receive, most_bytes: int) -> bytes | None:
    """Returns the body of a request; None if it is too long."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > most_bytes:
            return None
        if not message.get("more_body"):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """Returns a `receive` that gives the body first."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


def _adding_headers(send: Send, headers: dict[str, str]) -> Send:
    """Returns a `send` that adds headers where an answer does not have its own."""

    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = MutableHeaders(scope=message)
            for name, value in headers.items():
                given.setdefault(name, value)
        await send(message)

    return sender

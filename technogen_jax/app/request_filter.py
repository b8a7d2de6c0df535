"""Limits the web server to the addresses that the page needs.

Other addresses that Gradio serves (upload, proxy, files by path) are not reachable, and addresses
that a later version of Gradio adds are not either.
"""

from __future__ import annotations

ALLOWED_PREFIXES = (
    "/assets/",
    "/static/",
    "/download/",
    "/preview/",
    "/gradio_api/call/",
    "/gradio_api/queue/",
    "/gradio_api/heartbeat/",
    "/gradio_api/startup-events",
)
ALLOWED_PATHS = ("/", "/config", "/theme.css", "/favicon.ico", "/gradio_api/info", "/gradio_api/cancel")
MOST_BODY_BYTES = 64 * 1024
_HEADERS = [
    # Gradio's page builds scripts from text, so inline scripts and eval must stay allowed.
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class RequestFilter:
    """ASGI middleware: 404 for paths that are not allowed, 413 for long requests, headers against foreign content."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        """Handles one request."""
        if scope["type"] != "http":
            await (_refuse_socket(send) if scope["type"] == "websocket" else self._app(scope, receive, send))
            return
        path = scope["path"]
        if not (path in ALLOWED_PATHS or path.startswith(ALLOWED_PREFIXES)):
            await _answer(send, 404, b"There is nothing here.")
            return
        length = dict(scope["headers"]).get(b"content-length", b"" if scope["method"] == "POST" else b"0")
        if not length.isdigit() or int(length) > MOST_BODY_BYTES:
            await _answer(send, 413, b"The request is too long.")
            return

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers)


async def _answer(send, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode()), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def _refuse_socket(send) -> None:
    await send({"type": "websocket.close", "code": 1008})

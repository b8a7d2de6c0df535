import contextlib
import json
import socket
import time

import pytest

pytest.importorskip("uvicorn", reason="pip install -r requirements-app.txt")
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from technogen_jax.common import web_server


@pytest.fixture(scope="module")
def server():
    """A server that says what it was asked, and one answer of 30 MB."""

    async def echo(request):
        size = 30_000_000 if request.url.path == "/large" else 1
        return JSONResponse({"body": (await request.body()).decode(), "filler": "x" * size})

    methods = ["GET", "POST"]
    app = Starlette(routes=[Route("/", echo, methods=methods), Route("/large", echo, methods=methods)])
    served = web_server.Server("127.0.0.1", 0)
    served.start(web_server.Guard(app, names=["music.example"], body_bytes=100))
    yield served
    served.close()


def send(server, text):
    """The status and the text of the answer to a raw request; (None, "") if the server hangs up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        answer = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(text.encode())
            while part := connection.recv(65536):
                answer += part
    text = answer.decode()
    return (int(text.split()[1]) if text else None), text


def ask(server, *lines, method="GET", path="/", host="127.0.0.1", body=""):
    headers = [f"Host: {host}"] if host is not None else []
    return send(server, "\r\n".join([f"{method} {path} HTTP/1.1", *headers, "Connection: close", *lines, "", body]))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:1", "LOCALHOST:7860", "[::1]:7860", "192.168.1.5", "music.example", "a.localhost"]
)
def test_own_names_and_numeric_addresses_are_answered(server, host):
    assert ask(server, host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::1", "a@b"]
)
def test_rebound_names_are_refused(server, host):
    status, text = ask(server, host=host)
    assert (
        status in (400, 421)
        and "evil" not in text
        or "is not evil" in text
        or "is not 127" in text
        or "is not local" in text
    )


def test_two_hosts_are_refused(server):
    assert ask(server, "Host: 127.0.0.1")[0] == 400


@pytest.mark.parametrize(
    "method, lines, status",
    [
        ("GET", ["Sec-Fetch-Site: same-origin"], 200),
        ("POST", ["Sec-Fetch-Site: same-origin", "Content-Length: 0"], 200),
        ("GET", ["Sec-Fetch-Site: none"], 200),  # typed
        ("GET", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"], 200),  # a link
        ("GET", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: audio"], 403),
        ("GET", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"], 403),
        ("POST", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"], 403),
        ("GET", ["Sec-Fetch-Site: same-site"], 403),  # another port
        ("POST", ["Origin: http://evil.example", "Content-Length: 0"], 403),
        ("POST", ["Origin: null", "Content-Length: 0"], 403),
        ("POST", ["Origin: http://127.0.0.1:1", "Content-Length: 0"], 403),
        ("POST", ["Origin: http://127.0.0.1", "Content-Length: 0"], 200),
    ],
)
def test_pages_of_other_sites_cannot_ask(server, method, lines, status):
    assert ask(server, *lines, method=method)[0] == status


def test_bodies_are_bounded(server):
    assert (
        json.loads(ask(server, "Content-Length: 3", method="POST", body="abc")[1].split("\r\n\r\n")[1])["body"] == "abc"
    )
    assert ask(server, "Content-Length: 101", method="POST")[0] == 413
    assert ask(server, "Content-Length: " + "9" * 30, method="POST")[0] in (400, 413)
    chunks = "64\r\n" + "x" * 100 + "\r\n"
    assert ask(server, "Transfer-Encoding: chunked", method="POST", body=chunks * 3 + "0\r\n\r\n")[0] == 413
    assert ask(server, "X: " + "x" * 2_000_000)[0] in (400, None)


def test_answers_carry_headers(server):
    text = ask(server)[1].lower()
    for line in ("x-content-type-options: nosniff", "cache-control: no-store", "referrer-policy: no-referrer"):
        assert line in text
    assert "default-src 'none'" in text and "frame-ancestors 'none'" in text and "\nserver:" not in text
    assert "nosniff" in ask(server, host="evil.example")[1]


def test_slow_clients_are_ended(server, monkeypatch):
    for name in ("_REQUEST_S", "_SEND_S"):
        monkeypatch.setattr(web_server, name, 0.3)
    host = "Host: 127.0.0.1\r\n"
    for text in (
        "",
        "GET / HT",
        f"GET / HTTP/1.1\r\n{host}X: ",
        f"POST / HTTP/1.1\r\n{host}Content-Length: 9\r\n\r\nabc",
    ):
        assert send(server, text)[0] in (None, 408)
    with socket.socket() as connection:  # takes nothing of a long answer
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(f"GET /large HTTP/1.1\r\n{host}\r\n".encode())
        time.sleep(2)
        received = 0
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(1 << 20):
                received += len(part)
        assert 0 < received < 30_000_000


def test_a_taken_port_says_what_to_do(server):
    with pytest.raises(
        OSError, match=f"--port: port {server.port} .* taken by another program; .* choose another port"
    ):
        web_server.Server("127.0.0.1", server.port)
    other = web_server.Server("127.0.0.1", None, server.port)
    assert server.port < other.port < server.port + 100
    other.close()
    with pytest.raises(OSError, match="--host: 192.0.2.1 is not an address of this machine"):
        web_server.Server("192.0.2.1", 0)


def test_names_of_this_machine_are_known_only_where_it_is_reached_by_them():
    assert web_server.own_names("127.0.0.1") == web_server.own_names("::1") == []
    assert socket.gethostname().lower() in web_server.own_names("0.0.0.0")

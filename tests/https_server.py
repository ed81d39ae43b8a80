"""A real HTTPS server on this machine that answers as a test says, and a proxy in front of it."""

from __future__ import annotations

import select
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

Answer = Callable[[BaseHTTPRequestHandler], None]
NAMES = "IP:127.0.0.1,IP:127.0.0.2,DNS:localhost,DNS:set.example"
"""For which the certificate stands."""


def make_certificate(folder: Path) -> Path:
    """Return a file with a new key and its certificate, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("the command openssl, which makes the server's certificate, is not installed")
    path = folder / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={NAMES}"]
    command += ["-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


class Server(ThreadingHTTPServer):
    """Gives each path the answer that a test has put there."""

    daemon_threads = True

    def __init__(self, certificate: Path | None) -> None:
        super().__init__(("0.0.0.0", 0), _Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.closing = threading.Event()
        """Set when the test is over, for answers that do not end."""
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            # A handshake in `accept` would let one silent client keep the others out.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients break off on purpose here."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.asked.append(self.path)
        self.server.answers[self.path](self)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(certificate: Path | None) -> Iterator[Server]:
    with Server(certificate) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


@contextmanager
def proxying(port: int) -> Iterator[str]:
    """Give the address of a proxy that leads every CONNECT to a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_proxy, args=(listening, port), daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def _proxy(listening: socket.socket, port: int) -> None:
    while True:
        try:
            client, _ = listening.accept()
        except OSError:  # the test is over
            return
        threading.Thread(target=_tunnel, args=(client, port), daemon=True).start()


def _tunnel(client: socket.socket, port: int) -> None:
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += client.recv(4096)
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        other = {client: server, server: client}
        while True:
            for end in select.select([client, server], [], [])[0]:
                data = end.recv(1 << 16)
                if not data:
                    return
                other[end].sendall(data)


# -- answers -----------------------------------------------------------------------------------


def content(raw: bytes, length: int | None = -1) -> Answer:
    """Answer with bytes; `length` is what is said of them beforehand, None for nothing."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if length is not None:
            handler.send_header("Content-Length", str(len(raw) if length == -1 else length))
        handler.end_headers()
        handler.wfile.write(raw)

    return answer


def chunked(raw: bytes) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(raw), 1000):
            part = raw[start : start + 1000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        handler.wfile.write(b"0\r\n\r\n")

    return answer


def status(code: int, reason: str | None = None) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code, reason)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def redirect(to: str, *, endless: bool = False) -> Answer:
    """Answer with another address, and then with bytes that do not end if so asked."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.end_headers()
        while endless and not handler.server.closing.is_set():
            handler.wfile.write(bytes(1 << 16))

    return answer


def silence(raw: bytes, length: int) -> Answer:
    """Answer with the first of so many bytes, and then with nothing."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        content(raw, length)(handler)
        handler.server.closing.wait(60)

    return answer


def no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\x1b[31mhello\r\n\r\n")

"""`ddrank leaderboard serve`: the files of a site, to this machine, and nothing else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from ddrank_core.cli.leaderboard_serve import server
from ddrank_core.cli.main import main
from ddrank_core.leaderboard.site.folder import INDEX, MARK

PAGE = f"<!doctype html>{MARK}"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Return a site with things in it that are none of its own."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "secret.txt").write_text("secret")
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere/secret.html").write_text("secret")
    site = folder / "site"
    (site / "submissions/m").mkdir(parents=True)
    (site / INDEX).write_text(PAGE)
    (site / "submissions/m/digits-ipc1.html").write_text("a page")
    (site / ".git").mkdir()
    (site / ".git/config").write_text("secret")
    (site / ".env").write_text("secret")
    (site / "link.txt").symlink_to("../secret.txt")
    (site / "inside.html").symlink_to(INDEX)
    (site / "folder").symlink_to("../elsewhere")
    (site / "loop").symlink_to("loop")
    return site


@pytest.fixture(scope="module")
def port(site) -> Iterator[int]:
    with server(site, 0) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield listening.server_port
        listening.shutdown()
        thread.join()


def ask(port: int, address: str, host: str | None = "127.0.0.1:{port}", method: str = "GET"):
    """Return status and body of an answer to a request as it is given, dots and all."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest(method, address, skip_host=True)
    if host is not None:
        connection.putheader("Host", host.format(port=port))
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


@pytest.mark.parametrize("address", ["/", "/index.html", "/index.html?a=1#b", "/inside.html", "//index.html"])
def test_the_table_is_shown(port, address):
    assert (200, PAGE) == ask(port, address)


def test_a_page_is_shown_and_described(port):
    assert (200, "a page") == ask(port, "/submissions/m/digits-ipc1.html")
    assert (200, "") == ask(port, "/submissions/m/digits-ipc1.html", method="HEAD")


@pytest.mark.parametrize(
    "address",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/submissions/../../secret.txt",
        "/..\\secret.txt",
        "/link.txt",
        "/folder/secret.html",
        "/loop",
        "/.git/config",
        "/.env",
        "/%2eenv",
        "/submissions",
        "/submissions/",
        "/submissions/m",
        "/folder",
        "//evil.example/..",
        "/%00",
        "/index.html%00",
        "/%ff",
        "/" + "a" * 5000,
        "/missing.html",
    ],
)
def test_nothing_else_is_shown(port, address, capfd):
    status, body = ask(port, address)
    assert 404 == status
    assert "secret" not in body
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}"])
def test_it_answers_by_the_name_of_this_machine(port, host):
    assert 200 == ask(port, "/", host)[0]


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example:{port}",
        "localhost",
        "localhost:1",
        "[::1]:{port}",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_it_answers_by_no_other_name(port, host, method):
    status, body = ask(port, "/", host, method)
    assert (400, False) == (status, MARK in body)


def test_no_other_machine_can_reach_it(site):
    with server(site, 0) as listening:
        assert "127.0.0.1" == listening.server_address[0]


def test_the_command_says_where_it_serves(site, monkeypatch, capsys):
    served = []
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", lambda self: served.append(self.server_port))
    assert 0 == main(["leaderboard", "serve", str(site), "--port", "0"])
    (port,) = served
    assert f"http://127.0.0.1:{port}/  (Ctrl+C ends it)\n" == capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "<!doctype html>somebody else's"])
def test_only_a_site_is_served(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / INDEX).write_text(content)
    assert 2 == main(["leaderboard", "serve", str(tmp_path), "--port", "0"])
    (line,) = capsys.readouterr().err.splitlines()
    assert f"'ddrank leaderboard build {tmp_path}' makes the site" in line


def test_a_port_that_is_taken_is_said_in_one_line(site, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        assert 2 == main(["leaderboard", "serve", str(site), "--port", str(number)])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --port {number}: cannot be used: ")

"""`ddrank submission fetch`: a pinned set is here whole, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from https_server import (
    Server,
    chunked,
    content,
    make_certificate,
    no_http,
    redirect,
    serving,
    silence,
    status,
)
from pinned_case import ABOUT, DIGEST, RAW, fetched, names, pin, refused, trusted

from ddrank_core.leaderboard import fetch

OTHER = bytes(len(RAW))
OTHER_DIGEST = hashlib.sha256(OTHER).hexdigest()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def server(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with trusted(certificate, monkeypatch) as running:
        yield running


# -- what is the declared file -----------------------------------------------------------------


def test_the_file_appears_where_the_recipe_reads_it(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = pin(tmp_path, server.url("/set"), path="sets/dc.safetensors")
    code, out, err = fetched(capsys, folder)
    path = folder / "sets" / "dc.safetensors"
    assert (code, out) == (0, f"{path}: fetched, 1048576 bytes\n")
    assert RAW == path.read_bytes()
    assert ["run.yaml", "sets", "submission.yaml"] == names(folder)
    # No terminal: a line every tenth.
    assert 10 == len(err.splitlines())
    assert err.splitlines()[-1] == "distilled set: 1024 of 1024 KiB, 0 s left"


@pytest.mark.parametrize("answer", [content(RAW, None), chunked(RAW)], ids=["no length", "chunked"])
def test_a_server_may_not_say_beforehand_how_much_it_sends(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: Any
):
    server.answers["/set"] = answer
    folder = pin(tmp_path, server.url("/set"))
    assert (0, "") == fetched(capsys, folder, "--quiet")[::2]
    assert RAW == (folder / "set.safetensors").read_bytes()


def test_a_redirect_is_followed_whatever_it_says_beside_the_address(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    server.answers["/latest"] = redirect("/set", endless=True)
    assert 0 == fetched(capsys, pin(tmp_path, server.url("/latest")))[0]
    assert ["/latest", "/set"] == server.asked


def test_a_set_that_is_here_is_not_fetched_again(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = pin(tmp_path, server.url("/set"))
    (folder / "set.safetensors").write_bytes(RAW)
    assert fetched(capsys, folder) == (0, f"{folder}/set.safetensors: is here already\n", "")
    assert [] == server.asked


def test_of_a_submission_that_holds_its_set_nothing_is_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = pin(tmp_path, "https://example.org/set")
    (folder / "set.safetensors").write_bytes(RAW)
    held = {"path": "set.safetensors", "sha256": DIGEST, "bytes": len(RAW)}
    (folder / "submission.yaml").write_text(yaml.safe_dump({**ABOUT, "distilled": held}))
    line = f"{folder}: holds its distilled set; nothing is to be fetched\n"
    assert fetched(capsys, folder) == (0, line, "")


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"mine", "has 4 bytes, but submission.yaml declares 1048576"),
        (OTHER, f"has the SHA-256 {OTHER_DIGEST}, but submission.yaml declares {DIGEST}"),
    ],
)
def test_another_file_in_its_place_is_kept(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], raw: bytes, line: str
):
    folder = pin(tmp_path, server.url("/set"))
    (folder / "set.safetensors").write_bytes(raw)
    code, out, err = fetched(capsys, folder)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {folder}/set.safetensors: {line}")
    assert err.endswith("; move it away, and fetch again\n")
    assert raw == (folder / "set.safetensors").read_bytes()
    assert [] == server.asked


# -- what is not -------------------------------------------------------------------------------


ANSWERS: dict[str, tuple[Any, str]] = {
    "404": (status(404, "\x1b[2J<b>"), "url: URL answers 404 Not Found"),
    "500": (status(500), "url: URL answers 500 Internal Server Error"),
    "no content": (status(204), "url: URL answers 204 No Content"),
    "unknown status": (status(299), "url: URL answers 299"),
    "too large": (content(RAW + b"x"), "bytes: URL has 1048577 bytes, but 1048576 are declared"),
    "too small": (content(RAW[1:]), "bytes: URL has 1048575 bytes, but 1048576 are declared"),
    "larger than said": (content(RAW + b"x", None), "bytes: URL has more than the 1048576 bytes declared"),
    "smaller than said": (
        content(RAW[:5], len(RAW)),
        "bytes: URL ended after 5 of the 1048576 bytes declared",
    ),
    "another file": (
        content(OTHER),
        f"sha256: URL has the SHA-256 {OTHER_DIGEST}, but {DIGEST} is declared: this is not the file that "
        "was pinned",
    ),
    "to http": (
        redirect("http://example.org/set"),
        "url: URL leads to http://example.org/set, which is not https",
    ),
    "to a file": (
        redirect("file:///etc/passwd"),
        "url: URL answers 302, which leads to no https address, or in a circle",
    ),
    "to a password": (
        redirect("https://a:b@example.org/set"),
        "url: URL leads to https://a:b@example.org/set, which holds a password",
    ),
    "to itself": (
        redirect("/set"),
        "url: URL answers 302, which leads to no https address, or in a circle",
    ),
    "to no port": (
        redirect("https://127.0.0.1:x/set"),
        "url: URL leads to what is no address: InvalidURL: nonnumeric port: 'x'",
    ),
    "to no name": (
        redirect(f"https://{64 * 'a'}.org/set"),
        "url: URL leads to what is no address: Unicode",
    ),
    "no HTTP": (no_http, "url: URL does not speak HTTP: BadStatusLine: [31mhello"),
    "silence": (silence(RAW[:5], len(RAW)), "url: URL gives no data for 0.3 seconds; try again later"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_server_does_wrong_is_one_line_and_leaves_nothing(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
):
    monkeypatch.setattr(fetch, "STALL_SECONDS", 0.3)
    server.answers["/set"], line = ANSWERS[name]
    found = refused(capsys, pin(tmp_path, server.url("/set"))).replace(server.url("/set"), "URL")
    # How Python words a name that is too long depends on its version.
    assert found.startswith(line) if name == "to no name" else found == line


def test_an_endless_answer_is_cut_off_after_the_declared_bytes(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    sent = 0

    def endless(handler: Any) -> None:
        nonlocal sent
        content(b"", None)(handler)
        while not handler.server.closing.is_set():
            sent += handler.wfile.write(bytes(1 << 16))

    server.answers["/set"] = endless
    line = refused(capsys, pin(tmp_path, server.url("/set"), bytes=1000))
    assert line == f"bytes: {server.url('/set')} has more than the 1000 bytes declared"
    # What the sockets between hold besides.
    assert sent < 64 << 20


def test_an_address_that_nobody_answers_is_one_line(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    url = "https://nowhere.invalid/set"
    assert refused(capsys, pin(tmp_path / "a", url)).startswith(f"url: {url} cannot be reached: ")
    url = server.url("/set")
    server.shutdown()
    server.server_close()
    assert refused(capsys, pin(tmp_path / "b", url)) == (
        f"url: {url} cannot be reached: Connection refused; is there a network?"
    )


def test_a_server_without_https_is_one_line(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with serving(None) as plain:
        line = refused(capsys, pin(tmp_path, plain.url("/set")))
    assert line.startswith(f"url: {plain.url('/set')} does not speak https: ")


def test_a_certificate_that_nobody_vouches_for_is_one_line(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("SSL_CERT_FILE")
    line = refused(capsys, pin(tmp_path, server.url("/set")))
    assert line.startswith(f"url: {server.url('/set')} has a certificate that cannot be trusted: self")
    assert [] == server.asked


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("http://example.org/set", "url: must start with https://"),
        ("https://me:secret@example.org/set", "url: is not an address of at most 500 characters"),
        ("https://example.org/a set", "url: is not an address of at most 500 characters"),
    ],
)
def test_an_address_that_is_none_is_refused_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str, line: str
):
    assert line == refused(capsys, pin(tmp_path, url))


@pytest.mark.parametrize(
    "path", ["../set", "/tmp/set", "~/set", "sets/../../set", "c:set", "a\\b", 300 * "ü", 3, None]
)
def test_nothing_is_written_outside_the_submission(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: Any
):
    folder = pin(tmp_path, server.url("/set"), path=path)
    assert refused(capsys, folder).startswith(f"error: {folder}/run.yaml: distilled.path: ")
    assert [] == server.asked

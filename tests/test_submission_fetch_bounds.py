"""`ddrank submission fetch`: what it does not do for a stranger, and what it leaves when it is stopped."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from https_server import Server, make_certificate, proxying, redirect, silence
from pinned_case import AS_WRITTEN, RAW, fetched, names, pin, refused, trusted
from test_light_imports import HEAVY, launch

from ddrank_core.leaderboard import fetch


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def server(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with trusted(certificate, monkeypatch) as running:
        yield running


# -- where it may lead -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "private"),
    [
        ("8.8.8.8", False),
        ("2606:4700::1111", False),
        ("127.0.0.2", True),
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("192.168.0.1", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("::1", True),
        ("[::1]", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("x.localhost", True),
        ("example.org", False),
    ],
)
def test_private_addresses_are_known(place: str, private: bool):
    assert private == fetch.is_private(place)


def test_a_redirect_from_outside_does_not_lead_into_a_private_network(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    # 127.0.0.2 stands for an address of the open internet.
    monkeypatch.setattr(fetch, "is_private", lambda place: place != "127.0.0.2")
    server.answers["/in"] = redirect(server.url("/set", "localhost"))
    line = refused(capsys, pin(tmp_path / "a", server.url("/in", "127.0.0.2")))
    assert line == "url: leads to 127.0.0.1, an address of a private network"
    assert ["/in"] == server.asked
    # From a private one it may, as within a laboratory.
    assert 0 == fetched(capsys, pin(tmp_path / "b", server.url("/in")))[0]


def test_a_proxy_is_used_and_not_asked_into_a_private_network(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    server.answers["/in"] = redirect(server.url("/set"))
    with proxying(server.server_port) as proxy:
        monkeypatch.setenv("https_proxy", proxy)
        assert 0 == fetched(capsys, pin(tmp_path / "a", "https://set.example/set"))[0]
        line = refused(capsys, pin(tmp_path / "b", "https://set.example/in"))
    assert line == "url: leads to 127.0.0.1, an address of a private network"
    assert ["/set", "/in"] == server.asked


# -- the disk, and the user --------------------------------------------------------------------


def test_a_set_that_the_disk_has_no_room_for_is_not_begun(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=len(RAW) - 1))
    folder = pin(tmp_path, server.url("/set"))
    needs = "needs 1048576 bytes, but 1048575 are free on its disk; make room"
    assert f"error: {folder}/set.safetensors: {needs}" == refused(capsys, folder)
    assert [] == server.asked


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = pin(tmp_path, server.url("/set"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system refuses to let a file grow, as it does where the disk is full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(RAW) // 2, hard))
    try:
        line = refused(capsys, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert line == f"error: {folder}/set.safetensors: cannot be written: File too large"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing(server: Server, tmp_path: Path, number: signal.Signals):
    server.answers["/set"] = silence(RAW[:5], len(RAW))
    folder = pin(tmp_path, server.url("/set"))
    command = [sys.executable, "-m", "ddrank_core", "submission", "fetch", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    # What has come is written at once, and then nothing comes.
    while not any(path.stat().st_size == 0 for path in folder.glob(".unfinished-*/distilled")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert "interrupted\n" == process.communicate(timeout=60)[1]
    assert (130, AS_WRITTEN) == (process.returncode, names(folder))


# -- what is made from something else ----------------------------------------------------------

MADE = "ddrank import res_DC_MNIST_ConvNet_1ipc.pt --dataset mnist"


def test_what_is_made_from_something_else_is_not_downloaded(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = pin(tmp_path, server.url("/set"), made_with=MADE)
    assert refused(capsys, folder) == (
        f"error: {folder}/run.yaml: distilled.path: not here; it is made from {server.url('/set')} by: {MADE}"
    )
    (folder / "set.safetensors").write_bytes(RAW)
    assert fetched(capsys, folder) == (0, f"{folder}/set.safetensors: is here already\n", "")
    assert [] == server.asked


@pytest.mark.parametrize(
    ("made_with", "line"),
    [
        ("", "made_with: must not be empty"),
        ("x" * 301, "made_with: 301 characters, of which at most 300 are shown"),
        ("a\nb", "made_with: holds a line break, or a control or invisible character"),
        ("<b>", "made_with: holds < or >, which looks like markup; write it in words"),
        ("=1+1", "made_with: starts with =, which a spreadsheet takes for a formula"),
    ],
)
def test_how_it_is_made_is_one_line_of_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made_with: str, line: str
):
    assert line == refused(capsys, pin(tmp_path, "https://example.org/set", made_with=made_with))


def test_nothing_heavy_is_imported(tmp_path: Path):
    folder = pin(tmp_path, "https://example.org/set")
    (folder / "set.safetensors").write_bytes(RAW)
    code, said, modules = launch("submission", "fetch", os.fspath(folder), folder=tmp_path)
    assert (code, said) == (0, [f"{folder}/set.safetensors: is here already"])
    assert set() == modules & set(HEAVY)
